"""Doctests of what needs an optional library are collected where it is installed."""

from importlib.util import find_spec

collect_ignore_glob = [
    pattern
    for library, patterns in {
        "torch": ("linalgk/optim/*", "linalgk/interop/_torch*"),
        "jax": ("linalgk/interop/_jax*",),
        "dask": ("linalgk/interop/_dask*",),
    }.items()
    for pattern in patterns
    if find_spec(library) is None
]

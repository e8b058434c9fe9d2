"""Table of the public functions of the first room from their records."""

from rst import code, list_table

import linalgk as lk


def path(f):
    """Where users find it: in the flat namespace, or in the module of its room."""
    return f"linalgk.{f.name}" if f.name in lk.__all__ else f"linalgk.{f.room}.{f.name}"


ROOM = globals().get("ROOM", "matfun")
rows = []
for f in lk.functions():
    if f.room != ROOM:
        continue
    first = (f.function.__doc__ or "").strip().splitlines()[0]
    features = [name for name in ("gradient", "jit", "rng", "plan") if getattr(f, name)]
    rows.append(
        [
            f":py:func:`~{path(f)}`",
            first,
            code(f.methods),
            ", ".join(f.accepts),
            ", ".join(features) or "-",
            f"{f.status}, since {f.since}",
        ]
    )
print(list_table(["function", "", "methods", "takes", "features", "status"], rows))

"""How many Gaussians a kernel takes, by interval and tolerance."""

from rst import list_table

import linalgk as lk

TOLERANCES = (1e-4, 1e-7, 1e-10, 1e-13)
KERNELS = {
    "``newton``, 1/r": ("newton", {}, [(1e-2, 1.0), (1e-4, 1.0), (1e-8, 1.0)]),
    "``yukawa``, kappa 1": ("yukawa", {"kappa": 1.0}, [(1e-2, 10.0)]),
    "``slater``, alpha 1": ("slater", {"alpha": 1.0}, [(1e-2, 10.0)]),
    "``matern``, nu 3/2, length 1": ("matern", {"nu": 1.5, "length": 1.0}, [(0.0, 10.0)]),
    "``power``, p 2": ("power", {"p": 2.0}, [(1e-2, 1.0)]),
}


def rows():
    """One for each kernel and interval."""
    for name, (kernel, parameters, intervals) in KERNELS.items():
        for low, high in intervals:
            counts = [lk.gaussian_sum(kernel, low, high, t, **parameters).terms for t in TOLERANCES]
            yield [name, f"[{low:g}, {high:g}]", *map(str, counts)]


HEADER = ["kernel", "interval", *(f"{t:.0e}" for t in TOLERANCES)]
print(list_table(HEADER, list(rows())))

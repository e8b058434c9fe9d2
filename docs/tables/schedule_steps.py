"""Number of steps of the minimax schedule and of Newton-Schulz, by condition number."""

from rst import list_table

import linalgk as lk


def newton(lower, tol):
    count, x = 0, lower
    while 1 - x > tol:
        count, x = count + 1, x * (1.5 - 0.5 * x * x)
    return count


TOLS = (1e-3, 2.0**-24, 2.0**-53)
rows = []
for exponent in (1, 2, 3, 4, 6, 8, 10, 12, 15):
    lower = 10 ** (-exponent / 2)
    quintic = [str(len(lk.minimax_schedule(lower, tol=tol))) for tol in TOLS]
    cubic = str(len(lk.minimax_schedule(lower, tol=TOLS[2], degree=3)))
    rows.append([f":math:`10^{{{exponent}}}`", *quintic, cubic, str(newton(lower, TOLS[2]))])
header = [
    r":math:`\kappa(A)`",
    r"minimax, degree 5, to :math:`10^{-3}`",
    r"to :math:`2^{-24}`",
    r"to :math:`2^{-53}`",
    r"minimax, degree 3, to :math:`2^{-53}`",
    r"Newton--Schulz to :math:`2^{-53}`",
]
print(list_table(header, rows))

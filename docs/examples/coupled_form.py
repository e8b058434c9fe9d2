"""Why linalgk iterates on M alone: the same steps in two forms, with products full or halved."""

import numpy as np

import linalgk as lk
from linalgk.testing import reference_sqrtm, relative_error, spd_matrix


def full(x, y):
    return x @ y


def half(x, y):
    """A product of commuting symmetric matrices: the upper triangle, copied to the lower."""
    z = np.triu(x @ y)
    return z + np.triu(z, 1).T


def m_form(a, schedule, product):
    """X <- X T, M <- M T^2 with T = a I + b M + c M^2."""
    eye = np.eye(len(a))
    m = x = a
    for a0, b0, c0 in schedule:
        t = a0 * eye + b0 * m + c0 * product(m, m)
        x, m = product(x, t), product(product(m, t), t)
    return x


def coupled_form(a, schedule, product):
    """P = Z Y, T = a I + b P + c P^2, Y <- Y T, Z <- T Z."""
    eye = np.eye(len(a))
    y, z = a, eye
    for a0, b0, c0 in schedule:
        p = product(z, y)
        t = a0 * eye + b0 * p + c0 * product(p, p)
        y, z = product(y, t), product(t, z)
    return y


n, kappa = 8, 1e6
a = spd_matrix(n, kappa)  # largest eigenvalue 1
root = reference_sqrtm(a)
schedule = lk.minimax_schedule(kappa**-0.5 * 0.9)
print(f"n = {n}, kappa = {kappa:.0e}, {len(schedule)} minimax steps, float64")
for name, form in (("coupled form", coupled_form), ("M form", m_form)):
    for product in (full, half):
        error = float(relative_error(form(a, schedule, product), root))
        print(f"{name}, {product.__name__ + ' products:':<16}error {error:.0e}".rjust(48))

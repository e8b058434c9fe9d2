"""Gaussian-process regression on a grid of collocation points, with gaps, from `Kron` alone.

The setting of GP-HM, a solver for high-frequency differential equations: 400 x 400 collocation
points, sin(100 x) sin(100 y), and kernels of the spectral mixture's kind: a product over the axes
of ``w exp(-(r/ell)^2/2) cos(2 pi mu r)``. Where nothing is missing, one eigendecomposition for each
factor gives the likelihood and all of its derivatives; with gaps `Kron.masked` takes over.
"""

import numpy as np
import scipy.optimize

import linalgk as lk

NAMES = ("log w", "log ell_x", "mu_x", "log ell_y", "mu_y", "log noise")


def kernel(x, log_ell, mu):
    """A factor, and its derivatives by log ell and mu."""
    r = x[:, None] - x
    bell, turn = np.exp(-0.5 * (r / np.exp(log_ell)) ** 2), 2 * np.pi * r
    k = bell * np.cos(turn * mu)
    return k, k * (r / np.exp(log_ell)) ** 2, -turn * bell * np.sin(turn * mu)


def parts(x, y, theta):
    """The grid's matrix, its derivatives by kernel parameters, the variance of the noise."""
    w = np.exp(theta[0])
    k1, *d1 = kernel(x, *theta[1:3])
    k2, *d2 = kernel(y, *theta[3:5])
    k = lk.Kron([w * k1, k2], assume_a="pos")
    ways = [k, *(lk.Kron([w * d, k2]) for d in d1), *(lk.Kron([w * k1, d]) for d in d2)]
    return k, ways, np.exp(theta[5])


def whole(x, y, z, theta):
    """Negative log-likelihood of a grid z without gaps, and its gradient, in closed form.

    With ``K_i = Q_i diag(l_i) Q_i^T``, ``d_ij = l_1i l_2j + s``: ``nll = sum t_ij^2 / d_ij + sum
    log d_ij`` (half of it) for ``t = Q_1^T z Q_2``, and ``tr A^-1 dA`` is a sum over the diagonals
    of ``Q_i^T dK_i Q_i``.
    """
    k, ways, s = parts(x, y, theta)
    (l1, q1), (l2, q2) = (np.linalg.eigh(f) for f in k.factors)
    d = np.maximum(np.outer(l1, l2), 0) + s
    t = q1.T @ z @ q2
    alpha = q1 @ (t / d) @ q2.T
    nll = 0.5 * ((t**2 / d).sum() + np.log(d).sum() + z.size * np.log(2 * np.pi))
    gradient = []
    for way in ways:
        f1, f2 = way.factors
        g1, g2 = ((q * (f @ q)).sum(axis=0) for q, f in ((q1, f1), (q2, f2)))
        trace = g1 @ (1 / d) @ g2
        gradient.append(0.5 * (trace - (alpha * (f1 @ alpha @ f2.T)).sum()))
    gradient.append(0.5 * s * ((1 / d).sum() - (alpha**2).sum()))
    return nll, np.array(gradient)


def gappy(x, y, r, seen, theta, *, n_probes=8, rng=0):
    """The same for values r at the points that were seen, and the posterior mean on the grid.

    Traces in the gradient are estimated by random signs, as the determinant is where many points
    are missing; the last result says how large their standard errors are.
    """
    k, ways, s = parts(x, y, theta)
    a = k.masked(seen)
    alpha = a.solve(r, shift=s, tol=1e-6)
    logdet = a.logdet(shift=s, rng=rng)
    nll = 0.5 * (r @ alpha + float(logdet) + a.n * np.log(2 * np.pi))
    mean = (k @ a.embed(alpha)).reshape(seen.shape)
    signs = np.random.default_rng(rng).choice([-1.0, 1.0], (a.n, n_probes))
    back = a.solve(signs, shift=s, tol=1e-4)
    gradient, error = [], []
    for way in ways:
        d = way.masked(seen)
        traces = (back * (d @ signs)).sum(axis=0)
        gradient.append(0.5 * (traces.mean() - alpha @ (d @ alpha)))
        error.append(0.5 * traces.std(ddof=1) / n_probes**0.5)
    traces = s * (back * signs).sum(axis=0)
    gradient.append(0.5 * (traces.mean() - s * alpha @ alpha))
    error.append(0.5 * traces.std(ddof=1) / n_probes**0.5)
    return nll, 0.5 * logdet.std_error, mean, np.array(gradient), np.array(error)


def by_torch(x, y, r, seen, theta, *, rng=0):
    """The gradient of `gappy`, found by PyTorch."""
    import torch

    t = torch.tensor(theta, requires_grad=True)

    def factor(x, log_ell, mu):
        u = torch.as_tensor(x)
        d = u[:, None] - u
        return torch.exp(-0.5 * (d / log_ell.exp()) ** 2) * torch.cos(2 * np.pi * d * mu)

    k = lk.Kron([t[0].exp() * factor(x, t[1], t[2]), factor(y, t[3], t[4])], assume_a="pos")
    a, values = k.masked(seen), torch.as_tensor(r)
    alpha = a.solve(values, shift=t[5].exp(), tol=1e-6)
    nll = 0.5 * (values @ alpha + a.logdet(shift=t[5].exp(), rng=rng).value)
    nll.backward()
    return t.grad.numpy()


def main(p=400, *, steps=12, seed=0):
    """Fit the kernel where nothing is missing, then predict where a fifth is."""
    rng = np.random.default_rng(seed)
    x = y = np.linspace(0, 1, p)
    truth = np.sin(100 * x)[:, None] * np.sin(100 * y)
    z = truth + 0.1 * rng.standard_normal(truth.shape)
    seen = rng.random(truth.shape) < 0.8

    # frequencies to start from: where the spectrum of the data is largest
    peak = np.abs(np.fft.rfft2(z)[: p // 2]).argmax()
    f1, f2 = (i * (p - 1) / p for i in divmod(peak, p // 2 + 1))
    theta = np.array([0.0, np.log(0.1), f1, np.log(0.1), f2, np.log(0.1)])
    found = scipy.optimize.minimize(
        lambda t: whole(x, y, z, t), theta, jac=True, method="L-BFGS-B", options={"maxiter": steps}
    )
    theta = found.x
    print(f"{p} x {p} points, nll {found.fun:.1f} after {found.nfev} evaluations")
    for name, value in zip(NAMES, theta, strict=True):
        print(f"  {name:10} {value:9.4f}")

    r = z[seen]
    nll, nll_error, mean, gradient, error = gappy(x, y, r, seen, theta)
    print(f"{r.size} of them seen: nll {nll:.1f} +- {nll_error:.1f}")
    for name, g, e in zip(NAMES, gradient, error, strict=True):
        print(f"  d/d {name:10} {g:11.2f} +- {e:.2f}")
    size = {
        where: float(np.sqrt(((mean - truth)[chosen] ** 2).mean()))
        for where, chosen in (("seen", seen), ("missing", ~seen))
    }
    print(", ".join(f"error at {where} points {value:.4f}" for where, value in size.items()))
    return {
        "theta": theta, "nll": nll, "mean": mean, "truth": truth, "seen": seen, "z": z, "x": x,
        "gradient": gradient, "error": error, "size": size,
    }  # fmt: skip


if __name__ == "__main__":
    main()

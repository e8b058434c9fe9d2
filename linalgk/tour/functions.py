"""Second chapter: logarithms average covariances, inverse fourth roots train a classifier."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import linalgk as lk
from linalgk.tour import _plots
from linalgk.tour._covariances import local_covariances, photographs
from linalgk.tour._page import (
    Figure,
    Heading,
    Num,
    Page,
    Table,
    Text,
    duration,
    missing,
    ratio,
    scientific,
)
from linalgk.tour._timing import interleaved

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from numpy.typing import NDArray

    from linalgk.tour._page import Options

    Array = NDArray[Any]

__all__ = ["STEPS", "TITLE", "run"]

TITLE = "Matrix functions: averaging covariances, preconditioning a classifier"
STEPS = (
    "covariances of both photographs",
    "log-Euclidean mean",
    "timing logarithms",
    "training with gradients",
    "training with inverse roots",
    "timing inverse roots",
)
REL_DAMP = 1e-4


def run(options: Options) -> Generator[None, None, Page]:
    """Do the chapter; yields before each of `STEPS`."""
    page = Page()
    yield
    step = 32 if options.quick else 8
    windows = np.concatenate([local_covariances(i, step=step) for i in photographs().values()])
    yield
    _mean(windows, page)
    yield
    _time_logarithms(windows, page, options)
    yield
    digits = _digits()
    if digits is None:
        page.left_out.append(missing("scikit-learn", what="The classifier"))
        yield
        yield
        return page
    steps = 15 if options.quick else 40
    plain = _train(digits, steps, _Gradient())
    yield
    shampoo = _Shampoo()
    ours = _train(digits, steps, shampoo)
    _training(plain, ours, shampoo, page)
    yield
    _time_roots(shampoo, page, options)
    return page


# --- averaging -----------------------------------------------------------------------------------


def _mean(windows: Array, page: Page) -> None:
    """exp(mean(log C)), and what it keeps that the arithmetic mean does not."""
    from scipy.linalg import expm

    logs, info = lk.logm(windows, assume_a="pos", return_info=True)
    log_mean = logs.mean(axis=0)
    mean, plain = expm(log_mean), windows.mean(axis=0)
    # det exp(X) = exp(trace X): the determinant of the mean is the mean of the determinants
    wanted = np.linalg.slogdet(windows)[1].mean()
    rows: list[list[str | Num]] = []
    for name, matrix in (("log-Euclidean", mean), ("arithmetic", plain)):
        logdet = float(np.linalg.slogdet(matrix)[1])
        w = np.linalg.eigvalsh(matrix)
        rows.append([name, Num(logdet, f"{logdet:.6f}"), scientific(w[-1] / w[0])])
    off = abs(np.linalg.slogdet(mean)[1] - wanted) / abs(wanted)
    inverse = lk.inv_root(windows, 1, assume_a="pos")
    back = expm(-lk.logm(inverse, assume_a="pos").mean(axis=0))
    symmetric = float(np.linalg.norm(back - mean) / np.linalg.norm(mean))
    page.headlines.append(
        (
            f"averaged {len(windows):,} covariances by their logarithms",
            f"determinant kept to {scientific(off)}, |exp(log C) − C| ≤ "
            f"{scientific(float(info.residual.max()))} |C|",
        )
    )
    page.add(
        Heading("An average that does not swell"),
        Text(
            f"The arithmetic mean of the {len(windows):,} covariance matrices of the photographs' "
            "4 × 4 patches is more spread out than a typical one of them: its determinant exceeds "
            "the geometric mean of theirs. The log-Euclidean mean exp(mean(log C)) keeps it, and "
            "the mean of the inverses is the inverse of the mean."
        ),
        Table("Two means", ["mean", "log det", "condition"], rows),
        Table(
            "Laws that the logarithms have to keep",
            ["law", "relative error"],
            [
                ["log det of the mean = mean of the log dets", scientific(off)],
                ["mean of the inverses = inverse of the mean", scientific(symmetric)],
                ["exp(log C) = C, worst window", scientific(float(info.residual.max()))],
            ],
        ),
    )
    if _plots.available():
        page.add(_mean_spectra(windows, mean, plain))


def _mean_spectra(windows: Array, mean: Array, plain: Array) -> Figure:
    figure = _plots.new_figure(8.6, 3.2)
    axes = figure.add_subplot()
    every = np.linalg.eigvalsh(windows)[:, ::-1]
    index = np.arange(1, every.shape[1] + 1)
    low, middle, high = np.quantile(every, (0.1, 0.5, 0.9), axis=0)
    axes.fill_between(index, low, high, color=_plots.COLOURS["NumPy"], alpha=0.25, lw=0)
    for values, label, colour in (
        (middle, "median window", _plots.COLOURS["NumPy"]),
        (np.linalg.eigvalsh(mean)[::-1], "log-Euclidean mean", _plots.COLOURS["linalgk"]),
        (np.linalg.eigvalsh(plain)[::-1], "arithmetic mean", _plots.COLOURS["SciPy"]),
    ):
        axes.semilogy(index, values, "o-", ms=3, lw=1.2, color=colour, label=label)
    axes.legend(frameon=False)
    axes.set_xlabel("index")
    axes.set_ylabel("eigenvalue")
    return Figure(
        "Eigenvalues of the two means among those of the windows (band: from the 10th to the 90th "
        "percentile). The arithmetic mean lies above nearly all of them.",
        "Line plot of eigenvalues: the log-Euclidean mean follows the median window, the "
        "arithmetic mean lies above.",
        _plots.svg(figure, "means"),
    )


def _numpy_logm(a: Array) -> Array:
    w, v = np.linalg.eigh(a)
    return np.asarray((v * np.log(w)[..., None, :]) @ v.mT)


def _scipy_logm(a: Array) -> Array:
    from scipy.linalg import logm

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it doubts results that are right
        return np.stack([logm(member) for member in a])


def _time_logarithms(windows: Array, page: Page, options: Options) -> None:
    some = windows[:: max(1, len(windows) // (20 if options.quick else 200))]
    timed = interleaved(
        {
            "linalgk": lambda: lk.logm(some, assume_a="pos"),
            "NumPy": lambda: _numpy_logm(some),
            "SciPy": lambda: _scipy_logm(some),
        },
        budget=0.3,
    )
    _times(f"logarithms, {len(some)} × 16 × 16", timed, page, "lk.logm")


def _times(work: str, timed: dict[str, Any], page: Page, label: str) -> None:
    ours = timed["linalgk"].seconds
    rows: list[list[str | Num]] = [
        [name, duration(t.seconds), ratio(t.seconds / ours)] for name, t in timed.items()
    ]
    text = ", ".join(
        f"{ratio(t.seconds / ours)} as fast as {name}"
        for name, t in timed.items()
        if name != "linalgk"
    )
    page.headlines.append((work, f"{duration(ours)}: {text}"))
    page.add(Heading(f"Time: {label}"), Table(work, ["library", "time", "in linalgk's"], rows))


# --- preconditioning -----------------------------------------------------------------------------


def _digits() -> tuple[Array, Array] | None:
    """Pixels with a constant column (1797, 65) and one-hot classes (1797, 10)."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        return None
    data = load_digits()
    x = data.data / 16.0
    return np.hstack([x, np.ones((len(x), 1))]), np.eye(10)[data.target]


class _Gradient:
    """Plain gradient descent."""

    rate = 8.0  # the best of 1, 2, 4, 8, 16

    def direction(self, gradient: Array) -> Array:
        return gradient


@dataclass
class _Shampoo:
    """``L^(-1/4) G R^(-1/4)`` with L and R the sums of ``G G^T`` and ``G^T G``, as published."""

    rate = 10.0  # the best of 0.1, 0.3, 1, 3, 10

    def __post_init__(self) -> None:
        self.left = lk.InverseRoot(4, rel_damp=REL_DAMP)
        self.right = lk.InverseRoot(4, rel_damp=REL_DAMP)
        self.sums: list[Array] = []
        self.fresh: list[bool] = []
        self.drift: list[float] = []

    def direction(self, gradient: Array) -> Array:
        squares = [gradient @ gradient.T, gradient.T @ gradient]
        if not self.sums:
            # some of the identity, because one gradient leaves most directions empty
            self.sums = [1e-3 * np.trace(s) / len(s) * np.eye(len(s)) for s in squares]
        self.sums = [a + s for a, s in zip(self.sums, squares, strict=True)]
        left, right = (
            root.update(a.astype(np.float32))
            for root, a in zip((self.left, self.right), self.sums, strict=True)
        )
        self.fresh += [bool(self.left.fresh), bool(self.right.fresh)]
        self.drift += [float(self.left.drift), float(self.right.drift)]
        return np.asarray(left @ gradient @ right)


def _train(digits: tuple[Array, Array], steps: int, method: Any) -> list[tuple[float, float]]:
    """Loss and share of errors after every step of softmax regression."""
    x, classes = digits
    weights = np.zeros((x.shape[1], classes.shape[1]))
    history = []
    for _ in range(steps):
        scores = x @ weights
        scores -= scores.max(axis=1, keepdims=True)
        p = np.exp(scores)
        p /= p.sum(axis=1, keepdims=True)
        loss = -np.log((p * classes).sum(axis=1)).mean()
        wrong = (p.argmax(axis=1) != classes.argmax(axis=1)).mean()
        history.append((float(loss), float(wrong)))
        weights -= method.rate * method.direction(x.T @ (p - classes) / len(x))
    return history


def _training(
    plain: list[tuple[float, float]], ours: list[tuple[float, float]], shampoo: _Shampoo, page: Page
) -> None:
    rows: list[list[str | Num]] = [
        [name, Num(run[-1][0], f"{run[-1][0]:.4f}"), Num(run[-1][1], f"{100 * run[-1][1]:.2f} %")]
        for name, run in (("gradient", plain), ("L^(-1/4) G R^(-1/4)", ours))
    ]
    warm = shampoo.fresh.count(False)
    worst = max(shampoo.drift)
    page.headlines.append(
        (
            f"trained a classifier of handwritten digits, {len(ours)} steps",
            f"loss {ours[-1][0]:.3f} with inverse fourth roots, {plain[-1][0]:.3f} with gradients; "
            f"{warm} of {len(shampoo.fresh)} roots warm-started",
        )
    )
    page.add(
        Heading("Inverse fourth roots precondition a classifier"),
        Text(
            "Softmax regression of the 1,797 handwritten digits of scikit-learn. Shampoo "
            "multiplies the gradient G from both sides by inverse fourth roots of the sums of G Gᵀ "
            "and Gᵀ G so far. These change little from step to step: lk.InverseRoot starts from "
            f"the last eigenvectors where that is cheaper ({warm} of {len(shampoo.fresh)} times), "
            "and its certificate ‖Z⁴A − I‖ says how far off the root is: at worst "
            f"{scientific(worst)}, in single precision and at a condition of up to 1e4. Each "
            "method takes the best of five step lengths."
        ),
        Table("After training", ["direction", "loss", "wrong digits"], rows),
    )
    if not _plots.available():
        return
    figure = _plots.new_figure(8.6, 3.2)
    axes = figure.add_subplot()
    for run, label, colour in (
        (plain, "gradient", _plots.COLOURS["NumPy"]),
        (ours, "with inverse fourth roots", _plots.COLOURS["linalgk"]),
    ):
        axes.semilogy([loss for loss, _ in run], "-", lw=1.4, color=colour, label=label)
    axes.legend(frameon=False)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    page.add(
        Figure(
            "Loss against steps: the preconditioned direction descends faster.",
            "Line plot of two falling losses, the preconditioned one lower.",
            _plots.svg(figure, "training"),
        )
    )


def _numpy_root(a: Array) -> Array:
    w, v = np.linalg.eigh(a)
    w = w + REL_DAMP * w[..., -1:]
    return np.asarray((v * w[..., None, :] ** -0.25) @ v.mT)


def _scipy_root(a: Array) -> Array:
    from scipy.linalg import fractional_matrix_power

    n = a.shape[-1]
    return np.stack(
        [
            fractional_matrix_power(m + REL_DAMP * np.linalg.eigvalsh(m)[-1] * np.eye(n), -0.25)
            for m in a
        ]
    )


def _time_roots(shampoo: _Shampoo, page: Page, options: Options) -> None:
    """The preconditioners of many layers at once, as an optimizer has them."""
    layers = 8 if options.quick else 32
    one = shampoo.sums[0]
    batch = one * np.geomspace(1.0, 2.0, layers)[:, None, None]
    calls: dict[str, Callable[[], Any]] = {
        "linalgk": lambda: lk.inv_root(batch, 4, assume_a="pos", rel_damp=REL_DAMP),
        "NumPy": lambda: _numpy_root(batch),
        "SciPy": lambda: _scipy_root(batch),
    }
    timed = interleaved(calls, budget=0.4)
    n = len(one)
    _times(f"inverse fourth roots, {layers} × {n} × {n}", timed, page, "lk.inv_root")

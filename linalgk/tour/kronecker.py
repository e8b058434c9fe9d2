"""Fifth chapter: a photograph restored by a Gaussian process on its grid of pixels."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

import linalgk as lk
from linalgk.tour import _kron_times, _plots
from linalgk.tour._covariances import photographs, size
from linalgk.tour._grid_gp import (
    LINES,
    SCATTERED,
    SEEN,
    Dense,
    damage,
    deviations,
    fit,
    posterior_variance,
)
from linalgk.tour._page import (
    Code,
    Figure,
    Heading,
    Num,
    Page,
    Table,
    Text,
    count,
    duration,
    missing,
    scientific,
)

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import NDArray

    from linalgk.tour._grid_gp import Fit, Model
    from linalgk.tour._page import Block, Options

    Array = NDArray[Any]

__all__ = ["STEPS", "TITLE", "run"]

TITLE = "Kronecker products: a photograph restored"
STEPS = (
    "reading a photograph",
    "marginal likelihood",
    "denoising",
    "inpainting",
    "errors to expect",
    "rows and columns missing",
    "dense matrices",
    "loading peers",
    "timing",
)
# What is done to the photograph.
NOISE = 20.0
SHARE = 0.3
PEAK = 255.0
# Of the residual: rounding of a picture's gray levels is far above.
TOL = 1e-6
# Draws of errors, which are averaged over many pixels, need no more.
DRAWS, COARSE = 4, 1e-3
LEVEL = 0.95
PLACES = {SEEN: "seen", SCATTERED: "lost one by one", LINES: "word and scratch"}


def run(options: Options) -> Generator[None, None, Page]:
    """Do the chapter; yields before each of `STEPS`."""
    page = Page()
    rng = np.random.default_rng(0)
    yield
    scene = _scene(photographs()["camera"], rng, quick=options.quick)
    if not _plots.available():
        page.left_out.append(missing("matplotlib", what="Plots"))
    yield
    found, seconds = _clocked(lambda: fit(scene.y))
    model = found.models[0]
    page.add(*_introduction(scene))
    page.add(*_likelihood(scene, found, seconds, page))
    yield
    clean = _denoised(scene, model)
    yield
    restored = _inpainted(scene, model)
    yield
    draws = deviations(clean.kernel, model.noise, scene.seen, DRAWS, COARSE, rng)
    page.add(*_errors(scene, clean, restored, draws, page))
    page.add(*_pictures(scene, clean, restored, draws))
    yield
    lines = _lines(scene, model, rng)
    yield
    crop = _crop(scene, model, edge=24 if options.quick else 40)
    page.add(*_checks([lines, crop], page))
    yield
    peers = _kron_times.peers()
    yield
    page.add(*_kron_times.table(scene.y, scene.seen, model, TOL, peers, options, page))
    page.add(*_explanations(scene, clean))
    return page


# --- the work ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Scene:
    """A photograph, and what was done to it."""

    photograph: Array
    noisy: Array
    state: Array

    @cached_property
    def mean(self) -> float:
        """Of the data."""
        return float(self.noisy.mean())

    @cached_property
    def y(self) -> Array:
        """The data, of mean zero."""
        return self.noisy - self.mean

    @cached_property
    def seen(self) -> Array:
        """Whether a pixel is left."""
        return np.asarray(self.state == SEEN)

    def rms(self, picture: Array) -> float:
        """The error of a picture, in gray levels."""
        return _rms(picture - self.photograph)


def _scene(image: Array, rng: Any, *, quick: bool) -> _Scene:
    """Face, camera and tower, in a rectangle that is no square; every other pixel if `quick`."""
    picture = image[40:296, 200:440]
    if quick:
        picture = picture[::2, ::2]
    noisy = picture + NOISE * rng.standard_normal(picture.shape)
    return _Scene(picture, noisy, damage((picture.shape[0], picture.shape[1]), SHARE, rng))


@dataclass(frozen=True)
class _Denoised:
    """A picture from all pixels, by one solution."""

    kernel: Any
    picture: Array
    predicted: float  # rms error
    residual: float
    seconds: float


def _denoised(scene: _Scene, model: Model) -> _Denoised:
    shape = scene.y.shape
    factors = model.factors((shape[0], shape[1]))
    kernel = lk.Kron(list(factors), assume_a="pos")
    weights, seconds = _clocked(lambda: kernel.solve(scene.y.ravel(), shift=model.noise))
    picture = scene.mean + (kernel @ weights).reshape(shape)
    left = scene.y - _kron_times.covered(factors, weights.reshape(shape), model.noise)
    variance = posterior_variance(model, (shape[0], shape[1]))
    return _Denoised(
        kernel, picture, float(np.sqrt(variance.mean())), _rms(left) / _rms(scene.y), seconds
    )


@dataclass(frozen=True)
class _Inpainted:
    """A picture from the pixels that are left, by iteration."""

    picture: Array
    residual: float
    steps: int
    evidence: tuple[float, float, float]  # for each pixel, and the ends of its interval
    seconds: float


def _inpainted(scene: _Scene, model: Model) -> _Inpainted:
    shape, y = scene.y.shape, scene.y[scene.seen]
    factors = model.factors((shape[0], shape[1]))
    kernel = lk.Kron(list(factors), assume_a="pos")
    part = kernel.masked(scene.seen)
    (weights, info), seconds = _clocked(
        lambda: part.solve(y, shift=model.noise, tol=TOL, return_info=True)
    )
    whole = part.embed(weights)
    picture = scene.mean + (kernel @ whole).reshape(shape)
    left = y - _kron_times.covered(factors, whole.reshape(shape), model.noise)[scene.seen]
    logdet = part.logdet(shift=model.noise, rng=0)
    value, high, low = (
        -0.5 * (float(y @ weights) + float(log) + len(y) * np.log(2 * np.pi)) / len(y)
        for log in (logdet.value, *logdet.interval(LEVEL))
    )
    return _Inpainted(
        picture, _rms(left) / _rms(y), int(info.iterations), (value, low, high), seconds
    )


@dataclass(frozen=True)
class _Check:
    """An estimate and its interval beside the exact value, and solutions beside exact ones."""

    what: str
    points: int
    estimate: float
    interval: tuple[float, float]
    exact: float
    differences: dict[str, float]


def _lines(scene: _Scene, model: Model, rng: Any) -> _Check:
    """Whole rows and columns missing leave a smaller Kronecker product, with exact answers."""
    rows, columns = (rng.random(n) > SHARE / 2 for n in scene.y.shape)
    seen = np.outer(rows, columns)
    down, across = model.factors((len(rows), len(columns)))
    part = lk.Kron([down, across], assume_a="pos").masked(seen)
    small = lk.Kron([down[np.ix_(rows, rows)], across[np.ix_(columns, columns)]], assume_a="pos")
    y = scene.y[seen]
    want = small.solve(y, shift=model.noise)
    found = part.solve(y, shift=model.noise, tol=TOL)
    # exact where few points are missing, unless told otherwise
    logdet = part.logdet(shift=model.noise, method="slq", rng=1)
    return _Check(
        f"{size(scene.y)} pixels, {np.sum(~rows)} rows and {np.sum(~columns)} columns missing",
        len(y),
        float(logdet.value),
        logdet.interval(LEVEL),
        float(small.slogdet(shift=model.noise).logabsdet),
        {"solution": _off(found, want)},
    )


def _crop(scene: _Scene, model: Model, *, edge: int) -> _Check:
    """A part with letters on it, small enough for the whole covariance matrix."""
    at = np.argwhere(scene.state == LINES).mean(axis=0).astype(int) - edge // 2
    window = tuple(slice(int(i), int(i) + edge) for i in at)
    seen, y = scene.seen[window], scene.y[window]
    kernel = lk.Kron(list(model.factors((edge, edge))), assume_a="pos")
    part, s = kernel.masked(seen), model.noise
    restored = kernel @ part.embed(part.solve(y[seen], shift=s, tol=TOL))
    denoised = kernel @ kernel.solve(y.ravel(), shift=s)
    logdet = part.logdet(shift=s, method="slq", rng=2)
    few, every = Dense(model, seen), Dense(model, np.ones_like(seen))
    return _Check(
        f"{size(y)} pixels, {np.sum(~seen)} of them missing",
        int(seen.sum()),
        float(logdet.value),
        logdet.interval(LEVEL),
        few.logdet,
        {
            "restored": _off(restored.reshape(y.shape), few.mean(y[seen])),
            "denoised": _off(denoised.reshape(y.shape), every.mean(y.ravel())),
            "variance": _off(posterior_variance(model, (edge, edge)), every.variance()),
        },
    )


def _nearest(scene: _Scene) -> tuple[Array, Array]:
    """Each pixel from the nearest one that is left, and how far that is."""
    from scipy.ndimage import distance_transform_edt

    far, (i, j) = distance_transform_edt(~scene.seen, return_indices=True)
    return scene.noisy[i, j], far


def _clocked(call: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    return call(), time.perf_counter() - start


def _rms(x: Array) -> float:
    return float(np.sqrt(np.mean(x**2)))


def _decibels(rms: float) -> float:
    """An error below the largest gray level."""
    return float(20 * np.log10(PEAK / rms))


def _off(x: Array, want: Array) -> float:
    """Relative difference."""
    return float(np.linalg.norm(x - want) / np.linalg.norm(want))


# --- what it says --------------------------------------------------------------------------------


def _introduction(scene: _Scene) -> list[Block]:
    n = scene.y.size
    share = 100 * float(np.mean(~scene.seen))
    rows: list[list[str | Num]] = [
        ["photograph", size(scene.y), count(n)],
        [
            "factors of the covariance",
            " and ".join(f"{n} × {n}" for n in scene.y.shape),
            count(sum(n**2 for n in scene.y.shape)),
        ],
        ["the covariance itself", f"{n:,} × {n:,}", count(n**2)],
    ]
    return [
        Text(
            "A photograph is taken for a Gaussian random field: two pixels are the more alike the "
            "closer their rows and their columns are, so that the covariance of all pixels is "
            "variance · k(rows) ⊗ k(columns), a Kronecker product. Noise of standard deviation "
            f"{NOISE:g} is added to the photograph; of the noisy one, {share:.0f} % of the pixels "
            f"are lost: {100 * SHARE:.0f} % by chance, others to a word and a scratch. "
            "lk.Kron([k_rows, k_columns]) answers all questions below from the two factors alone."
        ),
        Table("Numbers to store", ["what", "size", "numbers"], rows),
        Text(
            "What is predicted, before anything is compared with the true photograph: how much "
            "noise was added; how much of it denoising leaves; by how much the restored picture "
            "errs where pixels are left and where they are lost, and how that grows with the "
            "distance to what is left. Of the numbers themselves: that the residual of the "
            f"iteration is at most {scientific(TOL)}, and that an interval holds a log-determinant "
            f"with a probability of {100 * LEVEL:.0f} %. All of it is checked below."
        ),
    ]


def _likelihood(scene: _Scene, found: Fit, seconds: float, page: Page) -> list[Block]:
    best = found.models[0]
    rows: list[list[str | Num]] = [
        [
            f"Matérn {model.smoothness}",
            _fixed(model.lengths[0], 1),
            _fixed(model.lengths[1], 1),
            _fixed(model.variance**0.5),
            _fixed(model.noise**0.5),
            Num(model.evidence - best.evidence, f"{model.evidence - best.evidence:,.0f}"),
        ]
        for model in found.models
    ]
    page.headlines.append(
        (
            f"noise of a photograph by {found.likelihoods} marginal likelihoods",
            f"standard deviation {_fixed(best.noise**0.5)}, {NOISE:g} was added; "
            f"{duration(seconds)} for all",
        )
    )
    return [
        Heading("Parameters from the noisy photograph"),
        Text(
            "The marginal likelihood needs a solution and a log-determinant of K + noise·I, both "
            "from the eigenvectors of the two factors. Batches of factors make pairs of all their "
            "members, and a shift needs nothing new: "
            f"{found.likelihoods} likelihoods of {scene.y.size:,} pixels came from "
            f"{found.eigendecompositions} eigendecompositions of factors, in {duration(seconds)}. "
            f"The most likely noise is {_fixed(best.noise**0.5)}; {NOISE:g} was added. What the "
            "photograph has of noise by itself counts as well."
        ),
        Table(
            "Most likely parameters",
            ["kernel", "length, down", "length, across", "picture, standard deviation",
             "noise, standard deviation", "log-likelihood, to the best"],
            rows,
        ),
    ]  # fmt: skip


def _errors(
    scene: _Scene, clean: _Denoised, restored: _Inpainted, draws: Array, page: Page
) -> list[Block]:
    nearest, far = _nearest(scene)
    before, after, filled, whole = (
        _decibels(scene.rms(picture))
        for picture in (scene.noisy, clean.picture, nearest, restored.picture)
    )
    rows = [
        _row(scene, name, picture - scene.photograph)
        for name, picture in (
            ("noisy", scene.noisy),
            ("denoised, from all pixels", clean.picture),
            ("restored, from what is left", restored.picture),
            ("nearest pixel that is left", nearest),
        )
    ]
    rows.insert(3, _row(scene, "restored, predicted", draws))
    error, lost = scene.rms(clean.picture), int(np.sum(~scene.seen))
    page.headlines += [
        (
            f"denoised, {size(scene.y)} pixels",
            f"{before:.1f} dB to {after:.1f} dB in {duration(clean.seconds)}; "
            f"rms error {_fixed(error)}, predicted {_fixed(clean.predicted)}",
        ),
        (
            f"restored, {lost:,} pixels missing",
            f"{whole:.1f} dB (nearest pixel: {filled:.1f} dB) in {duration(restored.seconds)}; "
            f"rms error {_fixed(scene.rms(restored.picture))}, predicted {_fixed(_rms(draws))}",
        ),
    ]
    value, low, high = restored.evidence
    blocks: list[Block] = [
        Heading("Denoised and restored"),
        Text(
            "K.solve(y, shift=noise) denoises: weights that K turns into the most likely picture, "
            f"in {duration(clean.seconds)} to a residual of {scientific(clean.residual)}. The "
            "variance of each pixel is a Kronecker product as well, of squared eigenvectors: it "
            f"predicts an rms error of {_fixed(clean.predicted)}; it is {_fixed(error)}."
        ),
        Text(
            "K.masked(seen) is the covariance of what is left, which is no Kronecker product: its "
            f"solve took {restored.steps} steps of conjugate gradients for the missing values and "
            f"{duration(restored.seconds)}, down to a residual of "
            f"{scientific(restored.residual)} for {scientific(TOL)} that was asked for. Errors to "
            f"expect are those of {DRAWS} pictures that were drawn, damaged and restored. Its "
            f"logdet completes the marginal likelihood of the damaged photograph: {value:.6f} for "
            f"each of {int(scene.seen.sum()):,} pixels, between {low:.6f} and {high:.6f} with "
            f"{100 * LEVEL:.0f} % probability."
        ),
        Table(
            "Errors in gray levels (root mean square), and in decibels below white",
            ["picture", "PSNR", "all pixels", *PLACES.values()],
            rows,
        ),
    ]
    if _plots.available():
        blocks.append(_by_distance(scene, restored, draws, far))
    return blocks


def _row(scene: _Scene, what: str, off: Array) -> list[str | Num]:
    """Of errors (..., m, n)."""
    everywhere = _rms(off)
    psnr = _decibels(everywhere)
    places = (_rms(off[..., scene.state == place]) for place in PLACES)
    return [what, Num(psnr, f"{psnr:.2f} dB"), _fixed(everywhere), *map(_fixed, places)]


def _by_distance(scene: _Scene, restored: _Inpainted, draws: Array, far: Array) -> Figure:
    """Predicted and true errors by the distance to the nearest pixel that is left."""
    distances, which, pixels = np.unique(far.ravel(), return_inverse=True, return_counts=True)
    off = (restored.picture - scene.photograph).ravel()
    curves = []
    for squares in (off**2, np.mean(draws**2, axis=0).ravel()):
        curves.append(np.sqrt(np.bincount(which, squares) / pixels))
    enough = pixels >= 30
    figure = _plots.new_figure(8.6, 3.2)
    axes = figure.add_subplot()
    for curve, label, mark, colour in (
        (curves[0], "true", "o-", _plots.COLOURS["linalgk"]),
        (curves[1], "predicted", "s--", _plots.COLOURS["SciPy"]),
    ):
        axes.plot(distances[enough], curve[enough], mark, ms=4, lw=1.2, color=colour, label=label)
    axes.set_ylim(0)
    axes.set_xlabel("distance to the nearest pixel that is left, in pixels")
    axes.set_ylabel("rms error, gray levels")
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    return Figure(
        "Errors of the restored picture by the distance to the nearest pixel that is left (0: "
        "the pixel itself). The prediction knows which pixels are left, and no gray level.",
        "Line plot: true and predicted errors grow with the distance.",
        _plots.svg(figure, "kron-distance"),
    )


def _pictures(scene: _Scene, clean: _Denoised, restored: _Inpainted, draws: Array) -> list[Figure]:
    if not _plots.available():
        return []
    damaged = np.where(scene.seen, scene.noisy, np.nan)
    panels = [
        ("photograph", scene.photograph),
        ("damaged", damaged),
        ("restored", restored.picture),
        ("denoised from all", clean.picture),
    ]
    return [
        Figure(
            "The photograph; what is left of it, with noise; what that is restored to; and the "
            "noisy one denoised with no pixel missing.",
            "Four pictures of a man with a camera: clear, full of holes and noise with a word "
            "across, restored, and denoised.",
            _plots.tiles(panels, height=2.2, same_scale=True),
        ),
        Figure(
            "What the restored picture misses, and what the model drew as an error to expect. The "
            "true one is larger at edges, of which a Gaussian field knows nothing.",
            "Two gray textures; in the true one the outline of the man is visible.",
            _plots.tiles(
                [("error", restored.picture - scene.photograph), ("a predicted one", -draws[0])],
                height=2.9,
                same_scale=True,
            ),
        ),
    ]


def _checks(checks: list[_Check], page: Page) -> list[Block]:
    rows: list[list[str | Num]] = []
    for check in checks:
        low, high = check.interval
        rows.append(
            [
                check.what,
                Num(check.estimate, f"{check.estimate:,.2f}"),
                f"{low:,.2f} to {high:,.2f}",
                Num(check.exact, f"{check.exact:,.2f}"),
                "yes" if low <= check.exact <= high else "no",
            ]
        )
    first = checks[0]
    half = 0.5 * (first.interval[1] - first.interval[0])
    page.headlines.append(
        (
            f"log-determinant of order {first.points:,} by random vectors",
            f"{first.estimate:,.1f} ± {half:.1f}; exactly {first.exact:,.1f}",
        )
    )
    told = "; ".join(
        f"{check.what}: "
        + ", ".join(f"{name} {scientific(off)}" for name, off in check.differences.items())
        for check in checks
    )
    return [
        Heading("Against exact answers"),
        Text(
            "Where whole rows and columns are missing, masked does not know that what is left is a "
            "Kronecker product again, whose factors give exact answers at full size. And for a "
            "small part of the damaged photograph the whole covariance matrix fits, to be "
            f"factored by SciPy's Cholesky. Relative differences: {told}. Solutions were asked for "
            f"to a residual of {scientific(TOL)}."
        ),
        Table(
            "Log-determinants of what is left, by random vectors",
            ["what", "estimate", f"interval of {100 * LEVEL:.0f} %", "exact", "inside"],
            rows,
        ),
    ]


def _explanations(scene: _Scene, clean: _Denoised) -> list[Block]:
    pictures = np.empty((16, scene.y.size))
    lines = [
        f">>> lk.explain(lk.kron_matmul, [k_rows, k_columns], {name})\n"
        f"{lk.explain(lk.kron_matmul, list(clean.kernel.factors), x, side=side)}"
        for name, x, side in (
            ("picture", scene.y.ravel(), "left"),
            ('pictures, side="right"', pictures, "right"),
        )
    ]
    return [
        Heading("Which way, and why"),
        Text("lk.explain answers without computing."),
        Code("\n\n".join(lines)),
    ]


def _fixed(value: float, digits: int = 2) -> Num:
    return Num(float(value), f"{value:.{digits}f}")

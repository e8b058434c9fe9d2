"""First chapter: whiten real covariance matrices with inverse square roots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import linalgk as lk
from linalgk.tour import _contest, _peers, _plots
from linalgk.tour._covariances import (
    EDGE,
    REL_DAMP,
    conditions,
    covariance,
    damped,
    identity_error,
    patches,
    read,
    size,
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
    missing,
    scientific,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from numpy.typing import NDArray

    from linalgk.tour._covariances import Data
    from linalgk.tour._page import Options

    Array = NDArray[Any]

__all__ = ["STEPS", "TITLE", "run"]

TITLE = "Square roots: whitening covariances"
STEPS = (
    "reading photographs and digits",
    "whitening",
    "drawing",
    "50-digit reference",
    "timing inverse roots, float64",
    "timing inverse roots, float32",
    "timing digits",
    "timing one large root",
    "bad members",
    "explanations",
)


def run(options: Options) -> Generator[None, None, Page]:
    """Do the chapter; yields before each of `STEPS`."""
    page = Page()
    yield
    data = read(quick=options.quick)
    page.left_out += _left_out(data)
    page.add(*_introduction(data))
    yield
    whitener = _whiten(data, page)
    yield
    if _plots.available():
        page.add(*_pictures(data, whitener))
    if data.digits is not None:
        page.add(*_singular_root(data.digits))
    yield
    _contest.reference(data, options, page)
    rows: list[_contest.Row] = []
    contests = (
        _contest.time_windows64,
        _contest.time_windows32,
        _contest.time_digits,
        _contest.time_large,
    )
    for contest in contests:
        yield
        row = contest(data, options)
        if row is not None:
            rows.append(row)
    _contest.time_table(rows, options, page)
    yield
    _bad_members(data, page)
    yield
    _explanations(data, page)
    return page


def _left_out(data: Data) -> list[str]:
    notes = []
    if data.digits is None:
        notes.append(missing("scikit-learn", what="Handwritten digits"))
    if not _plots.available():
        notes.append(missing("matplotlib", what="Plots"))
    if not _contest.has_mpmath():
        notes.append(
            missing("mpmath", what="The 50-digit reference (a 32-digit one takes its place)")
        )
    return notes


def _introduction(data: Data) -> list[Text | Table]:
    kappa = data.kappa
    n = data.windows.shape[-1]
    rows: list[list[str | Num]] = [
        [
            "4 × 4-pixel patches, one matrix per window",
            f"{len(data.windows):,} × {n} × {n}",
            scientific(float(np.median(kappa))),
            scientific(float(kappa.max())),
        ],
        [
            f"{EDGE} × {EDGE}-pixel patches of both photographs",
            size(data.samples.covariance),
            *[scientific(float(conditions(data.samples.covariance)))] * 2,
        ],
        [
            "larger patches of both photographs",
            size(data.large),
            *[scientific(float(conditions(data.large)))] * 2,
        ],
    ]
    if data.digits is not None:
        rows.append(
            ["handwritten digits, one matrix per digit", size(data.digits), "singular", "singular"]
        )
    return [
        Text(
            "Neighbouring pixels resemble each other, and a covariance matrix C says how much. "
            "Multiplying by C^(-1/2) takes the resemblance away (whitening) while it changes the "
            "picture as little as possible. The matrices below come from two photographs and "
            "from scanned digits; none is made up."
        ),
        Table("Input", ["covariances of", "size", "median κ", "largest κ"], rows),
    ]


def _whiten(data: Data, page: Page) -> Array:
    white = lk.invsqrtm(data.windows, assume_a="pos")
    off = identity_error(white, data.windows)
    whitener: Array = lk.invsqrtm(data.samples.covariance, assume_a="pos")
    after = covariance(data.samples.centred @ whitener).covariance
    sample_off = float(np.abs(after - np.eye(len(after))).max())
    n = white.shape[-1]
    rows: list[list[str | Num]] = [
        [
            "W C W, every window",
            f"{len(white):,} × {n} × {n}",
            scientific(float(np.median(off))),
            scientific(float(off.max())),
        ],
        [
            f"covariance of {len(data.samples.centred):,} whitened patches",
            size(after),
            *[scientific(sample_off)] * 2,
        ],
    ]
    if data.digits is not None:
        shifted = damped(data.digits)
        off_digits = identity_error(
            lk.invsqrtm(data.digits, assume_a="pos", rel_damp=REL_DAMP), shifted
        )
        rows.append(
            [
                f"W (C + λI) W, every digit, rel_damp={REL_DAMP:g}",
                size(data.digits),
                scientific(float(np.median(off_digits))),
                scientific(float(off_digits.max())),
            ]
        )
    page.headlines.append(
        (
            "whitened",
            f"{len(white):,} covariances {n} × {n}, |WCW − I| ≤ {scientific(float(off.max()))}",
        )
    )
    page.add(
        Heading("Whitened covariances are identities"),
        Text(
            "W = lk.invsqrtm(C) for all windows in one call. The table shows by how much any "
            "entry of the whitened covariance differs from the identity. The digits' matrices "
            "are singular and need rel_damp."
        ),
        Table(
            "Largest entry of |whitened − I|",
            ["what", "size", "median member", "worst member"],
            rows,
        ),
    )
    return whitener


def _singular_root(digits: Array) -> list[Heading | Text | Table]:
    """A positive semidefinite matrix has a real root; show both libraries' answers."""
    rows: list[list[str | Num]] = []
    # Rounding makes the zero eigenvalues of a computed covariance slightly negative for SciPy.
    for name, root in (
        ("linalgk", lk.sqrtm(digits)),
        ("SciPy", _peers.scipy_sqrtm_quietly(digits)),
    ):
        residual = np.linalg.norm(root @ root - digits, axis=(1, 2))
        residual = residual / np.linalg.norm(digits, axis=(1, 2))
        finite = np.isfinite(residual)
        rows.append(
            [
                name,
                str(root.dtype),
                count(int(finite.sum())),
                scientific(float(residual[finite].max())) if finite.any() else "none",
                scientific(float(np.nanmax(np.abs(root.imag)))),
            ]
        )
    ranks = np.linalg.matrix_rank(digits, hermitian=True)
    return [
        Heading("A singular covariance has a real root"),
        Text(
            f"The ten digit matrices have size {digits.shape[-1]} and ranks {ranks.min()} to "
            f"{ranks.max()}. lk.sqrtm keeps real input real; no damping is needed for a root that "
            "is not inverted."
        ),
        Table(
            "Square roots of the ten singular matrices",
            [
                "library",
                "dtype",
                "finite results",
                "worst ‖RR − C‖ / ‖C‖",
                "largest imaginary part",
            ],
            rows,
        ),
    ]


def _pictures(data: Data, whitener: Array) -> list[Figure]:
    """Patches and a photograph before and after, and the spectra."""
    edge, image = EDGE, data.images["camera"]
    choice = np.random.default_rng(0).choice(len(data.samples.centred), 96, replace=False)
    before = data.samples.centred[choice]
    panels = [("patches", _mosaic(before)), ("the same, whitened", _mosaic(before @ whitener))]
    views = patches(image, edge, edge, step=1)
    # Pixel by pixel: each takes its value from the whitened patch around it.
    middle = (edge // 2) * edge + edge // 2
    filtered = (views - data.samples.mean) @ whitener[:, middle]
    shape = (image.shape[0] - edge + 1, image.shape[1] - edge + 1)
    photo = [
        ("photograph", image),
        ("every pixel from its whitened patch", filtered.reshape(shape)),
    ]
    return [
        Figure(
            "96 patches of both photographs, before and after C^(-1/2). What is left is what the "
            "neighbours could not tell: edges stay, smooth areas turn to noise.",
            "Two mosaics of small gray patches: smooth ones before whitening, crisp ones after.",
            _plots.tiles(panels, height=3.4),
        ),
        Figure(
            "A photograph through the same matrix.",
            "The cameraman photograph, and the same with edges only.",
            _plots.tiles(photo, height=4.0),
        ),
        Figure(
            "Eigenvalues of the covariance of the patches: before, falling over several decades, "
            "and after, all one.",
            "Line plot of eigenvalues before and after whitening.",
            _spectra(data, whitener),
        ),
    ]


def _mosaic(rows: Array, columns: int = 12) -> Array:
    """Patches in a grid, each on its own gray scale, with gaps."""
    tiles = rows.reshape(-1, EDGE, EDGE)
    scale = np.abs(tiles).max(axis=(1, 2), keepdims=True)
    framed = np.pad(tiles / scale, ((0, 0), (1, 1), (1, 1)), constant_values=np.nan)
    grid = framed.reshape(-1, columns, EDGE + 2, EDGE + 2)
    return grid.swapaxes(1, 2).reshape(-1, columns * (EDGE + 2))


def _spectra(data: Data, whitener: Array) -> str:
    after = whitener @ data.samples.covariance @ whitener
    figure = _plots.new_figure(8.6, 3.2)
    axes = figure.add_subplot()
    for matrix, label, colour in (
        (data.samples.covariance, "before", _plots.COLOURS["NumPy"]),
        ((after + after.T) / 2, "after", _plots.COLOURS["linalgk"]),
    ):
        values = np.linalg.eigvalsh(matrix)[::-1]
        axes.semilogy(np.arange(1, len(values) + 1), values, "o-", ms=3, lw=1.2, color=colour)
        axes.annotate(
            label,
            (len(values), values[-1]),
            xytext=(6, 0),
            textcoords="offset points",
            color=colour,
            va="center",
        )
    axes.set_xlabel("index")
    axes.set_ylabel("eigenvalue")
    axes.set_xlim(0, len(data.samples.covariance) + 6)
    return _plots.svg(figure, "spectrum")


def _bad_members(data: Data, page: Page) -> None:
    """One NaN and one indefinite matrix in a batch: the others must not notice."""
    batch = data.windows[:6].copy()
    clean = lk.invsqrtm(batch, assume_a="pos")
    batch[1, 0, 0] = np.nan
    batch[4] -= 2 * np.linalg.eigvalsh(batch[4])[0] * np.eye(batch.shape[-1])
    result, info = lk.invsqrtm(batch, assume_a="pos", on_fail="nan", return_info=True)
    made = {1: "one entry NaN", 4: "shifted to be indefinite"}
    rows: list[list[str | Num]] = []
    for i, converged in enumerate(np.asarray(info.converged)):
        same = np.array_equal(result[i], clean[i])
        finite = bool(np.isfinite(result[i]).all())
        rows.append(
            [
                f"{i}: {made.get(i, 'as it was')}",
                str(bool(converged)),
                "filled with NaN" if not finite else "same bits" if same else "differs",
            ]
        )
    try:
        lk.invsqrtm(batch, assume_a="pos")
        message = "no error"
    except (ValueError, np.linalg.LinAlgError) as error:
        message = f"{type(error).__name__}: {error}"
    page.add(
        Heading("Bad members of a batch"),
        Text(
            "Six windows in one call, two of them spoiled, with on_fail='nan'. The good ones "
            "come out as they do without bad neighbours."
        ),
        Table("", ["member", "info.converged", "result, compared with the clean batch"], rows),
        Text("By default the same call raises, and says which members are to blame:"),
        Code(message),
    )


def _explanations(data: Data, page: Page) -> None:
    cov = data.windows
    cases: list[tuple[str, Callable[..., Any], Array, dict[str, Any]]] = [
        ("lk.sqrtm, one 2 × 2 matrix", lk.sqrtm, cov[0][:2, :2], {}),
        ("lk.sqrtm, one window", lk.sqrtm, cov[0], {}),
        ("lk.invsqrtm, all windows", lk.invsqrtm, cov, {"assume_a": "pos"}),
        ("lk.invsqrtm, all windows, float32", lk.invsqrtm, cov.astype(np.float32), {}),
        ("lk.sqrtm, larger patches", lk.sqrtm, data.large, {}),
        ("lk.sqrtm, larger patches, tol=1e-2", lk.sqrtm, data.large, {"tol": 1e-2}),
        ("lk.sqrtm, a product of two covariances", lk.sqrtm, cov[0] @ cov[1], {}),
    ]
    lines = [
        f">>> lk.explain({label})\n{lk.explain(function, a, **options)}"
        for label, function, a, options in cases
    ]
    page.add(
        Heading("Which method, and why"),
        Text("lk.explain answers without computing."),
        Code("\n\n".join(lines)),
    )

"""How determinants change with the factors, from factorizations that exist already.

``d log det (K + s I) = sum_i tr(M_i dF_i) + t ds``, where ``M_i = V_i diag(c_i) V_i^-1`` in the
eigenvectors of the factor itself, with ``c_i[a] = sum_o m_o / (w_a m_o + s)`` over the products
m_o of the other factors' eigenvalues, and ``t`` is the trace of the inverse. Nothing is divided by
gaps between eigenvalues, here and in the second derivatives, so that equal ones do no harm.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from linalgk import _xp
from linalgk._members import adjoint
from linalgk.kronecker import _modes, _shifted
from linalgk.kronecker._factored import Factored

Ways = Sequence[Any]  # a direction for each factor, or None
Batches = Sequence[tuple[int, ...]] | None


class Basis(NamedTuple):
    """Of one factor: ``F = right diag(values) left``, and products of the others' eigenvalues."""

    values: Any  # (..., p_i)
    right: Any
    left: Any
    others: Any  # (..., K / p_i)

    @property
    def batch(self) -> tuple[int, ...]:
        """Of the factor."""
        return tuple(self.right.shape[:-2])


def turned(f: Factored) -> Factored:
    """The adjoint of the factors, with all that was computed of them already."""
    if all(f.looked.hermitian):
        return f
    new = Factored([adjoint(f.xp, a) for a in f.arrays], f.kinds)
    arrays = tuple(adjoint(f.xp, a) for a in f.looked.arrays)
    known: dict[str, Any] = {"looked": f.looked._replace(arrays=arrays)}
    if "spectral" in f.__dict__:
        known["spectral"] = f.spectral
    if "inverses" in f.__dict__ and all(v.matrix is not None for v in f.inverses):
        # the small residual is on the other side now
        known["inverses"] = [
            v._replace(matrix=_contiguous(adjoint(f.xp, v.matrix)), left=False) for v in f.inverses
        ]
    new.__dict__.update(known)
    for key, found in f.eigen.items():
        if isinstance(key, int):
            new.eigen[key] = _shifted.Eigen(
                f.xp.conj(found.values), adjoint(f.xp, found.inverse),
                adjoint(f.xp, found.vectors), found.condition,
            )  # fmt: skip
        elif key == "schur":
            new.eigen[key] = [_turned_schur(f.xp, form) for form in found]
    return new


def _turned_schur(xp: Any, form: _shifted.Schur) -> _shifted.Schur:
    """``F^H = (Q J) (J T^H J) (Q J)^H`` with the reversal J is triangular the right way round."""
    if form.diagonal:
        return form
    t = xp.flip(adjoint(xp, form.t), axis=(-2, -1))
    return _shifted.Schur(t, xp.flip(form.q, axis=-1), False)


def _contiguous(x: Any) -> Any:
    return np.ascontiguousarray(x) if isinstance(x, np.ndarray) else x


# ---- in the eigenvectors of the factors ----------------------------------------------------------


def bases(parts: Sequence[tuple[Any, Any, Any]]) -> list[Basis]:
    """Of eigenvalues, eigenvectors and their inverses, factor by factor."""
    values = [w for w, _, _ in parts]
    found = []
    for i, part in enumerate(parts):
        rest = values[:i] + values[i + 1 :]
        w = values[i]
        others = _modes.outer(rest) if rest else _xp.namespace(w).ones_like(w[..., :1])
        found.append(Basis(*part, others))
    return found


def _denominators(basis: Basis, shift: Any) -> Any:
    """``w_a m_o + s``, (..., p, K / p)."""
    y = basis.values[..., :, None] * basis.others[..., None, :]
    return y + (shift[..., None, None] if getattr(shift, "ndim", 0) else shift)


def _first_weights(basis: Basis, shift: Any) -> Any:
    """``c_a = sum_o m_o / (w_a m_o + s)``."""
    xp = _xp.namespace(basis.values)
    return xp.sum(basis.others[..., None, :] / _denominators(basis, shift), axis=-1)


def _trace(basis: Basis, shift: Any, power: int = 1) -> Any:
    return _xp.namespace(basis.values).sum(_denominators(basis, shift) ** -power, axis=(-2, -1))


def along(parts: list[Basis], shift: Any, ways: Ways, dshift: Any) -> Any:
    """``sum_i tr(M_i E_i) + t ds``, a number for each member."""
    total = 0.0 if dshift is None else _trace(parts[0], shift) * dshift
    for basis, way in zip(parts, ways, strict=True):
        if way is not None:
            xp = _xp.namespace(basis.values)
            total = total + xp.sum(_first_weights(basis, shift) * _diagonal(basis, way), axis=-1)
    return total


def first(
    parts: list[Basis], shift: Any, weight: Any, batches: Batches = None
) -> tuple[list[Any], Any]:  # fmt: skip
    """``sum weight M_i`` over the members that share a factor, and ``weight t`` for each member.

    Those that share it are those of batches that the factor does not have, or the one given for it.
    """
    found = []
    for basis, batch in zip(parts, batches or [b.batch for b in parts], strict=True):
        c = fitted(weighted(weight, _first_weights(basis, shift), 1), batch, 1)
        found.append((basis.right * c[..., None, :]) @ basis.left)
    return found, weighted(weight, _trace(parts[0], shift), 0)


def second(
    parts: list[Basis], shift: Any, weight: Any, ways: Ways, dshift: Any, batches: Batches = None
) -> tuple[list[Any], Any]:  # fmt: skip
    """The derivative of `first` in a direction of factors and shift; the weight stays."""
    diagonals = _diagonals(parts, ways)
    found, dt = [], None
    for i, basis in enumerate(parts):
        xp = _xp.namespace(basis.values)
        change = _diagonal_change(parts, shift, i, diagonals, dshift)
        if ways[i] is not None:
            y = -_squares(basis, shift) * (basis.left @ ways[i] @ basis.right)
            y = y if change is None else y + change[..., None] * _eye(basis)
        elif change is not None:
            y = change[..., None] * _eye(basis)
        else:
            y = xp.zeros_like(basis.right)
        y = fitted(weighted(weight, y, 2), batches[i] if batches else basis.batch, 2)
        found.append(basis.right @ y @ basis.left)
        if diagonals[i] is not None:
            term = -xp.sum(_slopes(basis, shift) * diagonals[i], axis=-1)
            dt = term if dt is None else dt + term
    if dshift is not None:
        term = -_trace(parts[0], shift, 2) * dshift
        dt = term if dt is None else dt + term
    dt = 0 * _trace(parts[0], shift) if dt is None else dt
    return found, weighted(weight, dt, 0)


def curvature(
    parts: list[Basis], shift: Any, ways: Ways, dshift: Any, others: Ways, dother: Any
) -> Any:  # fmt: skip
    """The second derivative in two directions, a number for each member."""
    pairs = [_diagonals(parts, ways), _diagonals(parts, others)]
    total = 0.0
    for i, basis in enumerate(parts):
        xp = _xp.namespace(basis.values)
        one, two = pairs[0][i], pairs[1][i]
        if ways[i] is not None and others[i] is not None:
            y, z = (basis.left @ way @ basis.right for way in (ways[i], others[i]))
            y = _squares(basis, shift) * y * xp.matrix_transpose(z)
            total = total - xp.sum(y, axis=(-2, -1))
        if two is not None:
            change = _diagonal_change(parts, shift, i, pairs[0], dshift)
            total = total if change is None else total + xp.sum(change * two, axis=-1)
        if one is not None and dother is not None:
            total = total - xp.sum(_slopes(basis, shift) * one, axis=-1) * dother
    if dshift is not None and dother is not None:
        total = total - _trace(parts[0], shift, 2) * dshift * dother
    return total


def _diagonal(basis: Basis, way: Any) -> Any:
    """``V^-1 E V``, its diagonal."""
    xp = _xp.namespace(way)
    return xp.sum((basis.left @ way) * xp.matrix_transpose(basis.right), axis=-1)


def _diagonals(parts: list[Basis], ways: Ways) -> list[Any]:
    return [None if w is None else _diagonal(b, w) for b, w in zip(parts, ways, strict=True)]


def _squares(basis: Basis, shift: Any) -> Any:
    """``sum_o m_o^2 / ((w_a m_o + s) (w_b m_o + s))``, (..., p, p)."""
    y = basis.others[..., None, :] / _denominators(basis, shift)
    return y @ _xp.namespace(y).matrix_transpose(y)


def _slopes(basis: Basis, shift: Any) -> Any:
    """``sum_o m_o / (w_a m_o + s)^2``, (..., p)."""
    xp = _xp.namespace(basis.values)
    return xp.sum(basis.others[..., None, :] / _denominators(basis, shift) ** 2, axis=-1)


def _diagonal_change(
    parts: list[Basis], shift: Any, i: int, diagonals: list[Any], dshift: Any
) -> Any:  # fmt: skip
    """Of ``c`` of one factor, by the eigenvalues of the others and by the shift; or None."""
    total = None
    for j, e in enumerate(diagonals):
        if j != i and e is not None:
            term = _sum(_coupling(parts, shift, i, j) * e[..., None, :])
            total = term if total is None else total + term
    if dshift is not None:
        d = dshift[..., None] if getattr(dshift, "ndim", 0) else dshift
        term = -_slopes(parts[i], shift) * d
        total = term if total is None else total + term
    return total


def _sum(x: Any) -> Any:
    return _xp.namespace(x).sum(x, axis=-1)


def _coupling(parts: list[Basis], shift: Any, i: int, j: int) -> Any:
    """``sum_r s m_r / (w_a w_k m_r + s)^2`` for k of the factor j, (..., p_i, p_j)."""
    xp = _xp.namespace(parts[i].values)
    a, k = parts[i].values, parts[j].values
    rest = [b.values for n, b in enumerate(parts) if n not in (i, j)]
    m = _modes.outer(rest) if rest else xp.ones_like(a[..., :1])
    s = shift[..., None, None, None] if getattr(shift, "ndim", 0) else shift
    both = (a[..., :, None] * k[..., None, :])[..., None]
    return _sum(s * m[..., None, None, :] / (both * m[..., None, None, :] + s) ** 2)


def _eye(basis: Basis) -> Any:
    xp = _xp.namespace(basis.values)
    p = basis.values.shape[-1]
    return xp.eye(p, dtype=basis.values.dtype, **_modes.where(basis.values))


def weighted(weight: Any, x: Any, axes: int) -> Any:
    """A number for each member; nothing where it is zero, even of infinity."""
    xp = _xp.namespace(x)
    if getattr(weight, "ndim", 0):
        weight = weight[(..., *(None,) * axes)]
    return xp.where(weight == 0, xp.zeros_like(weight * x), weight * x)


def fitted(x: Any, batch: tuple[int, ...], axes: int) -> Any:
    """Summed over the members that share a factor of this batch."""
    xp = _xp.namespace(x)
    lead = x.ndim - axes
    if lead < len(batch):
        x = xp.reshape(x, (1,) * (len(batch) - lead) + tuple(x.shape))
        lead = len(batch)
    shape = (1,) * (lead - len(batch)) + batch
    over = tuple(i for i in range(lead) if shape[i] == 1 and x.shape[i] != 1)
    x = xp.sum(x, axis=over, keepdims=True) if over else x
    # a member of a batch that the sum does not tell apart
    x = xp.broadcast_to(x, (*shape, *x.shape[lead:]))
    return xp.reshape(x, (*batch, *x.shape[lead:]))


# ---- of factors that were factored ---------------------------------------------------------------

# Numbers in a stack of resolvents.
_CHUNK = 1 << 20


def _parts(f: Factored) -> list[Basis]:
    """Nothing where eigenvectors do not serve."""
    if all(f.looked.hermitian):
        return bases(list(zip(*f.spectral, f.adjoint_vectors, strict=True)))
    found = _shifted.eigen(f)
    if math.prod(e.condition for e in found) > _shifted.EIGENVECTORS:
        return []
    return bases([(e.values, e.vectors, e.inverse) for e in found])


def determinant_first(
    f: Factored, shift: Any, weight: Any, batches: Batches = None
) -> tuple[list[Any], Any]:
    """As `first`; the second result is None without a shift."""
    batches = batches or [tuple(a.shape[:-2]) for a in f.arrays]
    if f.empty:
        return [f.xp.zeros_like(a) for a in f.arrays], None if shift is None else 0 * weight
    with np.errstate(divide="ignore", invalid="ignore"):
        if shift is None:
            found = [
                weighted(each, inverse, 2)
                for each, inverse in zip(_shares(f, weight, batches), _inverses(f), strict=True)
            ]
            return found, None
        parts = _parts(f)
        if parts:
            found, t = first(parts, shift, weight, batches)
        else:
            ms, trace = _by_resolvents(f, shift)
            found = [fitted(weighted(weight, m, 2), b, 2) for m, b in zip(ms, batches, strict=True)]
            t = weighted(weight, trace, 0)
        return [_real(f, m, shift, weight) for m in found], _real(f, t, shift, weight)


def determinant_along(f: Factored, shift: Any, ways: Ways, dshift: Any) -> Any:
    """As `along`."""
    xp = f.xp
    total = 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        if f.empty:
            return total
        if shift is None:
            for inverse, way, p in zip(_inverses(f), ways, f.sizes, strict=True):
                if way is not None:
                    y = xp.sum(inverse * xp.matrix_transpose(way), axis=(-2, -1))
                    total = total + f.size // p * y
            return total
        parts = _parts(f)
        if parts:
            total = along(parts, shift, ways, dshift)
        else:
            ms, trace = _by_resolvents(f, shift)
            for m, way in zip(ms, ways, strict=True):
                if way is not None:
                    total = total + xp.sum(m * xp.matrix_transpose(way), axis=(-2, -1))
            total = total if dshift is None else total + trace * dshift
        given = [w for w in (*ways, dshift) if w is not None]
        return _real(f, total, shift, *given)


def determinant_second(
    f: Factored, shift: Any, weight: Any, ways: Ways, dshift: Any, batches: Batches = None
) -> tuple[list[Any], Any]:  # fmt: skip
    """As `second`; the second result is None without a shift."""
    batches = batches or [tuple(a.shape[:-2]) for a in f.arrays]
    if f.empty:
        return [f.xp.zeros_like(a) for a in f.arrays], None if shift is None else 0 * weight
    with np.errstate(divide="ignore", invalid="ignore"):
        if shift is None:
            shares, inverses = _shares(f, weight, batches), _inverses(f)
            return [
                f.xp.zeros_like(x) if way is None else weighted(each, -(x @ way @ x), 2)
                for each, x, way in zip(shares, inverses, ways, strict=True)
            ], None
        found, t = second(_served(f), shift, weight, ways, dshift, batches)
        given = [w for w in (*ways, dshift) if w is not None]
        return [_real(f, m, shift, weight, *given) for m in found], _real(
            f, t, shift, weight, *given
        )


def _served(f: Factored) -> list[Basis]:
    parts = _parts(f)
    if not parts:
        msg = (
            "slogdet: second derivatives with a shift go by eigenvectors, and those of the factors "
            f"have a condition of more than {_shifted.EIGENVECTORS:.0e}"
        )
        raise np.linalg.LinAlgError(msg)
    return parts


def _shares(f: Factored, weight: Any, batches: Sequence[tuple[int, ...]]) -> list[Any]:
    """What a factor's own determinant counts for: the power, summed over those that share it."""
    return [
        f.size // p * fitted(weight, batch, 0) for batch, p in zip(batches, f.sizes, strict=True)
    ]


def _inverses(f: Factored) -> list[Any]:
    found = []
    for inverse, a in zip(f.inverses, f.arrays, strict=True):
        x = inverse.matrix
        if x is None:
            eye = f.xp.eye(a.shape[-1], dtype=a.dtype, **_modes.where(a))
            x = inverse.solve(f.xp.broadcast_to(eye, tuple(a.shape)))
        found.append(x)
    return found


def _by_resolvents(f: Factored, shift: Any) -> tuple[list[Any], Any]:
    """``M_i = sum_o m_o (m_o F_i + s I)^-1``, which asks for no eigenvectors, and t."""
    xp, found, trace = f.xp, [], None
    values = [
        _shifted.eigenvalues(f, i) if w is None else w for i, w in enumerate(f.spectral.values)
    ]
    for i, a in enumerate(f.looked.arrays):
        rest = values[:i] + values[i + 1 :]
        m = _modes.outer(rest) if rest else xp.ones_like(values[i][..., :1])
        m = xp.astype(m, _xp.dtype_of(xp, _modes.widened(_xp.dtype_name(m))))
        p, total, t = a.shape[-1], None, None
        eye = xp.eye(p, dtype=m.dtype, **_modes.where(a))
        own = shift[..., None, None, None] if getattr(shift, "ndim", 0) else shift
        step = max(_CHUNK // (p * p), 1)
        for start in range(0, m.shape[-1], step):
            c = m[..., start : start + step, None, None]
            r = xp.linalg.inv(c * a[..., None, :, :] + own * eye)
            part = xp.sum(c * r, axis=-3)
            total = part if total is None else total + part
            if trace is None:
                part = xp.sum(r * eye, axis=(-3, -2, -1))
                t = part if t is None else t + part
        found.append(total)
        trace = t if trace is None else trace
    return found, trace


def _real(f: Factored, x: Any, *given: Any) -> Any:
    """Real where all that it depends on is."""
    if _modes.is_complex(x) and not (f.is_complex or any(map(_modes.is_complex, given))):
        return f.xp.real(x)
    return x

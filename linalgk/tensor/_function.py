"""The Chebyshev-Tucker function: a series with calculus, arithmetic and searches."""

from collections.abc import Callable, Sequence
from typing import Any, Self

from linalgk.tensor import _arithmetic, _calculus, _extrema, _plot, _poisson
from linalgk.tensor._extrema import Extremum
from linalgk.tensor._series import Series


class ChebTucker(Series):
    """A function on a box as a Chebyshev series whose coefficients are a Tucker tensor.

    Attributes
    ----------
    core : array, shape (r_1, ..., r_d)
        Real or complex.
    factors : tuple of array, shape (m_k, r_k)
        Columns of Chebyshev coefficients in the k-th variable, real and orthonormal.
    domain : tuple of pairs of float
        The interval of each variable.
    error : float
        Largest error known of, relative to ``scale``.
    scale : float
        Largest absolute value seen.
    converged : bool
        Whether the error is as small as was asked for.
    method : str
        How it was made.
    certificate : Certificate
        What the error is made of.
    """

    # --- Calculus -------------------------------------------------------------------------------

    def integrate(self, axis: int | tuple[int, ...] | None = None) -> Any:
        """Integral over all variables, or over some of them.

        Parameters
        ----------
        axis : int, tuple of int or None, optional
            The variables to integrate over, negative ones counted from the last; None is all.

        Returns
        -------
        float, complex or ChebTucker
            A number for all variables, else the function of the others.

        Notes
        -----
        Each factor is contracted with the integrals of the polynomials,
        ``int T_k = 2 / (1 - k^2)`` for even k: ``sum_k m_k r_k`` operations and a pass over the
        core. The polynomials are integrated exactly, so that the absolute error is at most
        ``error * scale`` times the volume, and usually rounding.

        Examples
        --------
        >>> import numpy as np
        >>> import linalgk as lk
        >>> f = lk.chebtucker(lambda x, y: np.exp(x - y), [(0, 1), (0, 1)])
        >>> bool(np.isclose(f.integrate(), (np.e - 1) * (1 - 1 / np.e), rtol=1e-13))
        True
        >>> f.integrate(axis=0).ndim
        1
        """
        return _calculus.integrate(self, axis)

    def diff(self, axis: int = 0, *, order: int = 1) -> Self:
        """Derivative by one variable.

        Parameters
        ----------
        axis : int, optional
            The variable.
        order : int, optional
            How often.

        Returns
        -------
        ChebTucker

        Notes
        -----
        The derivatives of the factors by ``b_{k-1} = b_{k+1} + 2k c_k``, then a truncation at the
        level of rounding, so that nothing of the accuracy is lost to it.

        Derivatives of an error can be larger than the error. ``error`` of the result allows what
        the inequality of V. A. Markov [1]_ allows a polynomial of degree n, the first that was
        left out, on an interval of length L: a factor of ``2 n^2 / L`` for the first derivative,
        ``prod_{j<p} (n^2 - j^2) / (2j + 1) * 2 / L`` for the p-th. Where the coefficients decay
        fast the true error is far smaller.

        References
        ----------
        .. [1] V. A. Markov, "Über Polynome, die in einem gegebenen Intervalle möglichst wenig von
           Null abweichen", Math. Ann. 77 (1916), 213-258.

        Examples
        --------
        >>> import numpy as np
        >>> import linalgk as lk
        >>> f = lk.chebtucker(lambda x, y: np.sin(x * y), [(-1, 1), (0, 2)], tol=1e-12)
        >>> bool(abs(f.diff(1, order=2)(0.5, 1.0) + 0.25 * np.sin(0.5)) < 1e-9)
        True
        """
        return _calculus.diff(self, axis, order)

    def laplacian(self) -> Self:
        """Sum of the second derivatives by all variables.

        Returns
        -------
        ChebTucker

        Notes
        -----
        ``sum_k G x_1 U_1 ... x_k U_k'' ... x_d U_d`` over bases of ``[U_k, U_k'']``, a core of at
        most ``2^d`` times the numbers, then a truncation at the level of rounding of the terms.
        For ``error`` see `diff`; of a harmonic function nothing is left, and ``error`` is 1.

        Examples
        --------
        >>> import numpy as np
        >>> import linalgk as lk
        >>> f = lk.chebtucker(lambda x, y: x**2 + 2 * y**2, [(-1, 1), (-1, 1)])
        >>> bool(abs(f.laplacian()(0.3, 0.7) - 6) < 1e-9)
        True
        """
        return _calculus.laplacian(self)

    def inner(self, other: "ChebTucker") -> Any:
        """Integral of ``conj(self) * other`` over the domain.

        Parameters
        ----------
        other : ChebTucker
            On the same domain, of any degrees and ranks.

        Returns
        -------
        float or complex

        Notes
        -----
        The cores contracted through the matrices ``U_k^T W V_k`` (r_k, s_k) of integrals of
        products of factors, by Clenshaw-Curtis quadrature with enough points to be exact. The
        error is rounding relative to the product of the two norms.

        Examples
        --------
        >>> import numpy as np
        >>> import linalgk as lk
        >>> f = lk.chebtucker(lambda x, y: np.sin(np.pi * x) + 0 * y, [(-1, 1), (0, 3)])
        >>> round(f.inner(f), 12)
        3.0
        """
        return _calculus.inner(self, other)

    def norm(self) -> float:
        """Root of the integral of ``|f|^2``.

        Returns
        -------
        float

        Notes
        -----
        The Frobenius norm of the core times the triangles of the weighted factors' QR
        factorisations: no sum of terms of either sign, so that the error is rounding relative to
        the norm itself, be it small.

        Examples
        --------
        >>> import numpy as np
        >>> import linalgk as lk
        >>> f = lk.chebtucker(lambda x, y: x * y, [(0, 1), (0, 3)])
        >>> round(f.norm() ** 2, 12)
        3.0
        """
        return _calculus.norm(self)

    # --- Arithmetic -----------------------------------------------------------------------------

    def recompress(self, tol: float) -> Self:
        """With the least ranks and degrees for this tolerance.

        Parameters
        ----------
        tol : float
            Largest change relative to ``scale``, from 0 to 1.

        Returns
        -------
        ChebTucker
            Its ``error`` is that of this function and the change, which is measured on a grid.

        Examples
        --------
        >>> import numpy as np
        >>> import linalgk as lk
        >>> f = lk.chebtucker(lambda x, y: 1 / (2 + x + y), [(0, 1), (0, 1)], tol=1e-12)
        >>> f.ranks > f.recompress(1e-4).ranks
        True
        """
        return _arithmetic.recompress(self, tol)

    def compose(self, func: Callable[[Any], Any], *, tol: float | None = None) -> "ChebTucker":
        """``func(f)``, constructed anew.

        Parameters
        ----------
        func : callable
            Of an array of values, to an array of the same shape, as ``np.exp`` or ``np.sqrt``.
        tol : float, optional
            Of the construction. By default the ``error`` of this function, but no less than
            5e-13, ten units of rounding in single precision.

        Returns
        -------
        ChebTucker
            Its ``error`` has what the error of this function makes of func, seen by moving the
            values on a grid up and down by it.

        Notes
        -----
        As expensive as `chebtucker` with this function as the integrand. A func that is not smooth
        where the function goes, as ``np.abs`` at a zero, ends in its warning.

        Examples
        --------
        >>> import numpy as np
        >>> import linalgk as lk
        >>> f = lk.chebtucker(lambda x, y: x + y, [(0, 1), (0, 1)])
        >>> bool(abs(f.compose(np.exp)(0.5, 0.25) - np.exp(0.75)) < 1e-9)
        True
        """
        return _arithmetic.compose(self, func, tol)

    def __neg__(self) -> Self:
        return self._with(-self.core, self.factors)

    def __add__(self, other: Any) -> "ChebTucker":
        return _arithmetic.add(self, other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> "ChebTucker":
        return _arithmetic.add(self, -other)

    def __rsub__(self, other: Any) -> "ChebTucker":
        return _arithmetic.add(-self, other)

    def __mul__(self, other: Any) -> "ChebTucker":
        return _arithmetic.multiply(self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> "ChebTucker":
        return _arithmetic.divide(self, other)

    def __rtruediv__(self, other: Any) -> "ChebTucker":
        return _arithmetic.over(other, self)

    def __pow__(self, power: int) -> "ChebTucker":
        return _arithmetic.power(self, power)

    @property
    def real(self) -> Self:
        """Real part."""
        return _arithmetic.part(self, "real")

    @property
    def imag(self) -> Self:
        """Imaginary part."""
        return _arithmetic.part(self, "imag")

    def conj(self) -> Self:
        """Complex conjugate."""
        return _arithmetic.conj(self)

    # --- More -----------------------------------------------------------------------------------

    def max(self) -> Extremum:
        """The largest value and where it is.

        Returns
        -------
        Extremum
            ``value`` and ``point``, a tuple of numbers.

        Raises
        ------
        TypeError
            The function is complex.

        Notes
        -----
        A search, not a proof. The function is evaluated on a Chebyshev grid of two points for
        each coefficient, fewer where that makes more than 4e6, in slabs; from the 24 highest
        points that no neighbour exceeds, Newton's method with exact gradients and Hessians goes
        up within the box, along faces and edges too. On the full grid of n points each a
        polynomial of degree m - 1 can be larger than the grid shows by
        ``1 / cos(pi (m - 1) / (2 (n - 1)))`` per variable [1]_, about 1.4: a highest peak is
        missed only if 24 others look higher. What is found is accurate to rounding in the value,
        and in the point to rounding times the condition of the Hessian, to its root where that
        is singular; against the original function, to ``error * scale``.

        References
        ----------
        .. [1] H. Ehlich, K. Zeller, "Schwankung von Polynomen zwischen Gitterpunkten", Math. Z. 86
           (1964), 41-44.

        Examples
        --------
        >>> import numpy as np
        >>> import linalgk as lk
        >>> f = lk.chebtucker(lambda x, y: np.exp(-(x - 0.3)**2 + y), [(-1, 1), (0, 2)])
        >>> value, (x, y) = f.max()
        >>> round(x, 6), y
        (0.3, 2.0)
        """
        return _extrema.extremum(self, 1)

    def min(self) -> Extremum:
        """The smallest value and where it is.

        Returns
        -------
        Extremum
            ``value`` and ``point``; see `max`.

        Examples
        --------
        >>> import numpy as np
        >>> import linalgk as lk
        >>> f = lk.chebtucker(lambda x, y: (x - 0.5)**2 + y, [(-1, 1), (0, 2)])
        >>> bool(abs(f.min().value) < 1e-12)
        True
        """
        return _extrema.extremum(self, -1)

    def solve_poisson(self, *, tol: float | None = None) -> "ChebTucker":
        """The u with ``laplacian u = f`` in the domain and ``u = 0`` on its boundary.

        Parameters
        ----------
        tol : float, optional
            Wanted accuracy relative to the largest ``|u|``; 1e-10, or what the error of f leaves
            possible.

        Returns
        -------
        ChebTucker
            Its ``error`` holds what the error of f makes of u, at most ``max|f| w^2 / 8`` for the
            least width w of the box, and what the solution adds.

        Warns
        -----
        ConvergenceWarning
            Where 1024 functions in one variable do not reach ``tol``; the result knows its error.

        Notes
        -----
        Galerkin's method with combinations of Legendre polynomials that vanish at the ends [1]_.
        The operators in one variable are diagonalised in a basis of orthonormal polynomials, so
        that with n functions in each variable the solve is a division by sums of eigenvalues,
        ``O(d n^(d+1))``; where all coefficients are more than 2^20, by a sum of about
        ``log(1/tol)^2 / 6`` exponentials that never forms them [2]_. Degrees grow until the
        Laplacian of u is f at points that were not used, or until u no longer changes there.
        Where f is not zero at corners of a square or edges of a cube, u has singularities
        ``r^2 log r``, whose error falls with ``n^-4`` or so. In one variable u is exact.

        References
        ----------
        .. [1] J. Shen, "Efficient spectral-Galerkin method I", SIAM J. Sci. Comput. 15 (1994).
        .. [2] W. Hackbusch, "Hierarchical matrices", appendix D.4.

        Examples
        --------
        The torsion of a square bar:

        >>> import numpy as np, linalgk as lk
        >>> load = lk.ChebTucker(-np.ones((1, 1)), [np.ones((1, 1))] * 2, [(-1, 1), (-1, 1)])
        >>> u = load.solve_poisson(tol=1e-8)
        >>> print(f"{u(0, 0):.7f}")
        0.2946854
        """
        return _poisson.solve(self, tol)

    def plot(
        self, *, at: Sequence[float] | None = None, axes: Sequence[int] | None = None,
        n: int = 200, cmap: Any = None, ax: Any = None,
    ) -> Any:  # fmt: skip
        """Slices through the domain, drawn by matplotlib.

        Parameters
        ----------
        at : d floats, optional
            The point that slices go through; the middle of the domain.
        axes : one to three ints, optional
            The variables that vary: a curve, an image, or three images of two of them each. Of a
            function of one, two, or more variables the first one, two, or three.
        n : int
            Points along each axis, 200.
        cmap : optional
            Colours, as matplotlib takes them.
        ax : matplotlib Axes, optional
            Where to draw, for a single slice; otherwise a new figure is made.

        Returns
        -------
        matplotlib.figure.Figure
            It belongs to no window and no global state; ``.savefig(path)`` writes it, and notebooks
            show it. Images of complex functions show the absolute value.

        Raises
        ------
        ImportError
            Without matplotlib, which the extra ``linalgk[tour]`` installs.

        Examples
        --------
        >>> import numpy as np, linalgk as lk
        >>> f = lk.ChebTucker(np.eye(2), [np.eye(3)[:, :2]] * 2, [(-1, 1), (0, 2)])
        >>> figure = f.plot(n=20)
        >>> len(figure.axes)   # the image and its colours
        2
        """
        return _plot.plot(self, at=at, axes=axes, n=n, cmap=cmap, ax=ax)

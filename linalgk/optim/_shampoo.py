"""Shampoo: a preconditioner for each dimension of a parameter."""

import math
from typing import Any, NamedTuple

import torch

import linalgk as lk
from linalgk.optim._step import MatrixOptimizer, Used, buffer, choice, move, within

GRAFTINGS = ("none", "sgd", "adagrad", "rmsprop")


class Shampoo(MatrixOptimizer):
    """Precondition every dimension of a gradient by a root of its own second moment.

    Parameters
    ----------
    params : iterable
        Parameters of any number of dimensions, or groups of them.
    lr : float or tensor
        Learning rate.
    momentum : float
        Heavy ball on the preconditioned gradient; 0 keeps no buffer.
    weight_decay : float
        Decoupled: each step multiplies the parameter by ``1 - lr * weight_decay``.
    beta2 : float, optional
        Factors are running means with this weight, divided by ``1 - beta2^t``; by default sums
        over all gradients, as in [1]_.
    damp, rel_damp : float
        Added to the diagonal of a factor before its root: ``damp``, then ``rel_damp`` times the
        largest eigenvalue. In single precision a factor of low rank, which every factor is at
        first, needs one of them above some eps.
    update_every : int
        Steps from one computation of the roots to the next; factors are updated in each step, and
        so are diagonal ones with their roots. Above 1 take a ``grafting``: an old root enlarges
        directions that came up since by as much as ``rel_damp^(-1/2)``.
    max_dim : int
        Dimensions above this keep the diagonal of their factor only.
    grafting : {"none", "sgd", "adagrad", "rmsprop"}
        Whose length (Frobenius norm) the preconditioned gradient of each parameter takes: its own,
        the gradient's, or that of ``G / S^(1/2)`` with S the sum (``"rmsprop"``: running mean
        with ``beta2``) of the squared gradients [2]_.
    maximize : bool
        Climb instead of descending.
    compute_dtype : {"float32", "float64"} or dtype
        Of the state and of the computation, whatever the parameter's dtype.

    Attributes
    ----------
    failed_roots : int
        Roots that could not be computed. The parameter goes on with the last good one, and as long
        as there is none its preconditioned gradient counts as zero.
    skipped_gradients : int
        Gradients whose squared norm is not finite. Their parameters, factors and momentum stay as
        they were.

    Raises
    ------
    ValueError
        If an option is out of its range.
    TypeError
        If a parameter is no array of real floating-point numbers.

    Notes
    -----
    For a gradient G with dimensions ``n_1, ..., n_k`` let ``G_(i)`` be its unfolding, a matrix with
    ``n_i`` rows. The factors are

    ``L_i <- L_i + G_(i) G_(i)^T``

    and G is multiplied along each dimension i by ``L_i^(-1/(2k))`` (Algorithm 2 of [1]_); for
    matrices that is ``L^(-1/4) G R^(-1/4)``. Parameters of one dimension, for which it would be
    the full-matrix AdaGrad, and dimensions above ``max_dim`` keep the diagonal of ``L_i``, which
    for the former is AdaGrad itself. Then

    ``M <- momentum M + U``,  ``W <- (1 - lr weight_decay) W - lr M``

    with U the preconditioned gradient after grafting.

    Factors of one order and exponent, of whichever parameters, are stacked and their roots computed
    by one `linalgk.InverseRoot`, which starts from the eigenvectors of the last time. With
    ``grafting="none"`` and no ``damp`` the scale of the gradients changes nothing, as far as their
    squares are numbers of ``compute_dtype``: in single precision from about 1e-18 to 1e18.

    A step costs ``4 (n_1 + ... + n_k)`` flops for each entry, a root about 10 products of order
    ``n_i``, or half of that where the factor changed by less than a few per cent. The state holds
    three matrices of order ``n_i`` for each dimension.

    References
    ----------
    .. [1] V. Gupta, T. Koren, Y. Singer, "Shampoo: preconditioned stochastic tensor optimization",
       arXiv:1802.09568, 2018, Algorithms 1 and 2.
    .. [2] R. Anil, V. Gupta, T. Koren, K. Regan, Y. Singer, "Scalable second order optimization for
       deep learning", arXiv:2002.09018, 2020.
    .. [3] H.-J. M. Shi et al., "A distributed data-parallel PyTorch implementation of the
       distributed Shampoo optimizer", arXiv:2309.06497, 2023.

    Examples
    --------
    >>> import torch, linalgk.optim
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    >>> x = torch.randn(64, 4)
    >>> opt = linalgk.optim.Shampoo(model.parameters(), lr=0.1)
    >>> losses = []
    >>> for _ in range(20):
    ...     opt.zero_grad()
    ...     loss = ((model(x) - x[:, :1]) ** 2).mean()
    ...     loss.backward()
    ...     opt.step()
    ...     losses.append(loss.item())
    >>> losses[-1] < losses[0] / 2, opt.failed_roots
    (True, 0)
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        *,
        beta2: float | None = None,
        damp: float = 0.0,
        rel_damp: float = 1e-6,
        update_every: int = 1,
        max_dim: int = 1024,
        grafting: str = "none",
        maximize: bool = False,
        compute_dtype: Any = "float32",
    ) -> None:
        options = {
            "lr": lr, "momentum": momentum, "weight_decay": weight_decay, "beta2": beta2,
            "damp": damp, "rel_damp": rel_damp, "update_every": update_every, "max_dim": max_dim,
            "grafting": grafting, "maximize": maximize, "compute_dtype": compute_dtype,
        }  # fmt: skip
        super().__init__(params, options)

    def _check_options(self, group: dict[str, Any]) -> None:
        within("momentum", group["momentum"], 0.0, 1.0)
        within("damp", group["damp"], 0.0, math.inf)
        within("rel_damp", group["rel_damp"], 0.0, math.inf)
        choice("grafting", group["grafting"], GRAFTINGS)
        for name, least in (("update_every", 1), ("max_dim", 0)):
            if not isinstance(group[name], int) or group[name] < least:
                msg = f"{name}: must be an int, at least {least}, got {group[name]!r}"
                raise ValueError(msg)
        if group["beta2"] is not None:
            within("beta2", group["beta2"], 0.0, 1.0)
        elif group["grafting"] == "rmsprop":
            msg = "grafting: 'rmsprop' is a running mean and needs beta2; 'adagrad' is the sum"
            raise ValueError(msg)

    @property
    def failed_roots(self) -> int:
        """How often a root could not be computed, over all parameters."""
        return self._count("failed_roots")

    def _usable(self, grad: Any) -> Any:
        # its square bounds every entry of every factor
        return torch.isfinite(grad.square().sum())

    def _update(self, work: list[tuple[dict[str, Any], list[Used]]]) -> None:
        due: dict[Any, list[_Mode]] = {}
        for group, used in work:
            for _, grad, state in used:
                grad = torch.atleast_1d(grad)
                if "step" not in state:
                    _prepare(state, grad, group["max_dim"])
                _accumulate(state, grad, group["beta2"])
                for key, mode in _due(state, group):
                    due.setdefault(key, []).append(mode)
        for (_, p, damp, rel_damp, *_), modes in due.items():
            _renew(modes, p, damp, rel_damp)
        for group, used in work:
            for param, grad, state in used:
                grad = torch.atleast_1d(grad)
                update = _grafted(_preconditioned(grad, state["roots"]), grad, state, group)
                if group["momentum"]:
                    ball = buffer(state, "momentum_buffer", update)
                    update = ball.mul_(group["momentum"]).add_(update)
                move(param, update, float(group["lr"]), group["weight_decay"])


class _Mode(NamedTuple):
    """One dimension of a parameter whose root is to be computed."""

    state: dict[str, Any]
    axis: int
    factor: Any  # as the root sees it: without the bias of a running mean

    @property
    def wait(self) -> list[int]:
        """Roots to go before old eigenvectors are looked at, and how many after the next miss."""
        found: list[int] = self.state["waits"][self.axis]
        return found


def _prepare(state: dict[str, Any], grad: Any, max_dim: int) -> None:
    full = [grad.ndim > 1 and n <= max_dim for n in grad.shape]
    shapes = [(n, n) if own else (n,) for n, own in zip(grad.shape, full, strict=True)]
    state |= {
        "step": 0,
        "failed_roots": 0,
        "factors": [grad.new_zeros(shape) for shape in shapes],
        "roots": [None] * grad.ndim,
        "eigenvectors": [None] * grad.ndim,
        "eigenvalues": [None] * grad.ndim,
        "waits": [[0, 1] for _ in shapes],
    }


def _accumulate(state: dict[str, Any], grad: Any, beta2: float | None) -> None:
    state["step"] += 1
    old, new = (1.0, 1.0) if beta2 is None else (beta2, 1 - beta2)
    for i, factor in enumerate(state["factors"]):
        unfolding = grad.movedim(i, 0).reshape(grad.shape[i], -1)
        if factor.ndim == 2:
            factor.addmm_(unfolding, unfolding.T, beta=old, alpha=new)
        else:
            factor.mul_(old).add_(unfolding.square().sum(1), alpha=new)


def _unbiased(mean: Any, state: dict[str, Any], beta2: float | None) -> Any:
    return mean if beta2 is None else mean / (1 - beta2 ** state["step"])


def _due(state: dict[str, Any], group: dict[str, Any]) -> list[tuple[Any, _Mode]]:
    """The dimensions whose roots are computed in this step, and what they can be stacked by."""
    every = (state["step"] - 1) % group["update_every"] == 0
    found = []
    for i, factor in enumerate(state["factors"]):
        if every or factor.ndim == 1 or state["roots"][i] is None:
            p = 2 * len(state["factors"])
            kind = (tuple(factor.shape), p, group["damp"], group["rel_damp"])
            key = (*kind, factor.dtype, factor.device)
            found.append((key, _Mode(state, i, _unbiased(factor, state, group["beta2"]))))
    return found


def _renew(modes: list[_Mode], p: int, damp: float, rel_damp: float) -> None:
    """New roots ``(A + rel_damp lambda_max(A) I)^(-1/p)`` with ``A = L + damp I``, stacked."""
    stack = torch.stack([mode.factor for mode in modes])
    if stack.ndim == 2:
        stack = stack + damp
        shifted = stack + rel_damp * stack.amax(dim=1, keepdim=True)
        # a slice of the gradient that never was other than zero stays so
        found = {"roots": torch.where(shifted == 0, 0.0, shifted ** (-1 / p))}
    else:
        inverse = lk.InverseRoot(p, damp=damp, rel_damp=rel_damp)
        tried = [m.state["roots"][m.axis] is not None and m.wait[0] == 0 for m in modes]
        if any(tried):
            _warm(inverse, modes, tried, stack)
        with lk.config_context(on_fail="nan"):
            found = {"roots": inverse.update(stack)}
        now = inverse.state_dict()
        for name in ("eigenvectors", "eigenvalues"):
            found[name] = torch.as_tensor(now[name], device=stack.device)
        for mode, old, fresh in zip(modes, tried, inverse.fresh.tolist(), strict=True):
            _wait(mode.wait, old, fresh)
    good = torch.isfinite(found["roots"]).flatten(1).all(dim=1)
    for k, (mode, fine) in enumerate(zip(modes, good.tolist(), strict=True)):
        if fine:
            for name, values in found.items():
                own = mode.state[name]
                if own[mode.axis] is None:
                    # a copy: a view would keep, and save, the whole stack
                    own[mode.axis] = values[k].clone()
                else:
                    own[mode.axis].copy_(values[k])
        elif mode.factor.any():
            mode.state["failed_roots"] += 1


def _wait(wait: list[int], tried: bool, fresh: bool) -> None:
    """Count down, or begin to count: a look at old eigenvectors in vain costs half a root.

    As `linalgk.InverseRoot` does, but for each member, whose company changes, and in the state.
    """
    if not tried:
        wait[0] = max(0, wait[0] - 1)
    elif fresh:
        wait[:] = wait[1], min(15, 2 * wait[1] + 1)
    else:
        wait[:] = 0, 1


def _warm(inverse: Any, modes: list[_Mode], tried: list[bool], stack: Any) -> None:
    """Give an `InverseRoot` the last good roots of the members that are to start from them."""
    blank = {"roots": stack[0], "eigenvectors": stack[0], "eigenvalues": stack[0, 0].double()}
    last = {
        name: torch.stack(
            [m.state[name][m.axis] if old else none for m, old in zip(modes, tried, strict=True)]
        )
        for name, none in blank.items()
    }
    inverse.load_state_dict(
        {
            **inverse.state_dict(), "matrix": stack, "value": last["roots"],
            "eigenvectors": last["eigenvectors"], "eigenvalues": last["eigenvalues"],
            "good": torch.tensor(tried),
        }
    )  # fmt: skip


def _preconditioned(grad: Any, roots: list[Any]) -> Any:
    if any(root is None for root in roots):
        return torch.zeros_like(grad)
    for root in roots:
        # the first dimension goes to the end; after all of them the order is what it was
        if root.ndim == 2:
            grad = torch.tensordot(grad, root, dims=([0], [0]))
        else:
            grad = grad.movedim(0, -1) * root
    return grad


def _grafted(update: Any, grad: Any, state: dict[str, Any], group: dict[str, Any]) -> Any:
    kind = group["grafting"]
    if kind == "none":
        return update
    if kind != "sgd":
        beta2 = group["beta2"] if kind == "rmsprop" else None
        squares = buffer(state, "squares", grad)
        old, new = (1.0, 1.0) if beta2 is None else (beta2, 1 - beta2)
        squares.mul_(old).addcmul_(grad, grad, value=new)
        size = _unbiased(squares, state, beta2).sqrt()
        grad = torch.where(size > 0, grad / size, 0.0)
    own = torch.linalg.vector_norm(update)
    return update * torch.where(own > 0, torch.linalg.vector_norm(grad) / own, 0.0)

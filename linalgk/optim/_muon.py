"""Muon: momentum, made orthogonal."""

import math
from typing import Any

import numpy as np
import torch

import linalgk as lk
from linalgk.optim._step import MatrixOptimizer, Used, buffer, choice, move, within

ADJUSTMENTS = (None, "original", "match_rms_adamw")


class Muon(MatrixOptimizer):
    """Step along the orthogonal factor of the momentum of every matrix parameter.

    Parameters
    ----------
    params : iterable
        Parameters of two or more dimensions, or groups of them. One of shape (m, k, l, ...), such
        as the kernel of a convolution, counts as the matrix of shape (m, k l ...); a stack of
        matrices has to be split.
    lr : float or tensor
        Learning rate.
    weight_decay : float
        Decoupled: each step multiplies the parameter by ``1 - lr * weight_decay``.
    momentum : float
        Of the running mean of the gradients.
    nesterov : bool
        Whether the mean is looked at one step ahead.
    adjust_lr_fn : {"original", "match_rms_adamw"}, optional
        How the step depends on the shape of the matrix, see Notes; default ``"original"``.
    coeffs : str or array_like
        Polynomials, as in `linalgk.orthogonalize`; ``"muon"`` are those of [1]_ and of
        `torch.optim.Muon`.
    steps : int, optional
        How many, as in `linalgk.orthogonalize`.
    maximize : bool
        Climb instead of descending.
    compute_dtype : {"float32", "float64"} or dtype
        What the momentum is kept in and the factor computed in, whatever the parameter's dtype.

    Attributes
    ----------
    skipped_gradients : int
        Gradients with NaN or infinity. Their parameters, momentum included, stay as they were.

    Raises
    ------
    ValueError
        If a parameter has less than two dimensions, or an option is out of its range.
    TypeError
        If a parameter is no array of real floating-point numbers.

    Notes
    -----
    With the gradient G of a parameter W of shape (m, n) one step is

    ``B <- mu B + (1 - mu) G``,  ``M = (1 - mu) G + mu B`` (``M = B`` without Nesterov),

    ``W <- (1 - lr weight_decay) W - lr s O(M)``,

    where ``O(M)`` approximates the orthogonal polar factor and ``s`` is ``max(1, m / n)^(1/2)``
    for ``"original"`` [1]_ and ``0.2 max(m, n)^(1/2)`` for ``"match_rms_adamw"`` [2]_, which gives
    entries the size that AdamW's steps have. Names, defaults and meaning are those of
    `torch.optim.Muon`; other than there M is divided by its norm and nothing else, so that the
    scale of the gradients is immaterial (1e-30 too), the factor is computed in single precision,
    and all parameters of one shape go through one batched call. A zero gradient gives no step but
    for the momentum and the decay.

    A step costs ``5 (3 p^2 q + p^3)`` flops with p the smaller of m and n, q the larger, or less
    (`linalgk.orthogonalize`), and one matrix of state.

    References
    ----------
    .. [1] K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.
    .. [2] J. Liu et al., "Muon is scalable for LLM training", arXiv:2502.16982, 2025.

    Examples
    --------
    >>> import torch, linalgk.optim
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    >>> x = torch.randn(64, 4)
    >>> matrices = [p for p in model.parameters() if p.ndim > 1]
    >>> others = [p for p in model.parameters() if p.ndim < 2]
    >>> optimizers = [linalgk.optim.Muon(matrices, lr=0.05), torch.optim.AdamW(others)]
    >>> losses = []
    >>> for _ in range(20):
    ...     model.zero_grad()
    ...     loss = ((model(x) - x[:, :1]) ** 2).mean()
    ...     loss.backward()
    ...     for opt in optimizers:
    ...         opt.step()
    ...     losses.append(loss.item())
    >>> losses[-1] < losses[0] / 2
    True
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        adjust_lr_fn: str | None = None,
        *,
        coeffs: Any = "polar_express",
        steps: int | None = None,
        maximize: bool = False,
        compute_dtype: Any = "float32",
    ) -> None:
        options = {
            "lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov,
            "adjust_lr_fn": adjust_lr_fn, "coeffs": coeffs, "steps": steps, "maximize": maximize,
            "compute_dtype": compute_dtype,
        }  # fmt: skip
        super().__init__(params, options)

    def _check_options(self, group: dict[str, Any]) -> None:
        within("momentum", group["momentum"], 0.0, 1.0)
        choice("adjust_lr_fn", group["adjust_lr_fn"], ADJUSTMENTS)
        if not isinstance(group["coeffs"], str):
            # numbers, which a state_dict can hold
            group["coeffs"] = np.asarray(group["coeffs"], dtype=float).tolist()
        # complains about coefficients now and not at the first step
        lk.orthogonalize(np.empty((0, 1, 1)), coeffs=group["coeffs"], steps=group["steps"])

    def _check_parameter(self, param: Any, label: str) -> None:
        super()._check_parameter(param, label)
        if param.ndim < 2:
            msg = (
                f"{label}: Muon takes parameters of two or more dimensions; give biases, gains "
                "and embeddings to another optimizer, such as torch.optim.AdamW"
            )
            raise ValueError(msg)

    def _usable(self, grad: Any) -> Any:
        return torch.isfinite(grad).all()

    def _update(self, work: list[tuple[dict[str, Any], list[Used]]]) -> None:
        for group, used in work:
            mu, updates = group["momentum"], []
            for _, grad, state in used:
                mean = buffer(state, "momentum_buffer", grad)
                mean.lerp_(grad, 1 - mu)
                update = grad.lerp(mean, mu) if group["nesterov"] else mean
                updates.append(update.flatten(1))
            options = {"coeffs": group["coeffs"], "steps": group["steps"], "on_fail": "nan"}
            factors = lk.foreach(lk.orthogonalize, updates, **options)
            lr = float(group["lr"])
            for (param, _, _), factor in zip(used, factors, strict=True):
                scale = adjustment(group["adjust_lr_fn"], *factor.shape)
                move(param, factor, lr, group["weight_decay"], scale)


def adjustment(name: str | None, m: int, n: int) -> float:
    """What the learning rate of an m x n matrix is multiplied by."""
    if name == "match_rms_adamw":
        return 0.2 * math.sqrt(max(m, n))
    return math.sqrt(max(1.0, m / max(n, 1)))

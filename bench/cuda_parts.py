"""What a problem and a contender of the comparison on a GPU are."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from linalgk_bench.problems import Target

Judge = Callable[[Any], float]


@dataclass(frozen=True, eq=False)
class Problem:
    """One job on one set of seeded matrices on the device.

    Attributes
    ----------
    name : str
        Unique; words joined by hyphens, to be selected with ``-k``.
    function : str
        The public function of linalgk that does the job on ``(a, *args)`` with `options`.
    solve : callable or None
        Where the job is no such call: from the device and the matrices to a call without arguments.
    looks : bool
        Whether the function looks at the answer, unless ``on_fail="nan"``.
    make : callable
        From the device to the matrices on it.
    judge : callable
        From the device and the matrices to a function that measures the error of an answer.
    power : float or None
        The answer is this power of the positive definite matrices; None for the other functions.
    measure : {"error", "residual"}
        What `judge` measures; an error is relative to the true answer, in the Frobenius norm.
    flops, nbytes : float
        Model of the least arithmetic and memory traffic, the same for all contenders.
    error_bound : float or None
        The error that the targets are conditional on.
    tier : {"target", "gallery"}
        ``--quick`` runs the targets only.
    """

    name: str
    function: str
    shape: tuple[int, ...]
    dtype: str
    make: Callable[[Any], Any]
    judge: Callable[[Any, Any], Judge]
    flops: float
    nbytes: float
    args: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    solve: Callable[[Any, Any], Callable[[], Any]] | None = None
    looks: bool = True
    power: float | None = None
    measure: Literal["error", "residual"] = "error"
    targets: tuple[Target, ...] = ()
    error_bound: float | None = None
    tier: Literal["target", "gallery"] = "gallery"


@dataclass(frozen=True)
class Contender:
    """One way to solve the problems.

    Attributes
    ----------
    name : str
        As printed and as named by targets.
    accepts : callable
        Whether the contender can be asked to solve a problem.
    prepare : callable
        From the device, the problem and its matrices to a call without arguments that solves it
        into freshly allocated output.
    missing : callable
        Why the contender cannot take part on this machine; empty if it can.
    yardstick : bool
        True when the output is not judged.
    on_host : bool
        True for a yardstick of the CPU, which the wall clock times, once.
    """

    name: str
    accepts: Callable[[Problem], bool]
    prepare: Callable[[Any, Problem, Any], Callable[[], Any]]
    missing: Callable[[], str] = lambda: ""
    yardstick: bool = False
    on_host: bool = False


def torch_missing() -> str:
    """Why PyTorch cannot take part; empty if it can."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return "torch is not installed"
    import torch

    return "" if torch.cuda.is_available() else f"torch {torch.__version__} finds no CUDA device"

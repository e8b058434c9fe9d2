"""What every optimizer here does around its update: closures, gradients, the step, its state."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

DTYPES = {"float32": torch.float32, "float64": torch.float64}


class Used(NamedTuple):
    """A parameter that takes part in a step."""

    param: Any
    grad: Any  # in the dtype of the computation, negated where the objective is maximized
    state: dict[str, Any]


class MatrixOptimizer(torch.optim.Optimizer):  # type: ignore[misc]
    """A `torch.optim.Optimizer` that computes in ``compute_dtype`` and keeps its state in it.

    All that has to survive pickling, copies and ``state_dict`` stands in ``state``, because torch
    keeps nothing else.
    """

    def _check_options(self, group: dict[str, Any]) -> None:
        """Raise where an option of a group is out of its range; may bring it into plain form."""
        raise NotImplementedError

    def _usable(self, grad: Any) -> Any:
        """Whether a gradient can be computed with, as a tensor of one bool."""
        raise NotImplementedError

    def _update(self, work: list[tuple[dict[str, Any], list[Used]]]) -> None:
        """Change the state and the parameters of all groups."""
        raise NotImplementedError

    def _check_parameter(self, param: Any, label: str) -> None:
        if not param.is_floating_point():
            msg = f"{label}: {type(self).__name__} takes real floating-point parameters, got "
            raise TypeError(msg + str(param.dtype))

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with options of their own, as `torch.optim.Optimizer` does.

        Raises
        ------
        ValueError, TypeError
            As the constructor; the optimizer is then as it was.
        """
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            within("lr", float(group["lr"]), 0.0, math.inf)
            within("weight_decay", group["weight_decay"], 0.0, math.inf)
            group["compute_dtype"] = str(group["compute_dtype"]).rpartition(".")[2]
            choice("compute_dtype", group["compute_dtype"], tuple(DTYPES))
            self._check_options(group)
            names = group.get("param_names", range(len(group["params"])))
            for name, param in zip(names, group["params"], strict=True):
                self._check_parameter(param, f"parameter {name} of shape {tuple(param.shape)}")
        except Exception:
            self.param_groups.pop()
            raise

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters once.

        Parameters
        ----------
        closure : callable, optional
            Computes the gradients anew and returns the loss.

        Returns
        -------
        loss : object
            What ``closure`` returned, None without one.

        Raises
        ------
        TypeError
            If a gradient is sparse; nothing has changed then.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            # all gradients are looked at before anything changes
            found = [(group, self._gradients(group)) for group in self.param_groups]
            self._update([(group, self._used(pairs)) for group, pairs in found])
        return loss

    def _gradients(self, group: dict[str, Any]) -> list[tuple[Any, Any]]:
        pairs = []
        for param in group["params"]:
            if param.grad is None or not param.numel():
                continue
            if param.grad.layout is not torch.strided:
                msg = (
                    f"{type(self).__name__}: a parameter of shape {tuple(param.shape)} has a "
                    "sparse gradient; take torch.optim.SparseAdam, or dense gradients"
                )
                raise TypeError(msg)
            grad = param.grad.to(DTYPES[group["compute_dtype"]])
            pairs.append((param, -grad if group["maximize"] else grad))
        return pairs

    def _used(self, pairs: list[tuple[Any, Any]]) -> list[Used]:
        # asked of all before the first answer is read: a device is waited for once
        flags = [self._usable(grad) for _, grad in pairs]
        used = []
        for (param, grad), flag in zip(pairs, flags, strict=True):
            state = self.state[param]
            if flag:
                used.append(Used(param, grad, state))
            else:
                state["skipped_gradients"] = state.get("skipped_gradients", 0) + 1
        return used

    def _count(self, name: str) -> int:
        return sum(state.get(name, 0) for state in self.state.values())

    @property
    def skipped_gradients(self) -> int:
        """How often a gradient with NaN or infinity was left out, over all parameters."""
        return self._count("skipped_gradients")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where ``state_dict()`` was taken; nothing is shared with it, nothing rounded.

        Parameters
        ----------
        state_dict : dict
            Of an optimizer of this class over parameters of the same shapes.
        """
        super().load_state_dict(state_dict)
        saved = [k for group in state_dict["param_groups"] for k in group["params"]]
        own = [param for group in self.param_groups for param in group["params"]]
        for key, param in zip(saved, own, strict=True):
            if key in state_dict["state"]:
                # torch casts state to the dtype of the parameter, which may be bfloat16
                self.state[param] = _copied(state_dict["state"][key], param.device)


def _copied(value: Any, device: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device=device, copy=True)
    if isinstance(value, dict):
        return {k: _copied(v, device) for k, v in value.items()}
    return [_copied(v, device) for v in value] if isinstance(value, list) else value


def move(param: Any, update: Any, lr: float, weight_decay: float, scale: float = 1.0) -> None:
    """``param <- (1 - lr weight_decay) param - lr scale update``, rounded to its dtype once."""
    target = param.to(update.dtype)
    if weight_decay:
        target.mul_(1 - lr * weight_decay)
    target.add_(update.reshape(param.shape), alpha=-lr * scale)
    if target is not param:
        param.copy_(target)


def buffer(state: dict[str, Any], name: str, like: Any) -> Any:
    """A tensor of the state, zero at first."""
    if name not in state:
        state[name] = torch.zeros_like(like)
    return state[name]


def within(name: str, value: Any, low: float, high: float) -> None:
    """Raise unless ``low <= value < high``."""
    if not low <= value < high:
        above = f"at least {low:g}" + ("" if high == math.inf else f" and below {high:g}")
        msg = f"{name}: must be {above}, got {value!r}"
        raise ValueError(msg)


def choice(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """Raise unless the value is one of those allowed."""
    if value not in allowed:
        msg = f"{name}: must be one of {allowed}, got {value!r}"
        raise ValueError(msg)

"""Train one small network with Muon and Shampoo, torch's, the textbook's and linalgk's.

The same seeds, batches and learning rates for all; every program gets one thread. With ``--save``
the loss against steps and seconds is written to a JSON file, from which docs/plots/optim.py draws.
"""

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch.nn import Linear, ReLU, Sequential
from torch.nn.functional import cross_entropy

import linalgk as lk
from linalgk.optim import Muon, Shampoo

WIDTH, BATCH = 256, 256
MUON = {"lr": 0.02, "weight_decay": 0.01}
SHAMPOO = {"lr": 0.05, "momentum": 0.9, "rel_damp": 1e-6}


class PlainShampoo(torch.optim.Optimizer):
    """Algorithm 1 of arXiv:1802.09568 as it stands: every root from new eigenvectors."""

    def __init__(self, params, lr, momentum, rel_damp):
        super().__init__(params, {"lr": lr, "momentum": momentum, "rel_damp": rel_damp})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                state, update = self.state[p], p.grad
                if not state:
                    state["factors"] = [torch.zeros(n, n) for n in p.shape if p.ndim == 2]
                    state["squares"], state["ball"] = torch.zeros_like(p), torch.zeros_like(p)
                if p.ndim == 1:  # AdaGrad
                    state["squares"] += p.grad**2
                    damped = state["squares"] + group["rel_damp"] * state["squares"].max()
                    update = p.grad * damped**-0.5
                for i, factor in enumerate(state["factors"]):
                    g = p.grad if i == 0 else p.grad.T
                    factor += g @ g.T
                    w, v = torch.linalg.eigh(factor)
                    root = (v * (w.clamp(min=0) + group["rel_damp"] * w[-1]) ** -0.25) @ v.T
                    update = root @ update if i == 0 else update @ root
                state["ball"].mul_(group["momentum"]).add_(update)
                p.sub_(group["lr"] * state["ball"])


def with_adamw(muon, **options):
    """Muon for matrices, AdamW for the rest: a list of optimizers."""

    def make(model):
        matrices = [p for p in model.parameters() if p.ndim == 2]
        vectors = [p for p in model.parameters() if p.ndim < 2]
        return [muon(matrices, **MUON, **options), torch.optim.AdamW(vectors, lr=3e-3)]

    return make


OPTIMIZERS = {
    "torch.optim.Muon": with_adamw(torch.optim.Muon),
    "linalgk Muon, coeffs='muon'": with_adamw(Muon, coeffs="muon"),
    "linalgk Muon": with_adamw(Muon),
    "plain Shampoo": lambda model: [PlainShampoo(model.parameters(), **SHAMPOO)],
    "linalgk Shampoo": lambda model: [Shampoo(model.parameters(), **SHAMPOO)],
    "linalgk Shampoo, update_every=10": lambda model: [
        Shampoo(model.parameters(), **SHAMPOO, update_every=10, grafting="adagrad")
    ],
}


def train(make, steps, every):
    """Losses on all the data after every so many steps, and wall and CPU seconds of each step."""
    torch.manual_seed(0)
    x, y = (torch.as_tensor(a) for a in load_digits(return_X_y=True))
    x = x.float() / 16
    model = Sequential(
        Linear(64, WIDTH), ReLU(), Linear(WIDTH, WIDTH), ReLU(), Linear(WIDTH, 10)
    )  # fmt: skip
    optimizers = make(model)
    losses, seconds = [cross_entropy(model(x), y).item()], []
    for t in range(steps):
        batch = torch.randint(len(x), (BATCH,))
        begin = time.perf_counter(), time.process_time()
        loss = cross_entropy(model(x[batch]), y[batch])
        model.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        end = time.perf_counter(), time.process_time()
        seconds.append((end[0] - begin[0], end[1] - begin[1]))
        if (t + 1) % every == 0:
            with torch.no_grad():
                losses.append(cross_entropy(model(x), y).item())
    failed = sum(getattr(optimizer, "failed_roots", 0) for optimizer in optimizers)
    return losses, seconds, failed


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--every", type=int, default=5, help="steps between looks at the loss")
    parser.add_argument("--repeats", type=int, default=1, help="seconds are medians of so many")
    parser.add_argument("--save", type=Path, help="where to write the JSON file")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    runs = {name: [] for name in OPTIMIZERS}
    with lk.config_context(num_threads=1):
        for make in OPTIMIZERS.values():
            train(make, 2, 1)  # compiles
        for _ in range(given.repeats):
            for name, make in OPTIMIZERS.items():
                runs[name].append(train(make, given.steps, given.every))
    result = {
        "steps": list(range(0, given.steps + 1, given.every)), "width": WIDTH, "batch": BATCH,
        "muon": MUON, "shampoo": SHAMPOO, "repeats": given.repeats, "threads": 1,
        "python": platform.python_version(), "torch": torch.__version__, "runs": [],
    }  # fmt: skip
    for name, found in runs.items():
        losses, _, failed = found[0]
        wall, cpu = (
            [statistics.median(run[1][t][clock] for run in found) for t in range(given.steps)]
            for clock in (0, 1)
        )
        row = {"name": name, "losses": losses, "failed_roots": failed}
        row["seconds"] = [round(sum(wall[:t]), 5) for t in result["steps"]]
        row["cpu_seconds"] = [round(sum(cpu[:t]), 5) for t in result["steps"]]
        result["runs"].append(row)
        each = [1e3 * statistics.median(clock) for clock in (wall, cpu)]
        print(f"{name:34s} loss {losses[-1]:.1e}, a step {each[0]:.2f} ms, CPU {each[1]:.2f} ms")
    if given.save:
        given.save.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


if __name__ == "__main__":
    main()

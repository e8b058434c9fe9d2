"""Shampoo: the published update for any number of dimensions, and roots that may fail."""

import copy
import io
import itertools
import json
import pickle
import runpy
from pathlib import Path

import numpy as np
import pytest
from trained import distance, follow, parameters, problem

import linalgk as lk

torch = pytest.importorskip("torch")
from linalgk.optim import Shampoo  # noqa: E402

EPS = {"float32": 2.0**-23, "float64": 2.0**-52}
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(autouse=True)
def _one_thread():
    """Matrices this small gain nothing from more, which wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def unfolded(g, i):
    return np.moveaxis(g, i, 0).reshape(g.shape[i], -1)


def root(factor, p, damp, rel_damp):
    """``(A + rel_damp lambda_max)^(-1/p)``, ``A = L + damp``; of a vector, entry by entry."""
    if factor.ndim == 1:
        return (factor + damp + rel_damp * (factor + damp).max()) ** (-1 / p)
    w, v = np.linalg.eigh(factor + damp * np.eye(len(factor)))
    return (v * (w + rel_damp * w[-1]) ** (-1 / p)) @ v.T


def restated(
    w, gradients, *, lr=0.1, momentum=0.9, weight_decay=0.0, beta2=None, damp=0.0, rel_damp=1e-3,
    update_every=1, max_dim=1024, grafting="none", maximize=False,
):  # fmt: skip
    """The update of the docstring, in double precision with new eigenvectors every time."""
    w = np.array(w, float)
    order = max(1, w.ndim)
    shape = w.shape or (1,)
    full = [order > 1 and n <= max_dim for n in shape]
    factors = [np.zeros((n, n) if own else n) for n, own in zip(shape, full, strict=True)]
    roots = [None] * order
    ball, squares = np.zeros(shape), np.zeros(shape)
    for t, g in enumerate(gradients):
        g = np.array(g, float).reshape(shape) * (-1 if maximize else 1)
        old, new = (1, 1) if beta2 is None else (beta2, 1 - beta2)
        bias = 1 if beta2 is None else 1 - beta2 ** (t + 1)
        for i in range(order):
            x = unfolded(g, i)
            factors[i] = old * factors[i] + new * (x @ x.T if full[i] else (x**2).sum(1))
            if t % update_every == 0 or not full[i]:
                roots[i] = root(factors[i] / bias, 2 * order, damp, rel_damp)
        update = g
        for i in range(order):
            x = (
                roots[i] @ unfolded(update, i)
                if full[i]
                else roots[i][:, None] * unfolded(update, i)
            )
            update = np.moveaxis(x.reshape(np.moveaxis(update, i, 0).shape), 0, i)
        size = g
        if grafting in ("adagrad", "rmsprop"):
            ema = grafting == "rmsprop"
            squares = (old if ema else 1) * squares + (new if ema else 1) * g**2
            size = g / np.sqrt(squares / (bias if ema else 1))
        if grafting != "none":
            update = update * (np.linalg.norm(size) / np.linalg.norm(update))
        ball = momentum * ball + update
        w = (1 - lr * weight_decay) * w - lr * ball.reshape(w.shape)
    return w


SHAPES = [(6, 9), (9, 6), (6, 6), (4, 5, 6), (3, 2, 4, 5), (7,), (), (1, 8), (6, 9)]
OPTIONS = [
    {}, {"momentum": 0.0}, {"beta2": 0.9}, {"weight_decay": 0.3, "lr": 0.5}, {"maximize": True},
    {"damp": 0.1, "rel_damp": 0.0}, {"damp": 0.1, "rel_damp": 0.1}, {"update_every": 3},
    {"max_dim": 5}, {"max_dim": 0}, {"max_dim": 5, "update_every": 4, "beta2": 0.8},
    {"grafting": "sgd"}, {"grafting": "adagrad"}, {"grafting": "rmsprop", "beta2": 0.9},
    {"grafting": "adagrad", "beta2": 0.9, "update_every": 2},
]  # fmt: skip


def largest_condition(options):
    """Of any factor that occurs: gradients here have a norm below 12."""
    relative, absolute = options.get("rel_damp", 1e-3), options.get("damp", 0.0)
    return min(1 / relative if relative else np.inf, 2000 / absolute if absolute else np.inf)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_published_update(options):
    steps = 6
    start, gradients = problem(SHAPES, steps, "float64")
    params = parameters(start)
    opt = Shampoo(params, compute_dtype=torch.float64, **{"rel_damp": 1e-3} | options)
    follow(opt, params, gradients)
    wanted = [
        restated(w, [step[k] for step in gradients], **options) for k, w in enumerate(start)
    ]  # fmt: skip
    # the bound of inv_root, of each of up to four roots
    bound = 4 * 10 * EPS["float64"] * largest_condition(options)
    assert distance(params, wanted, start) <= bound
    assert opt.failed_roots == opt.skipped_gradients == 0


def test_single_precision_and_a_long_way():
    """Warm-started roots are as good as new ones after many small changes."""
    steps = 40
    start, gradients = problem([(12, 20), (20, 12), (5, 6, 7)], steps)
    params = parameters(start)
    opt = Shampoo(params, rel_damp=1e-3)
    follow(opt, params, gradients)
    wanted = [restated(w, [step[k] for step in gradients]) for k, w in enumerate(start)]
    # three roots, and a factor that is a sum of so many rounded terms
    bound = (3 * 10 + steps) * EPS["float32"] * 1e3
    assert distance(params, wanted, start) <= bound


def test_together_as_one_by_one():
    start, gradients = problem([(6, 9), (6, 9), (9, 6), (6, 9)], 5)
    together = parameters(start)
    follow(Shampoo(together, rel_damp=1e-3), together, gradients)
    alone = parameters(start)
    for k, p in enumerate(alone):
        follow(Shampoo([p], rel_damp=1e-3), [p], [[step[k]] for step in gradients])
    wanted = [p.detach().double().numpy() for p in alone]
    # both are that far from the exact way
    assert distance(together, wanted, start) <= 2 * (2 * 10 + 5) * EPS["float32"] * 1e3


def test_roots_of_one_order_and_exponent_are_computed_together(monkeypatch):
    calls = []

    class Counted(lk.InverseRoot):
        def update(self, a):
            calls.append((self.p, tuple(a.shape)))
            return super().update(a)

    monkeypatch.setattr(lk, "InverseRoot", Counted)
    start, gradients = problem([(6, 9), (9, 6), (6, 6), (4, 6, 9), (5,)], 2)
    params = parameters(start)
    groups = [{"params": params[:2]}, {"params": params[2:], "lr": 1.0}]
    follow(Shampoo(groups), params, gradients)
    wanted = [(4, (4, 6, 6)), (4, (2, 9, 9)), (6, (1, 4, 4)), (6, (1, 6, 6)), (6, (1, 9, 9))]
    assert sorted(calls[:5]) == sorted(wanted)
    assert calls[5:] == calls[:5]


def test_roots_start_from_the_last_ones(monkeypatch):
    """New eigenvectors where they are needed, and not too many looks in vain."""
    fresh, tried = [], []

    class Watched(lk.InverseRoot):
        def load_state_dict(self, state):
            tried[-1] = True
            super().load_state_dict(state)

        def update(self, a):
            z = super().update(a)
            fresh.append(bool(self.fresh.any()))
            return z

        def __init__(self, *args, **options):
            tried.append(False)
            super().__init__(*args, **options)

    monkeypatch.setattr(lk, "InverseRoot", Watched)
    rng = np.random.default_rng(0)
    params = parameters([np.zeros((20, 20), "float32")])
    # factors change completely three times, and then hardly at all
    scales = [1, 10, 100, 1000, *[1] * 6]
    gradients = [[scale * rng.standard_normal((20, 20)).astype("float32")] for scale in scales]
    follow(Shampoo(params, rel_damp=1e-3), params, gradients)
    # after the first miss one root is computed without a look, after the second three
    assert tried == [False, True, False, True, False, False, False, True, True, True]
    assert fresh == [True] * 7 + [False] * 3


def test_scale_of_the_gradient_changes_nothing():
    """Factors of different scales are different numbers, but the same up to a power of two."""
    start, gradients = problem([(6, 9), (7,)], 4)
    for scale in (2.0**-56, 2.0**56):
        one, other = parameters(start), parameters(start)
        follow(Shampoo(one), one, gradients)
        follow(Shampoo(other), other, [[g * np.float32(scale) for g in step] for step in gradients])
        wanted = [p.detach().double().numpy() for p in one]
        assert distance(other, wanted, start) <= 1e3 * EPS["float32"]


@pytest.mark.parametrize("n", [5, 40, 120])
def test_factors_of_rank_one_have_roots_in_single_precision(n):
    rng = np.random.default_rng(0)
    g = np.outer(rng.standard_normal(n), rng.standard_normal(n)).astype("float32")
    params = parameters([np.zeros((n, n), "float32")])
    opt = Shampoo(params, lr=1.0)
    follow(opt, params, [[g]])
    assert opt.failed_roots == 0
    # L^(-1/4) s u v^T R^(-1/4) with L = R = s^2 u u^T, damped
    u, _, vh = np.linalg.svd(g)
    wanted = -np.outer(u[:, 0], vh[0]) / (1 + 1e-6) ** 0.5
    # rounding of the factor, n eps, mixes in what is enlarged by up to 1e6^(1/4) twice
    bound = 1e3 * n**0.5 * EPS["float32"]
    assert np.linalg.norm(params[0].detach().numpy() - wanted) <= bound


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_parameters(half):
    start, gradients = problem([(8, 12), (5,)], 4)
    params = parameters(start, half)
    opt = Shampoo(params, rel_damp=1e-3)
    follow(opt, params, gradients)
    state = opt.state[params[0]]
    assert params[0].dtype == half
    assert {x.dtype for x in state["factors"] + state["roots"]} == {torch.float32}
    for k, p in enumerate(params):
        rounded = [torch.tensor(step[k]).to(half).float().numpy() for step in gradients]
        begin = torch.tensor(start[k]).to(half).float().numpy()
        wanted = restated(begin, rounded)
        # each step rounds the parameter once
        bound = 4 * torch.finfo(half).eps / 2 * np.linalg.norm(np.abs(wanted) + 1)
        assert np.linalg.norm(p.detach().double().numpy() - wanted) <= bound


# --- What can go wrong ---------------------------------------------------------------------------


def test_zero_and_missing_gradients():
    start, gradients = problem([(4, 6), (4, 6), (3,)], 4)
    params = parameters(start)
    opt = Shampoo(params, lr=0.1, weight_decay=0.5, update_every=3)
    follow(opt, params, [[np.zeros((4, 6)), None, np.zeros(3)]])
    np.testing.assert_allclose(params[0].detach(), 0.95 * start[0], rtol=1e-6)
    np.testing.assert_array_equal(params[1].detach(), start[1])
    np.testing.assert_allclose(params[2].detach(), 0.95 * start[2], rtol=1e-6)
    before = [p.detach().clone() for p in params]
    follow(opt, params, gradients[:1])
    # a factor that was zero is no failure, and its first gradient does not wait for a root
    assert opt.failed_roots == 0
    assert all(torch.isfinite(p).all() for p in params)
    for p, q in zip(params, before, strict=True):
        assert (p - 0.95 * q).norm() > 0.01


def test_empty_parameters():
    params = parameters([np.zeros((0, 4)), np.zeros((3, 0)), np.zeros(0)])
    follow(Shampoo(params), params, [[np.zeros((0, 4)), np.zeros((3, 0)), np.zeros(0)]])
    assert [tuple(p.shape) for p in params] == [(0, 4), (3, 0), (0,)]


def test_rows_without_gradient_stay():
    start, gradients = problem([(4, 6), (5,)], 3)
    for step in gradients:
        step[0][1], step[1][2] = 0, 0
    params = parameters(start)
    follow(Shampoo(params), params, gradients)
    np.testing.assert_array_equal(params[0].detach()[1], start[0][1])
    np.testing.assert_array_equal(params[1].detach()[2], start[1][2])


def test_entries_without_gradient_need_no_damping():
    start, gradients = problem([(5,)], 3)
    for step in gradients:
        step[0][2] = 0
    params = parameters(start)
    opt = Shampoo(params, rel_damp=0.0)
    follow(opt, params, gradients)
    assert opt.failed_roots == 0
    moved = params[0].detach().numpy() != start[0]
    np.testing.assert_array_equal(moved, [True, True, False, True, True])


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e25])
def test_bad_gradients_are_left_out_and_counted(bad):
    start, gradients = problem([(4, 6), (4, 6)], 3)
    broken = copy.deepcopy(gradients)
    broken[1][0][2, 3] = bad
    params, wanted = parameters(start), parameters(start)
    opt = Shampoo(params)
    follow(opt, params, broken)
    gradients[1][0] = None
    follow(Shampoo(wanted), wanted, gradients)
    assert (opt.skipped_gradients, opt.failed_roots) == (1, 0)
    for p, q in zip(params, wanted, strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("planted", [np.nan, -1e9])
def test_a_failed_root_leaves_the_last_good_one(planted):
    start, gradients = problem([(4, 6), (4, 6), (6,)], 4)
    params = parameters(start)
    opt = Shampoo(params, momentum=0.0)
    follow(opt, params, gradients[:2])
    state = opt.state[params[0]]
    old = [r.clone() for r in state["roots"]]
    before = params[0].detach().clone()
    state["factors"][0][0, 0] = planted
    follow(opt, params, gradients[2:3])
    assert opt.failed_roots == state["failed_roots"] == 1
    assert torch.equal(state["roots"][0], old[0])
    assert not torch.equal(state["roots"][1], old[1])
    step = -0.1 * old[0] @ torch.tensor(gradients[2][0]) @ state["roots"][1]
    torch.testing.assert_close(params[0].detach(), before + step)
    # once the factor is sound again, so is the root, and the others never noticed
    state["factors"][0].copy_(torch.eye(4))
    follow(opt, params, gradients[3:])
    assert opt.failed_roots == 1
    assert not torch.equal(state["roots"][0], old[0])
    others = parameters(start[1:])
    follow(Shampoo(others, momentum=0.0), others, [step[1:] for step in gradients])
    for p, q in zip(params[1:], others, strict=True):
        torch.testing.assert_close(p, q)


def test_a_failed_diagonal_root_as_well():
    start, gradients = problem([(5,)], 3)
    params = parameters(start)
    opt = Shampoo(params)
    follow(opt, params, gradients[:2])
    opt.state[params[0]]["factors"][0][1] = np.nan
    follow(opt, params, gradients[2:])
    assert opt.failed_roots == 1
    assert torch.isfinite(params[0]).all()


def test_without_a_good_root_there_is_no_step():
    start, gradients = problem([(4, 6)], 3)
    params = parameters(start)
    opt = Shampoo(params, rel_damp=0.0)  # R has rank four of six
    follow(opt, params, gradients[:1])
    assert opt.failed_roots == 1
    np.testing.assert_array_equal(params[0].detach(), start[0])
    follow(opt, params, gradients[1:])
    assert opt.failed_roots == 1
    assert not np.array_equal(params[0].detach(), start[0])


def test_sparse_gradients_are_refused_before_anything_changes():
    layer = torch.nn.Embedding(5, 3, sparse=True)
    start, gradients = problem([(4, 6)], 1)
    params = [*parameters(start), layer.weight]
    opt = Shampoo(params)
    layer(torch.tensor([1, 2])).sum().backward()
    params[0].grad = torch.tensor(gradients[0][0])
    with pytest.raises(TypeError, match="sparse"):
        opt.step()
    np.testing.assert_array_equal(params[0].detach(), start[0])
    assert not opt.state


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"lr": -1.0}, "lr"), ({"momentum": 1.0}, "momentum"), ({"weight_decay": -1}, "weight"),
        ({"beta2": 1.0}, "beta2"), ({"damp": -1.0}, "damp"), ({"rel_damp": np.nan}, "rel_damp"),
        ({"update_every": 0}, "update_every"), ({"update_every": 1.5}, "update_every"),
        ({"max_dim": -1}, "max_dim"), ({"grafting": "adam"}, "grafting"),
        ({"grafting": "rmsprop"}, "beta2"), ({"compute_dtype": "float16"}, "compute_dtype"),
    ],
)  # fmt: skip
def test_refusals(options, word):
    with pytest.raises(ValueError, match=word):
        Shampoo([torch.nn.Parameter(torch.zeros(3, 3))], **options)


# --- As any optimizer of torch -------------------------------------------------------------------


def test_groups_have_options_of_their_own():
    start, gradients = problem([(4, 6), (6, 4), (5, 5)], 3, "float64")
    params = parameters(start)
    groups = [{"params": params[:1], "lr": 0.3}, {"params": params[1:2], "damp": 0.1}]
    opt = Shampoo(groups, rel_damp=1e-3, compute_dtype="float64")
    opt.add_param_group({"params": params[2:], "momentum": 0.0, "grafting": "sgd"})
    follow(opt, params, gradients)
    own = [{"lr": 0.3}, {"damp": 0.1}, {"momentum": 0.0, "grafting": "sgd"}]
    wanted = [
        restated(w, [step[k] for step in gradients], **own[k]) for k, w in enumerate(start)
    ]  # fmt: skip
    assert distance(params, wanted, start) <= 4 * 10 * EPS["float64"] * 1e3


def test_closure_and_schedule():
    params = parameters([np.ones((3, 4), "float32"), np.ones(4, "float32")])
    opt = Shampoo(params, lr=0.5, momentum=0.0)
    schedule = torch.optim.lr_scheduler.StepLR(opt, 1, gamma=0.0)

    def closure():
        opt.zero_grad()
        loss = sum((p**2).sum() for p in params)
        loss.backward()
        return loss

    with torch.no_grad():
        assert opt.step(closure) == 16.0
    schedule.step()
    after = opt.step(closure)
    assert after < 16.0
    assert opt.step(closure) == after  # the learning rate is zero now


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("half", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"grafting": "adagrad", "update_every": 4, "beta2": 0.9}])
def test_state_continues_to_the_bit(half, options):
    shapes = [(4, 6), (6, 4), (4, 6), (5,), (2, 3, 4)]
    start, gradients = problem(shapes, 20)
    gradients[2][0] = np.full((4, 6), np.nan)
    gradients[0][1] = None
    params = parameters(start, half)
    opt = Shampoo(params, max_dim=5, **options)
    follow(opt, params, gradients[:14])
    opt.state[params[2]]["factors"][0].fill_(np.nan)
    follow(opt, params, gradients[14:15])
    state = copy.deepcopy(opt.state_dict())
    runs = []
    for travelled in (state, through_a_file(state), pickle.loads(pickle.dumps(state))):
        own = [torch.nn.Parameter(p.detach().clone()) for p in params]
        other = Shampoo(own)
        other.load_state_dict(travelled)
        assert other.skipped_gradients == 1
        assert other.failed_roots == opt.failed_roots
        follow(other, own, gradients[15:])
        runs.append(own)
    follow(opt, params, gradients[15:])
    for own in runs:
        assert all(torch.equal(p, q) for p, q in zip(params, own, strict=True))


def test_nothing_is_shared_with_a_loaded_state():
    start, gradients = problem([(4, 6), (3,)], 4)
    params, own = parameters(start), parameters(start)
    opt, other = Shampoo(params, grafting="adagrad"), Shampoo(own)
    follow(opt, params, gradients[:2])
    before = copy.deepcopy(opt.state_dict()["state"])
    other.load_state_dict(opt.state_dict())
    follow(other, own, gradients[2:])
    after = opt.state_dict()["state"]
    assert str(after) == str(before)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies(copied):
    start, gradients = problem([(4, 6), (6, 4), (3,)], 6)
    params = parameters(start)
    opt = Shampoo(params)
    follow(opt, params, gradients[:3])
    other = copied(opt)
    own = other.param_groups[0]["params"]
    follow(other, own, gradients[3:])
    follow(opt, params, gradients[3:])
    assert all(torch.equal(p, q) for p, q in itertools.zip_longest(params, own))


def test_state_does_not_hold_the_stacks():
    start, gradients = problem([(4, 4)] * 50, 2)
    params = parameters(start)
    opt = Shampoo(params)
    follow(opt, params, gradients)
    for state in opt.state.values():
        for x in state["roots"] + state["eigenvectors"] + state["eigenvalues"]:
            assert x.untyped_storage().nbytes() == x.numel() * x.element_size()


def test_the_same_twice():
    start, gradients = problem([(30, 40), (40, 30)], 5)
    ways = []
    for _ in range(2):
        params = parameters(start)
        follow(Shampoo(params), params, gradients)
        ways.append(params)
    assert all(torch.equal(p, q) for p, q in zip(*ways, strict=True))


def test_matches_adagrad_on_vectors():
    start, gradients = problem([(9,)], 5)
    ours, theirs = parameters(start), parameters(start)
    follow(Shampoo(ours, lr=0.1, momentum=0.0, rel_damp=0.0), ours, gradients)
    follow(torch.optim.Adagrad(theirs, lr=0.1, eps=0.0), theirs, gradients)
    torch.testing.assert_close(ours, theirs)


def test_models_that_are_compiled():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    x = torch.randn(16, 4)
    plain = copy.deepcopy(model)
    compiled = torch.compile(model, backend="eager")
    for net, params in ((plain, plain.parameters()), (compiled, model.parameters())):
        opt = Shampoo(params)
        for _ in range(3):
            opt.zero_grad()
            net(x).square().mean().backward()
            opt.step()
    for p, q in zip(plain.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(p, q)


# --- The documented training ---------------------------------------------------------------------


def test_example_runs_and_its_programs_agree(tmp_path, capsys):
    example = runpy.run_path(str(DOCS / "examples" / "optim_training.py"))
    file = tmp_path / "optim.json"
    example["main"](["--steps", "6", "--every", "3", "--save", str(file)])
    assert len(capsys.readouterr().out.splitlines()) == len(example["OPTIMIZERS"])
    result = json.loads(file.read_text(encoding="utf-8"))
    losses = {run["name"]: np.array(run["losses"]) for run in result["runs"]}
    assert all(run["failed_roots"] == 0 for run in result["runs"])
    # rounding of factors whose condition is a million, and of bfloat16
    np.testing.assert_allclose(losses["linalgk Shampoo"], losses["plain Shampoo"], rtol=0.1)
    theirs = losses["torch.optim.Muon"]
    np.testing.assert_allclose(losses["linalgk Muon, coeffs='muon'"], theirs, rtol=0.02)
    assert losses["linalgk Shampoo"][-1] < losses["linalgk Shampoo"][0]


def test_committed_curves_are_those_of_the_example():
    example = runpy.run_path(str(DOCS / "examples" / "optim_training.py"))
    result = json.loads((DOCS / "_generated" / "optim.json").read_text(encoding="utf-8"))
    assert [run["name"] for run in result["runs"]] == list(example["OPTIMIZERS"])
    assert (result["muon"], result["shampoo"]) == (example["MUON"], example["SHAMPOO"])
    for run in result["runs"]:
        assert len(run["losses"]) == len(run["seconds"]) == len(result["steps"])
        assert run["losses"][-1] < run["losses"][0] / 10
        assert run["failed_roots"] == 0

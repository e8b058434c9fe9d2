"""Muon: the published update, whatever the shapes, dtypes, scales and options."""

import copy
import io
import itertools
import pickle
import subprocess
import sys

import numpy as np
import pytest
from trained import distance, follow, parameters, problem

import linalgk as lk

torch = pytest.importorskip("torch")
from linalgk.optim import Muon  # noqa: E402

PUBLISHED = (3.4445, -4.7750, 2.0315)
EPS = {"float32": 2.0**-23, "float64": 2.0**-52}
# What five steps make of a rounding error: the orthogonalize tests have the same bound.
GROWTH = 10 * 500


@pytest.fixture(autouse=True)
def _one_thread():
    """Matrices this small gain nothing from more, which wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def published_factor(g, steps=5):
    """Newton-Schulz of order five as it was published, without its additive epsilon."""
    a, b, c = PUBLISHED
    x = g.T if g.shape[0] > g.shape[1] else g
    x = x / (np.linalg.norm(x) or 1)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if g.shape[0] > g.shape[1] else x


def restated(w, gradients, *, lr=1e-3, weight_decay=0.1, momentum=0.95, nesterov=True, rms=False,
             steps=5):  # fmt: skip
    """The update of the docstring, on matrices, in the dtype of ``w``."""
    mean = np.zeros_like(w)
    m, n = w.shape
    scale = 0.2 * max(m, n) ** 0.5 if rms else max(1, m / n) ** 0.5
    for g in gradients:
        mean = momentum * mean + (1 - momentum) * g
        update = (1 - momentum) * g + momentum * mean if nesterov else mean
        w = (1 - lr * weight_decay) * w - lr * scale * published_factor(update, steps)
    return w


OPTIONS = [
    {}, {"nesterov": False}, {"momentum": 0.0}, {"weight_decay": 0.0}, {"lr": 0.3, "steps": 2},
    {"adjust_lr_fn": "match_rms_adamw"}, {"adjust_lr_fn": "original", "weight_decay": 0.5},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_published_update(options, dtype):
    shapes = [(6, 9), (9, 6), (7, 7), (6, 9), (40, 3)]
    start, gradients = problem(shapes, 6, dtype)
    params = parameters(start)
    follow(Muon(params, coeffs="muon", compute_dtype=dtype, **options), params, gradients)
    own = {"rms" if k == "adjust_lr_fn" else k: v for k, v in options.items()}
    own["rms"] = own.get("rms") == "match_rms_adamw"
    wanted = [
        restated(w, [step[k] for step in gradients], **own) for k, w in enumerate(start)
    ]  # fmt: skip
    assert distance(params, wanted, start) <= 2 * GROWTH * EPS[dtype]


def test_follows_torch_as_far_as_its_half_precision_goes():
    shapes = [(12, 30), (30, 12), (16, 16)]
    start, gradients = problem(shapes, 8)
    # well-conditioned, where bfloat16 has a few correct digits
    for step in gradients:
        step[:] = [np.linalg.qr(g)[0] if g.shape[0] >= g.shape[1] else g for g in step]
    ours, theirs = parameters(start), parameters(start)
    options = {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.9, "nesterov": True}
    follow(Muon(ours, coeffs="muon", **options), ours, gradients)
    follow(torch.optim.Muon(theirs, **options), theirs, gradients)
    wanted = [p.detach().double().numpy() for p in theirs]
    assert distance(ours, wanted, start) < 0.05


def test_defaults_are_those_of_torch():
    (mine,), (theirs,) = parameters([np.eye(3)]), parameters([np.eye(3)])
    own, peer = Muon([mine]).defaults, torch.optim.Muon([theirs]).defaults
    shared = ["lr", "weight_decay", "momentum", "nesterov", "adjust_lr_fn"]
    assert [own[k] for k in shared] == [peer[k] for k in shared]
    assert own["coeffs"] == "polar_express"


@pytest.mark.parametrize("options", [{}, {"coeffs": "minimax"}, {"coeffs": "cans"}], ids=str)
def test_the_step_is_nearly_orthogonal(options):
    start, gradients = problem([(20, 50)], 1)
    params = parameters(start)
    follow(Muon(params, lr=1.0, weight_decay=0.0, **options), params, gradients)
    sigma = np.linalg.svd(params[0].detach().numpy() - start[0], compute_uv=False)
    # after five steps from a condition of about ten
    assert np.abs(sigma - 1).max() < 0.2


def test_explicit_coefficients_equal_the_named_ones():
    start, gradients = problem([(5, 8)], 3)
    ways = []
    for coeffs in ("muon", PUBLISHED, np.array([PUBLISHED] * 5)):
        params = parameters(start)
        follow(Muon(params, coeffs=coeffs, steps=5), params, gradients)
        ways.append(params[0].detach().numpy())
    np.testing.assert_array_equal(ways[0], ways[1])
    np.testing.assert_array_equal(ways[0], ways[2])


@pytest.mark.parametrize("scale", [2.0**-100, 2.0**100])
def test_scale_of_the_gradient_changes_no_digit(scale):
    start, gradients = problem([(6, 9), (9, 6)], 4)
    scaled = [[g * np.float32(scale) for g in step] for step in gradients]
    one, other = parameters(start), parameters(start)
    follow(Muon(one), one, gradients)
    follow(Muon(other), other, scaled)
    for p, q in zip(one, other, strict=True):
        assert torch.equal(p, q)


def test_more_dimensions_are_flattened():
    shapes = [(8, 3, 3, 3), (4, 2, 5), (6, 1, 2, 2, 2)]
    start, gradients = problem(shapes, 3)
    flat = [w.reshape(len(w), -1) for w in start]
    kernels, matrices = parameters(start), parameters(flat)
    follow(Muon(kernels, lr=0.1), kernels, gradients)
    rows = [[g.reshape(len(g), -1) for g in step] for step in gradients]
    follow(Muon(matrices, lr=0.1), matrices, rows)
    for p, q in zip(kernels, matrices, strict=True):
        assert torch.equal(p.flatten(1), q)
    # other memory formats hold the same numbers
    last = torch.nn.Parameter(torch.tensor(start[0]).to(memory_format=torch.channels_last))
    follow(Muon([last], lr=0.1), [last], [[step[0]] for step in gradients])
    assert torch.equal(last, kernels[0])


def test_together_as_one_by_one():
    shapes = [(6, 9), (6, 9), (9, 6), (6, 9)]
    start, gradients = problem(shapes, 4)
    together = parameters(start)
    follow(Muon(together), together, gradients)
    for k, p in enumerate(together):
        alone = parameters([start[k]])
        follow(Muon(alone), alone, [[step[k]] for step in gradients])
        assert torch.equal(p, alone[0])


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_parameters(half):
    start, gradients = problem([(12, 20)], 5)
    params = parameters(start, half)
    opt = Muon(params, lr=0.5, coeffs="muon")
    follow(opt, params, gradients)
    assert params[0].dtype == half
    assert opt.state[params[0]]["momentum_buffer"].dtype == torch.float32
    eps = torch.finfo(half).eps
    rounded = [torch.tensor(step[0]).to(half).float().numpy() for step in gradients]
    begin = torch.tensor(start[0]).to(half).float().numpy()
    wanted = restated(begin.astype(float), rounded, lr=0.5)
    # each step rounds the parameter once, and the gradients are exact
    bound = 5 * eps / 2 * np.linalg.norm(np.abs(wanted) + 3)
    assert np.linalg.norm(params[0].detach().double().numpy() - wanted) <= bound


def test_zero_and_missing_gradients():
    start, gradients = problem([(4, 6), (4, 6)], 1)
    params = parameters(start)
    opt = Muon(params, lr=0.1, weight_decay=0.5)
    follow(opt, params, [[np.zeros((4, 6)), None]])
    np.testing.assert_allclose(params[0].detach(), 0.95 * start[0], rtol=1e-6)
    np.testing.assert_array_equal(params[1].detach(), start[1])
    assert not opt.state[params[1]]
    follow(opt, params, gradients)
    assert all(torch.isfinite(p).all() for p in params)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_gradients_with_nan_are_left_out_and_counted(bad):
    start, gradients = problem([(4, 6), (4, 6)], 3)
    broken = copy.deepcopy(gradients)
    broken[1][0][2, 3] = bad
    params, wanted = parameters(start), parameters(start)
    opt = Muon(params)
    follow(opt, params, broken)
    gradients[1][0] = None
    follow(Muon(wanted), wanted, gradients)
    assert opt.skipped_gradients == 1
    for p, q in zip(params, wanted, strict=True):
        assert torch.equal(p, q)


def test_sparse_gradients_are_refused_before_anything_changes():
    layer = torch.nn.Embedding(5, 3, sparse=True)
    start, gradients = problem([(4, 6)], 1)
    params = [*parameters(start), layer.weight]
    opt = Muon(params)
    layer(torch.tensor([1, 2])).sum().backward()
    params[0].grad = torch.tensor(gradients[0][0])
    with pytest.raises(TypeError, match="sparse"):
        opt.step()
    np.testing.assert_array_equal(params[0].detach(), start[0])


@pytest.mark.parametrize(
    ("shape", "options", "error", "word"),
    [
        ((5,), {}, ValueError, "AdamW"), ((), {}, ValueError, "two or more"),
        ((3, 3), {"lr": -1.0}, ValueError, "lr"), ((3, 3), {"momentum": 1.0}, ValueError, "moment"),
        ((3, 3), {"weight_decay": -0.1}, ValueError, "weight_decay"),
        ((3, 3), {"adjust_lr_fn": "mine"}, ValueError, "adjust_lr_fn"),
        ((3, 3), {"coeffs": "mine"}, ValueError, "coeffs"),
        ((3, 3), {"steps": 0}, ValueError, "steps"),
        ((3, 3), {"coeffs": [1.0, 2.0]}, ValueError, "coeffs"),
        ((3, 3), {"compute_dtype": "bfloat16"}, ValueError, "compute_dtype"),
    ],
)  # fmt: skip
def test_refusals(shape, options, error, word):
    with pytest.raises(error, match=word):
        Muon([torch.nn.Parameter(torch.zeros(shape))], **options)


def test_a_refused_group_is_not_added():
    opt = Muon([torch.nn.Parameter(torch.zeros(3, 3))])
    with pytest.raises(ValueError, match="two or more"):
        opt.add_param_group({"params": torch.nn.Parameter(torch.zeros(3))})
    with pytest.raises(TypeError, match="complex64"):
        opt.add_param_group({"params": torch.zeros(3, 3, dtype=torch.complex64)})
    with pytest.raises(ValueError, match=r"weight of shape \(2,\)"):
        Muon([("weight", torch.nn.Parameter(torch.zeros(2)))])
    assert len(opt.param_groups) == 1


def test_groups_have_options_of_their_own():
    shapes = [(4, 6), (6, 4), (5, 5)]
    start, gradients = problem(shapes, 3)
    params = parameters(start)
    opt = Muon([{"params": params[:1], "lr": 0.3}, {"params": params[1:2]}], lr=0.1, coeffs="muon")
    opt.add_param_group({"params": params[2:], "momentum": 0.0, "steps": 3, "maximize": True})
    follow(opt, params, gradients)
    down = [-step[2] for step in gradients]
    wanted = [
        restated(start[0], [step[0] for step in gradients], lr=0.3),
        restated(start[1], [step[1] for step in gradients], lr=0.1),
        restated(start[2], down, lr=0.1, momentum=0.0, steps=3),
    ]
    assert distance(params, wanted, start) <= 2 * GROWTH * EPS["float32"]


def quadratic(params):
    return sum((p**2).sum() for p in params)


def test_closure_is_called_with_gradients_enabled():
    params = parameters([np.ones((3, 4), "float32")])
    opt = Muon(params, lr=0.1)

    def closure():
        opt.zero_grad()
        loss = quadratic(params)
        loss.backward()
        return loss

    with torch.no_grad():
        assert opt.step(closure) == 12.0
    assert quadratic(params) < 12.0
    assert Muon(parameters([np.ones((2, 2))])).step() is None


@pytest.mark.parametrize("lr", [0.1, torch.tensor(0.1)], ids=["float", "tensor"])
def test_learning_rate_schedules(lr):
    start, gradients = problem([(4, 6)], 3)
    params = parameters(start)
    opt = Muon(params, lr=lr, weight_decay=0.0, coeffs="muon", momentum=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(opt, lambda t: 0.5**t)
    for step in gradients:
        follow(opt, params, [step])
        schedule.step()
    wanted = start[0] - sum(
        0.1 * 0.5**t * published_factor(step[0]) for t, step in enumerate(gradients)
    )
    assert distance(params, [wanted], start) <= 2 * GROWTH * EPS["float32"]


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("half", [torch.float32, torch.bfloat16])
def test_state_continues_to_the_bit(half):
    start, gradients = problem([(4, 6), (6, 4), (4, 6)], 6)
    gradients[2][0] = np.full((4, 6), np.nan)
    params = parameters(start, half)
    opt = Muon(params, lr=0.1, coeffs=PUBLISHED)
    follow(opt, params, gradients[:3])
    state = copy.deepcopy(opt.state_dict())
    runs = []
    for travelled in (state, through_a_file(state), pickle.loads(pickle.dumps(state))):
        own = [torch.nn.Parameter(p.detach().clone()) for p in params]
        other = Muon(own)
        other.load_state_dict(travelled)
        assert other.skipped_gradients == 1
        follow(other, own, gradients[3:])
        runs.append(own)
    assert all(torch.equal(v, w) for v, w in zip(
        (s["momentum_buffer"] for s in state["state"].values()),
        (s["momentum_buffer"] for s in travelled["state"].values()), strict=True,
    ))  # fmt: skip
    follow(opt, params, gradients[3:])
    for own in runs:
        assert all(torch.equal(p, q) for p, q in zip(params, own, strict=True))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies(copied):
    start, gradients = problem([(4, 6), (6, 4)], 4)
    params = parameters(start)
    opt = Muon(params, lr=0.1)
    follow(opt, params, gradients[:2])
    other = copied(opt)
    own = other.param_groups[0]["params"]
    follow(other, own, gradients[2:])
    follow(opt, params, gradients[2:])
    assert all(torch.equal(p, q) for p, q in itertools.zip_longest(params, own))


def test_steps_are_not_recorded():
    params = parameters([np.ones((3, 4), "float32")])
    opt = Muon(params)
    quadratic(params).backward()
    opt.step()
    assert params[0].is_leaf
    assert params[0].requires_grad
    assert not opt.state[params[0]]["momentum_buffer"].requires_grad


def test_empty_parameters():
    params = parameters([np.zeros((0, 4)), np.zeros((3, 0))])
    follow(Muon(params), params, [[np.zeros((0, 4)), np.zeros((3, 0))]])
    assert [tuple(p.shape) for p in params] == [(0, 4), (3, 0)]


def test_without_torch_one_sentence_says_so():
    code = """
import sys
sys.modules["torch"] = None
import linalgk
try:
    import linalgk.optim
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "linalgk[torch]" in done.stdout
    assert len(done.stdout.splitlines()) == 1


def test_importing_linalgk_leaves_torch_alone():
    code = "import sys, linalgk; print('torch' in sys.modules, 'linalgk.optim' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
    assert lk.__version__

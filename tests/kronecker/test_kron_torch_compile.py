"""PyTorch's compiler: products, solutions and determinants, and the operators they are made of."""

import pytest

torch = pytest.importorskip("torch")
from against_dense import COMPLEX, DOUBLE, draw, made  # noqa: E402

from linalgk.interop import _torch_kron, _torch_kron_ops, _torch_kron_product  # noqa: E402

# barriers between threads cost more than matrices of this size
torch.set_num_threads(1)
pytestmark = [
    # torch's own, on its way to forward derivatives and through a compiled function
    pytest.mark.filterwarnings("ignore:.torch.jit.script"),
    pytest.mark.filterwarnings("ignore:.*should not be instantiated"),
]


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Read:
    """What the face reads of a `Kron`."""

    def __init__(self, a, c, kind):
        self.factors, self.assume_a, self._cache = (a, c), (kind, kind), {}


def product(**options):
    return lambda a, c, x, _s: _torch_kron.kron_matmul([a, c], x, **options)


def solution(kind, shifted):
    def f(a, c, x, s):
        K = Read(made(a, kind), made(c, kind), kind)
        return _torch_kron.solve(K, x, s if shifted else 0)

    return f


def determinant(kind, shifted):
    def f(a, c, _x, s):
        K = Read(made(a, kind), made(c, kind), kind)
        return _torch_kron.slogdet(K, s if shifted else 0).logabsdet

    return f


CALLS = {
    "product": product(),
    "product turned": product(trans="NT", alpha=2.0),
    "product right": lambda a, c, x, _s: _torch_kron.kron_matmul([a, c], x.mT, side="right"),
    "product vector": lambda a, c, x, _s: _torch_kron.kron_matmul([a, c], x[:, 0]),
    "solve pos": solution("pos", False),
    "solve pos shift": solution("pos", True),
    "solve gen shift": solution("gen", True),
    "slogdet gen": determinant("gen", False),
    "slogdet her shift": determinant("her", True),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("dtype", [DOUBLE, pytest.param(COMPLEX, marks=pytest.mark.slow)])
def test_compiled(name, dtype):
    """The same values and gradients, the whole graph in one piece."""
    f = CALLS[name]
    inputs = [draw(2, 2, dtype=dtype), draw(3, 3, dtype=dtype), draw(6, 2, dtype=dtype)]
    inputs.append(torch.tensor(0.5, dtype=DOUBLE, requires_grad=True))
    run = torch.compile(f, fullgraph=True, backend="aot_eager")
    want = f(*inputs)
    with torch.no_grad():
        plain = run(*(x.detach() for x in inputs))
    assert not plain.requires_grad
    got = run(*inputs)
    torch.testing.assert_close(plain, want.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    g = draw(*want.shape, dtype=want.dtype, seed=3, grad=False)
    grads = [torch.autograd.grad(y, inputs, g, allow_unused=True) for y in (got, want)]
    for a, b in zip(*grads, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_shapes_may_change_and_failures_are_nan():
    run = torch.compile(product(), fullgraph=True, backend="aot_eager")
    for shape in ((6, 2), (6, 5), (2, 6, 3)):
        a, c, x = draw(2, 2), draw(3, 3), draw(*shape)
        torch.testing.assert_close(run(a, c, x, None), product()(a, c, x, None))
    f = torch.compile(
        lambda a, c, x: _torch_kron.solve(Read(a, c, "gen"), x), fullgraph=True, backend="aot_eager"
    )
    a = torch.stack([torch.eye(2), torch.zeros(2, 2)]).double()
    x = f(a, torch.eye(3, dtype=DOUBLE), draw(6, 1))
    assert torch.isnan(x[1]).all()
    assert torch.isfinite(x[0]).all()
    with pytest.raises(Exception, match=r"needs 2\*3 = 6 rows, got 5"):
        run(draw(2, 2), draw(3, 3), draw(5, 2), None)


@pytest.mark.parametrize("dtype", [DOUBLE, COMPLEX])
def test_operators(dtype):
    """What PyTorch checks of any operator: schema, shapes ahead of values, tracing."""
    a, c = (made(draw(2, n, n, dtype=dtype, grad=False), "pos") for n in (2, 3))
    b, g = draw(2, 6, 2, dtype=dtype, grad=False), draw(2, 6, 2, dtype=dtype, grad=False)
    s, w = draw(2, 1, 1, grad=False) + 3, draw(2, grad=False)
    ops, product = _torch_kron_ops, _torch_kron_product
    calls = [
        (product._product_op, (b, [a, c])),
        (product._gradients_op, (b, [a, c], g, [True, False, True])),
        (ops.solve_op, (b, s, [a, c], "pos;pos;nan;False", False)),
        (ops.solve_op, (b, None, [a, c], "gen;gen;nan;False", True)),
        (ops.slogdet_op, (s, [a, c], "pos;pos;nan;False")),
        (ops.slogdet_op, (None, [a, c], "None;gen;nan;False")),
        (ops.first_op, (w, s, [a, c], "pos;pos;nan;False")),
        (ops.first_op, (w, None, [a, c], "gen;gen;nan;False")),
    ]
    for op, args in calls:
        torch.library.opcheck(op, args, test_utils=("test_schema", "test_faketensor"))


def test_options_travel_as_a_string():
    call = _torch_kron_ops.Call(("pos", None), "warn", True, None)
    assert _torch_kron_ops._read(_torch_kron_ops.spec_of(call)) == call
    assert list(_torch_kron_ops.kinds_of("pos;None;nan;False")) == ["pos", "None"]


def test_assumptions_must_be_given():
    f = torch.compile(
        lambda a, x: _torch_kron.solve(Read(a, a, None), x), fullgraph=True, backend="aot_eager"
    )
    with pytest.raises(Exception, match="assume_a must be given"):
        f(draw(2, 2), draw(4, 1))

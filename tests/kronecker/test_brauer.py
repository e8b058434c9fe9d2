"""Diagrams: against their matrices, the groups they commute with, and the calculus of diagrams."""

import itertools
import math

import numpy as np
import pytest
import scipy.linalg
import scipy.stats

from linalgk.kronecker import _brauer
from linalgk.kronecker._brauer import Diagram, brauer_apply, brauer_diagrams


def draw(rng, shape, dtype="float64"):
    z = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        z = z + 1j * rng.standard_normal(shape)
    return z.astype(dtype)


def whole(rng, shape):
    """Integers, so that sums are exact."""
    return rng.integers(-9, 10, shape).astype(float)


def symplectic(n):
    """The form, with blocks on the diagonal."""
    return np.kron(np.eye(n // 2), [[0.0, 1.0], [-1.0, 0.0]])


def levi_civita(n):
    table = np.zeros((n,) * n)
    for order in itertools.permutations(range(n)):
        table[order] = np.linalg.det(np.eye(n)[list(order)])
    return np.rint(table)


def equal(n, count):
    """One where all indices are equal."""
    table = np.zeros((n,) * count)
    table[(np.arange(n),) * count] = 1
    return table


def dense(diagram, n, group="O"):
    """The tensor of the map, outputs first, by einsum over one tensor for each block."""
    k, l = diagram.inputs, diagram.outputs  # noqa: E741
    args, free = [], []
    for block in diagram.blocks:
        if group == "SO" and len(block) == 1:
            free.append(block[0])
            continue
        same_side = len(block) == 2 and (block[1] < k or block[0] >= k)
        form = symplectic(n) if group == "Sp" and same_side else equal(n, len(block))
        args += [form, list(block)]
    if free:
        out_first = [v for v in free if v >= k] + [v for v in free if v < k]
        args += [levi_civita(n), out_first]
    if not args:
        return np.ones(())
    return np.einsum(*args, [*range(k, k + l), *range(k)])


def as_matrix(diagram, n, group="O"):
    return dense(diagram, n, group).reshape(n**diagram.outputs, n**diagram.inputs)


def power(g, count):
    """The Kronecker power of a matrix."""
    y = np.ones((1, 1))
    for _ in range(count):
        y = np.kron(y, g)
    return y


def diagrams(group, n, limit=3):
    """All with at most so many axes on each side."""
    for k, l in itertools.product(range(limit + 1), repeat=2):  # noqa: E741
        yield from brauer_diagrams(k, l, group=group, n=n)


# --- The matrix ----------------------------------------------------------------------------------

CASES = [("O", 1), ("O", 3), ("O", 4), ("Sp", 2), ("Sp", 4), ("SO", 1), ("SO", 2), ("SO", 3),
         ("SO", 4), ("S", 2), ("S", 3)]  # fmt: skip


@pytest.mark.parametrize(("group", "n"), CASES)
def test_every_diagram_is_its_matrix(group, n, rng):
    count = 0
    for d in diagrams(group, n):
        x = whole(rng, (2, *(n,) * d.inputs))
        y = brauer_apply(d, x, n, group=group)
        assert y.shape == (2, *(n,) * d.outputs)
        exact = x.reshape(2, -1) @ as_matrix(d, n, group).T
        assert np.array_equal(y.reshape(2, -1), exact), d
        count += 1
    assert count >= (100 if group == "S" else 28)


@pytest.mark.parametrize(("group", "n"), [("O", 3), ("Sp", 4), ("SO", 3), ("S", 3)])
def test_other_libraries_choose_where_numpy_writes(group, n, rng):
    strict = pytest.importorskip("array_api_strict")
    found = [d for d in diagrams(group, n) if d.outputs]
    for d in found[:: max(1, len(found) // 60)]:
        x = whole(rng, (2, *(n,) * d.inputs))
        y = brauer_apply(d, strict.asarray(x), n, group=group)
        assert np.array_equal(np.asarray(y), brauer_apply(d, x, n, group=group)), d


@pytest.mark.parametrize(
    ("text", "group"),
    [("iijkkj->aalmlm", "O"), ("abcdef->fedcba", "O"), ("iijjkk->", "Sp"), ("->iijjkk", "Sp"),
     ("aabcdd->bcc", "S"), ("abcabc->abcabc", "S"), ("ijklmm->ijklnn", "O")],
)  # fmt: skip
def test_many_axes(text, group, rng):
    d, n = Diagram.parse(text), 4
    x = whole(rng, (n,) * d.inputs)
    y = brauer_apply(text, x, n, group=group)
    assert np.array_equal(y.reshape(-1), as_matrix(d, n, group) @ x.reshape(-1))


# --- Groups --------------------------------------------------------------------------------------


def elements(group, n, rng):
    """Random elements of the group."""
    if group == "O":
        q = scipy.stats.ortho_group.rvs(n, random_state=rng)
        return q * np.array([-1.0] + [1.0] * (n - 1))[:, None] if rng.random() < 0.5 else q
    if group == "SO":
        return scipy.stats.special_ortho_group.rvs(n, random_state=rng)
    if group == "S":
        return np.eye(n)[rng.permutation(n)]
    a = rng.standard_normal((n, n))
    # J times a symmetric matrix is in the algebra
    return scipy.linalg.expm(0.3 * symplectic(n) @ (a + a.T))


@pytest.mark.parametrize(("group", "n"), [("O", 3), ("Sp", 4), ("SO", 3), ("SO", 4), ("S", 4)])
def test_maps_commute_with_the_group(group, n, rng):
    g = elements(group, n, rng)
    if group == "Sp":
        np.testing.assert_allclose(g.T @ symplectic(n) @ g, symplectic(n), atol=1e-12)
    found = list(diagrams(group, n))
    for d in found[:: max(1, len(found) // 60)]:
        x = draw(rng, (n**d.inputs,))
        first = brauer_apply(d, (power(g, d.inputs) @ x).reshape((n,) * d.inputs), n, group=group)
        then = brauer_apply(d, x.reshape((n,) * d.inputs), n, group=group)
        then = power(g, d.outputs) @ then.reshape(-1)
        scale = 1 + np.abs(then).max()
        np.testing.assert_allclose(first.reshape(-1), then, rtol=0, atol=1e-11 * scale)


def test_special_orthogonal_maps_do_not_commute_with_reflections(rng):
    flip = np.diag([-1.0, 1.0, 1.0])
    x = draw(rng, (3, 3))
    cross = [(0,), (1,), (2,)]
    y = brauer_apply(cross, x, k=2, group="SO")
    turned = brauer_apply(cross, flip @ x @ flip.T, k=2, group="SO")
    np.testing.assert_allclose(turned, -flip @ y, atol=1e-14)
    a, b = draw(rng, (3,)), draw(rng, (3,))
    y = brauer_apply(cross, np.multiply.outer(a, b), k=2, group="SO")
    np.testing.assert_allclose(y, np.cross(a, b), atol=1e-14)


@pytest.mark.parametrize(
    ("group", "n", "k", "l", "dimension"),
    # the numbers of invariants: of S_n Bell's with at most n blocks; of the others all matchings
    # where n is large enough, fewer where it is not
    [("O", 4, 2, 2, 3), ("O", 3, 3, 3, 15), ("O", 2, 2, 2, 3), ("O", 2, 3, 3, 10),
     ("Sp", 4, 2, 2, 3), ("Sp", 2, 2, 2, 2), ("Sp", 2, 3, 3, 5), ("S", 4, 2, 2, 15),
     ("S", 2, 2, 2, 8), ("SO", 3, 2, 1, 1), ("SO", 2, 1, 1, 2), ("SO", 3, 2, 2, 3)],
)  # fmt: skip
def test_the_span_has_the_dimension_of_the_equivariant_maps(group, n, k, l, dimension):  # noqa: E741
    found = [dense(d, n, group).reshape(-1) for d in brauer_diagrams(k, l, group=group, n=n)]
    assert np.linalg.matrix_rank(np.array(found)) == dimension


@pytest.mark.parametrize(("group", "n"), [("O", 2), ("S", 3)])
def test_nothing_else_commutes(group, n, rng):
    """The maps that commute with some random elements, by a null space, are those of diagrams."""
    k, l = 2, 1 if group == "S" else 2  # noqa: E741
    rows = []
    for _ in range(4):
        g = elements(group, n, rng)
        rows.append(np.kron(power(g, l), np.linalg.inv(power(g, k)).T) - np.eye(n ** (k + l)))
    null = scipy.linalg.null_space(np.vstack(rows), rcond=1e-10)
    span = np.array([as_matrix(d, n, group).reshape(-1) for d in
                     brauer_diagrams(k, l, group=group, n=n)])  # fmt: skip
    assert null.shape[1] == np.linalg.matrix_rank(span)
    np.testing.assert_allclose(null @ (null.T @ span.T), span.T, atol=1e-10)


# --- The calculus --------------------------------------------------------------------------------


def composed(second, first):
    """``second`` after ``first``, and how many blocks were lost in the middle."""
    k, m = first.inputs, first.outputs
    parts = [{("a", v) if v < k else ("m", v - k) for v in b} for b in first.blocks]
    parts += [{("m", v) if v < m else ("b", v - m) for v in b} for b in second.blocks]
    joined = []
    for part in parts:
        touching = [p for p in joined if p & part]
        joined = [p for p in joined if not p & part] + [part.union(*touching)]
    blocks = [tuple(v if side == "a" else k + v for side, v in p if side != "m") for p in joined]
    return Diagram(k, second.outputs, tuple(b for b in blocks if b)), blocks.count(())


@pytest.mark.parametrize(("group", "n"), [("O", 3), ("S", 2), ("Sp", 4)])
def test_composition_is_that_of_diagrams_with_a_factor_for_each_loop(group, n, rng):
    pairs = [
        (second, first)
        for k, m, l in [(2, 2, 2), (1, 3, 1), (3, 1, 2), (0, 2, 2), (2, 4, 0)]  # noqa: E741
        for first in brauer_diagrams(k, m, group=group)
        for second in brauer_diagrams(m, l, group=group)
    ]
    for second, first in pairs[:: max(1, len(pairs) // 80)]:
        x = whole(rng, (n,) * first.inputs)
        y = brauer_apply(second, brauer_apply(first, x, n, group=group), n, group=group)
        product, loops = composed(second, first)
        z = brauer_apply(product, x, n, group=group)
        if group == "Sp":  # a loop of the form is minus the dimension, and strands have signs
            assert np.array_equal(np.abs(y), n**loops * np.abs(z))
        else:
            assert np.array_equal(y, n**loops * z)


def test_transposed_diagrams_are_transposed_matrices(rng):
    for d in diagrams("S", 3):
        x, y = whole(rng, (3,) * d.inputs), whole(rng, (3,) * d.outputs)
        k, l = d.inputs, d.outputs  # noqa: E741
        back = [tuple(v + l if v < k else v - k for v in b) for b in d.blocks]
        one = np.sum(brauer_apply(d, x, 3, group="S") * y)
        assert one == np.sum(x * brauer_apply(Diagram(l, k, tuple(back)), y, 3, group="S"))


# --- Enumeration ---------------------------------------------------------------------------------


def test_numbers_of_diagrams():
    bell = [1, 1, 2, 5, 15, 52, 203]
    for k, l in itertools.product(range(4), repeat=2):  # noqa: E741
        found = list(brauer_diagrams(k, l))
        odd = math.prod(range(1, k + l, 2)) if (k + l) % 2 == 0 else 0
        assert len(found) == len(set(found)) == odd
        assert all((d.inputs, d.outputs) == (k, l) for d in found)
        assert len(set(brauer_diagrams(k, l, group="S"))) == bell[k + l]
        assert list(brauer_diagrams(k, l, group="Sp")) == found
        free = set(brauer_diagrams(k, l, group="SO", n=2)) - set(found)
        rest = k + l - 2
        more = math.prod(range(1, rest, 2)) if rest >= 0 and rest % 2 == 0 else 0
        assert len(free) == math.comb(k + l, 2) * more
    assert sum(len(d.blocks) <= 2 for d in brauer_diagrams(2, 2, group="S")) == 8
    assert len(list(brauer_diagrams(2, 2, group="S", n=2))) == 8
    assert [str(d) for d in brauer_diagrams(1, 1)] == ["a->a"]


def test_texts_and_lists_are_diagrams():
    d = Diagram.parse(" iij -> j ")
    assert d == Diagram(3, 1, ((3, 2), (1, 0)))
    assert str(d) == "aab->b"
    assert Diagram.parse(str(d)) == d
    assert Diagram.parse("->") == Diagram(0, 0, ())
    assert hash(d) == hash(Diagram.parse("xxy->y"))


# --- Arguments -----------------------------------------------------------------------------------


def test_batches_lists_and_numbers(rng):
    x = whole(rng, (2, 5, 3, 3, 3))
    y = brauer_apply("iij->j", x)
    assert np.array_equal(y, np.einsum("abiij->abj", x))
    assert np.array_equal(brauer_apply([(0, 1), (3, 2)], x, k=3), y)
    assert np.array_equal(brauer_apply([[0, 1], [3, 2]], x[1, 2]), y[1, 2])
    one = brauer_apply("->ii", np.array([2.0, 3.0]), 2)
    assert np.array_equal(one, np.array([2.0, 3.0])[:, None, None] * np.eye(2))
    assert brauer_apply("ii->", np.eye(4)).shape == ()
    assert brauer_apply("ii->jj", [[1, 2], [3, 4]]).tolist() == [[5.0, 0.0], [0.0, 5.0]]
    assert brauer_apply("->", np.float64(3.0), 2) == 3.0
    assert brauer_apply("ij->ji", np.zeros((0, 3, 3))).shape == (0, 3, 3)


def test_values_that_are_not_numbers_stay_where_they_are_copied():
    x = np.ones((3, 3))
    x[1, 1], x[0, 2] = np.nan, np.inf
    y = brauer_apply("ii->ii", x, group="S")
    assert np.array_equal(np.isnan(y), np.diag([False, True, False]))
    assert not np.isinf(y).any()
    strict = pytest.importorskip("array_api_strict")
    z = brauer_apply("ii->ii", strict.asarray(x), group="S")
    assert np.array_equal(np.asarray(z), y, equal_nan=True)


def test_out_and_layouts(rng, dtype):
    big = draw(rng, (4, 8, 4, 4), dtype)
    for x in (big[:, ::2], big[:, 3::-1].transpose(3, 1, 0, 2), np.asfortranarray(big[:, :4])):
        x.flags.writeable = False
        before = x.copy()
        for text, group in [("iij->j", "O"), ("iij->kkj", "Sp"), ("iij->kkj", "S"),
                            ("ijk->kij", "O"), ("ijk->iikk", "S")]:  # fmt: skip
            y = brauer_apply(text, x, group=group)
            assert y.dtype == dtype
            matrix = as_matrix(Diagram.parse(text), 4, group)
            exact = (x.reshape(4, -1) @ matrix.T).reshape(y.shape)
            np.testing.assert_allclose(y, exact, rtol=1e-5 if y.real.dtype == "f4" else 1e-13)
            for out in (np.full_like(y, 9), np.full((*y.shape, 2), 9, dtype)[..., 0]):
                assert brauer_apply(text, x, group=group, out=out) is out
                assert np.array_equal(out, y)
        assert np.array_equal(x, before)


def test_libraries_give_their_own_arrays(xp, rng):
    x = whole(rng, (2, 4, 4, 4)).astype("float32")
    given = xp.asarray(x)
    for text, group in [("iij->j", "O"), ("iij->kkj", "Sp"), ("ijk->kij", "O")]:
        y = brauer_apply(text, given, group=group)
        assert type(y) is type(given)
        assert np.array_equal(np.asarray(y), brauer_apply(text, x, group=group))
    free = brauer_apply([(0,), (1,), (2, 3), (4,)], given[..., :3, :3, :3], group="SO", k=3)
    assert type(free) is type(given)
    wanted = brauer_apply([(0,), (1,), (2, 3), (4,)], x[..., :3, :3, :3], group="SO", k=3)
    assert np.array_equal(np.asarray(free), wanted)


def test_a_device_keeps_its_arrays(cuda, rng):
    x = whole(rng, (2, 4, 4, 4))
    for text, group in [("iij->j", "O"), ("iij->kkj", "Sp"), ("iji->kij", "S"), ("ijk->", "S")]:
        looks = cuda.looks
        y = brauer_apply(text, cuda.array(x), group=group)
        assert cuda.looks == looks
        assert np.array_equal(cuda.host(y), brauer_apply(text, x, group=group))
    free = [(0,), (1,), (2, 3), (4,)]
    y = brauer_apply(free, cuda.array(x[..., :3, :3, :3]), group="SO", k=3)
    assert np.array_equal(cuda.host(y), brauer_apply(free, x[..., :3, :3, :3], group="SO", k=3))


def test_jax_traces_it_and_torch_keeps_half_precision(rng):
    jax, torch = pytest.importorskip("jax"), pytest.importorskip("torch")
    x = whole(rng, (3, 3, 3))
    y = jax.jit(lambda z: brauer_apply("iij->jkk", z))(jax.numpy.asarray(x, "float32"))
    assert np.array_equal(np.asarray(y), brauer_apply("iij->jkk", x))
    z = brauer_apply("iij->jkk", torch.asarray(x).bfloat16())
    assert z.dtype == torch.bfloat16
    with pytest.raises(TypeError, match="requires grad"):
        brauer_apply("ii->", torch.eye(2, requires_grad=True))


# --- Bad input -----------------------------------------------------------------------------------


def test_errors_name_what_is_wrong(rng):
    x = draw(rng, (3, 3))
    with pytest.raises(ValueError, match="blocks must hold each of the 4 vertices 0 to 3 once"):
        brauer_apply([(0, 1), (1, 2)], x)
    with pytest.raises(ValueError, match="fewer than the k = 2 axes"):
        brauer_apply([(0,)], x)
    with pytest.raises(ValueError, match=r"for group='O' blocks must be pairs, got \(\(0, 1, 2\),"):
        brauer_apply("ii->i", x)
    with pytest.raises(ValueError, match="pairs and none or n = 3 free vertices"):
        brauer_apply("ij->", x, group="SO")
    with pytest.raises(ValueError, match="n: must be even for group='Sp', got 3"):
        brauer_apply("ii->", x, group="Sp")
    with pytest.raises(ValueError, match="x: its last 2 axes must have length n = 3"):
        brauer_apply("ij->ji", np.ones((3, 4)))
    with pytest.raises(ValueError, match="x: its last 2 axes must have length n = 4"):
        brauer_apply("ij->ji", x, 4)
    with pytest.raises(ValueError, match="x: needs k = 3 axes or more"):
        brauer_apply("iij->j", x)
    with pytest.raises(ValueError, match="n: is needed where the diagram has no inputs"):
        brauer_apply("->ii", x)
    with pytest.raises(ValueError, match="k: must be 2, as the diagram says"):
        brauer_apply("ij->ji", x, k=1)
    with pytest.raises(ValueError, match="must be letters, '->' and letters"):
        brauer_apply("ij,ji", x)
    with pytest.raises(TypeError, match="diagram: must be a Diagram, a text or a list"):
        brauer_apply(3, x)
    with pytest.raises(TypeError, match="diagram: must be a list of blocks of vertices"):
        brauer_apply([0, 1], x)
    with pytest.raises(ValueError, match="group: must be one of 'O', 'SO', 'Sp', 'S'"):
        brauer_apply("ij->ji", x, group="U")
    with pytest.raises(ValueError, match="n: is needed for group='SO'"):
        list(brauer_diagrams(1, 1, group="SO"))
    with pytest.raises(ValueError, match=r"out: must have shape \(3, 3\)"):
        brauer_apply("ij->ji", x, out=np.ones(3))
    with pytest.raises(ValueError, match="out: overlaps"):
        brauer_apply("ij->ji", x, out=x)


# --- Explanations --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["small", "medium"])
def test_samples_and_explanations(size):
    args, options = _brauer.sample(size, rng=0)
    y = brauer_apply(*args, **options)
    said = _brauer.explain_brauer_apply(*args, **options)
    assert said.method == "strided"
    batch, n = y.shape[:2]
    # three of the five axes of diagonals are read
    assert said.flops == batch * n**3

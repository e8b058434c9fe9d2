"""The room of randomized solvers in the bench: small copies of its problems, and their judges."""

import numpy as np
import pytest
from linalgk_bench import randomized
from linalgk_bench import randomized_problems as problems
from linalgk_bench.peers import LINALGK, Unavailable
from linalgk_bench.problems import ROOMS

LARGER = problems.surveying()[:1]
SMALL = [
    problems.lstsq_problem(3000, 20, 1e8),
    problems.sparse_problem(12_000, 30, 0.05),
    *LARGER,
    problems.svd_problem(300, 200, 10),
    problems.eigh_problem(300, 10),
    problems.streaming_problem(600, 100, 5, 4),
    problems.kernel_problem(300, 60),
    problems.interp_problem(200, 150, 10),
    problems.cur_problem(300, 200, 10),
    problems.qr_problem("qr_pivoted", 2000, 30, 1e8),
    problems.qr_problem("cholqr", 2000, 30, 1e8),
    problems.pinv_lowrank_problem(200, 150, 10),
    problems.pinv_problem(300, 40),
    problems.pinv_batch_problem(6, 16),
    problems.pinv_cr_problem(200, 150, 10),
    problems.project_problem("tall", 600, 100),
    problems.project_problem("newton", 120, 30),
    problems.trace_problem("estimate_trace", 200, 40),
    problems.trace_problem("estimate_diagonal", 200, 40),
    problems.logdet_problem(8),
    problems.quad_problem(8),
]


def test_there_is_a_row_for_every_function():
    assert "randomized" in ROOMS
    rows = {p.function for p in randomized.PROBLEMS}
    assert rows == {p.function for p in SMALL}
    assert rows == {
        "svd_lowrank", "eigh_lowrank", "rpcholesky", "StreamingSVD", "interp_decomp", "cur",
        "qr_pivoted", "cholqr", "lstsq", "sketch_project", "pinv", "pinv_cr", "estimate_trace",
        "estimate_diagonal", "estimate_logdet", "estimate_quad_form",
    }  # fmt: skip
    # all but the yardstick have somebody to be compared with
    for problem in randomized.PROBLEMS:
        assert any(p.accepts(problem) for p in randomized.PEERS if p.name != LINALGK), problem.name


def test_targets_are_those_of_the_issue():
    found = {
        (p.name, str(target)): p.error_bound for p in randomized.PROBLEMS for target in p.targets
    }
    assert len(found) == 8
    for (name, _), bound in found.items():
        assert bound is not None
        if name.startswith("lstsq"):
            assert bound <= 10 * 2.0**-53
        if name.startswith("pinv"):
            assert bound <= 1e-9


@pytest.fixture(scope="module")
def made():
    """Inputs and references, made once."""
    kept = {}

    def get(problem):
        if problem.name not in kept:
            arrays = problem.make()
            kept[problem.name] = arrays, problem.reference(arrays)
        return kept[problem.name]

    return get


@pytest.mark.filterwarnings("ignore")  # of peers
@pytest.mark.parametrize(
    ("problem", "peer"),
    [
        pytest.param(p, q, marks=[pytest.mark.slow] if p in LARGER else [])
        for p in SMALL
        for q in randomized.PEERS
        if q.accepts(p)
    ],
    ids=lambda x: x.name.replace(" ", "-"),
)
def test_contenders_solve_small_copies(problem, peer, made):
    if not peer.available()[0]:
        pytest.skip(peer.available()[1])
    arrays, reference = made(problem)
    before = {key: np.array(x) for key, x in arrays.items()}
    try:
        call = peer.prepare(problem, arrays)
    except Unavailable as missing:
        pytest.skip(str(missing))
    result = call()
    assert all((arrays[key] == x).all() for key, x in before.items())
    if peer.yardstick:
        return
    error = problem.error(peer.export(result), reference)
    assert error >= 0
    if peer.name == LINALGK:
        assert error <= problem.error_bound
    else:
        # nobody is given settings with which there is no answer
        loose = 1.0 if problem.function != "lstsq" else 1e-6
        assert error <= max(loose, problem.error_bound)


@pytest.mark.parametrize("problem", [p for p in SMALL if p not in LARGER], ids=lambda p: p.name)
def test_judges_tell_right_from_wrong(problem, made):
    arrays, reference = made(problem)
    ours = next(p for p in randomized.PEERS if p.name == LINALGK)
    answer = np.array(ours.export(ours.prepare(problem, arrays)()), np.float64)
    packed = problem.function in ("qr_pivoted", "cholqr")  # the last row is a permutation
    body = answer[:-1] if packed else answer
    with np.errstate(invalid="ignore"):
        body *= 2.5
        assert not problem.error(answer, reference) <= problem.error_bound
        body /= 2.5
        body.flat[0] = np.nan
        assert not problem.error(answer, reference) <= problem.error_bound


def test_matrices_have_the_singular_values_that_were_asked_for():
    s = problems.powers(12)
    a = problems.with_spectrum(30, 12, s)
    assert np.abs(np.linalg.svd(a, compute_uv=False) - s).max() < 1e-14
    u, values, vh = np.linalg.svd(a, full_matrices=False)
    k = 4
    error = problems.excess(s, 30, k)
    best = np.concatenate([u[:, :k] * values[:k], vh[:k].T])
    assert error(best, None) < 1e-12
    worse = np.concatenate([u[:, :k] * values[:k] * 1.1, vh[:k].T])
    wanted = np.linalg.norm(a - worse[:30] @ worse[30:].T) / np.linalg.norm(s[k:]) - 1
    assert error(worse, None) == pytest.approx(wanted, rel=1e-10)
    symmetric = problems.with_spectrum(20, 20, problems.powers(20), (1, 1))
    assert np.abs(symmetric - symmetric.T).max() < 1e-15
    a, s, v = problems.conditioned(200, 5, 1e6)
    assert np.abs(np.linalg.svd(a, compute_uv=False) - s).max() < 1e-14
    assert np.abs(np.linalg.norm(a @ v, axis=0) - s).max() < 1e-14


def test_the_backward_error_is_that_of_karlson_and_walden():
    """Within its factors of the exact one of one column's perturbation, by Waldén's formula."""
    a, s, v = problems.conditioned(40, 4, 100)
    b = np.random.default_rng(0).standard_normal(40)
    x = np.linalg.lstsq(a, b)[0]
    rounding = problems.backward_error(x, {"a": a, "b": b, "s": s, "v": v})
    assert rounding < 10 * problems.ROUNDING
    for size in (1e-10, 1e-5, 1e-2):
        y = x + size * np.random.default_rng(1).standard_normal(4)
        r = b - a @ y
        length = np.linalg.norm(y)
        # the least singular value of [A, ||r||/||y|| (I - r r^+)], or ||r||/||y||
        shift = np.linalg.norm(r) / length
        project = np.eye(40) - np.outer(r, r) / (r @ r)
        least = np.linalg.svd(np.hstack([a, shift * project]), compute_uv=False)[-1]
        exact = min(shift, least) / np.linalg.norm(a)
        found = problems.backward_error(y, {"a": a, "b": b, "s": s, "v": v})
        # the estimate over the exact one lies within [1, sqrt(2)] or so (Gratton et al. 2012)
        assert exact / 1.01 <= found * 1.5
        assert found <= 1.5 * exact


def test_the_grid_has_its_eigenvalues():
    a = problems.grid(4).toarray()
    levels = np.sort(problems._levels(4).reshape(-1))
    assert np.abs(np.linalg.eigvalsh(a) - levels).max() < 1e-13

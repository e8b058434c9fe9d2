"""Each barrier of each kernel taken away: the emulation has to find every one of these races."""

import re

import cuda_on_cpu
import emulated
import numpy as np
import pytest
from linalgk_kernels import cuda
from linalgk_kernels.cuda import (
    kronecker_product,
    sketch_hadamard,
    sketch_stack,
    tensor_evaluate,
)

from linalgk.matfun import _ops

BARRIER = re.compile(r"\b(?:team\.sync|__syncthreads)\(\);")


def barriers():
    """The barriers that kernels call; what reductions and teams are made of is common.cuh's."""
    for path in sorted(cuda.FOLDER.glob("*.cu*")):
        if path.name in ("lk_ptx.cuh", "common.cuh"):
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if BARRIER.search(line):
                yield pytest.param(path.name, number, id=f"{path.name}:{number}")


def without(text, name, number):
    """The source without the barrier on a line of a file."""
    current, at, lines = "", 0, []
    for line in text.splitlines():
        marker = re.match(r'#line (\d+) "([^"]+)"', line)
        if marker:
            current, at = marker[2], int(marker[1]) - 1
        elif (current, at) == (name, number):
            line = BARRIER.sub("", line)
        at += 1
        lines.append(line)
    return "\n".join(lines) + "\n"


def exercise():
    """Every kernel, by warps and by blocks, iteration and rotations, twice for each team."""
    from linalgk.matfun._paths import steps_table
    from linalgk.matfun._roots import SQUARE_ROOT

    rng = np.random.default_rng(0)
    roots = _ops.SMALL_ROOT.implementations[-1].load("every_root")
    table = steps_table("float64", SQUARE_ROOT)
    for n in (7, 36):
        q, _ = np.linalg.qr(rng.standard_normal((n, n)))
        one = (q * np.geomspace(0.01, 1, n)) @ q.T
        hard = (q * np.geomspace(1e-12, 1, n)) @ q.T
        # more members than teams, so that buffers are used again
        a = np.stack([one, hard, one, hard, one, hard])
        a = 0.5 * (a + a.swapaxes(-1, -2))
        roots(a, *SQUARE_ROOT.factors, table, 1e-8, 1)
    x = rng.standard_normal((2, 40, 40))
    _ops.HERMITIAN_SCAN.implementations[-1].load()(x, 1)
    _ops.SYMMETRISED.implementations[-1].load()(x, 1)
    h = np.array([[0, 5], [3, 6], [1, 4]] * 30, np.uint32)
    sketch_stack.stack_apply(rng.standard_normal((90, 2)), h, 4, sketch_stack.BLOCK - 40, 1.0, 1)
    sketch_hadamard.fwht(rng.standard_normal((300, 16, 1)), 1.0, 1)
    for p, q in ((8, 8), (70, 66)):
        factors = (rng.standard_normal((1, 9, 9)), rng.standard_normal((1, p, q)))
        kronecker_product.kron_matmul(rng.standard_normal((3, 9 * q, 1)), factors, 1)
    factors = tuple(rng.standard_normal((5, r)) for r in (9, 2))
    x = rng.uniform(-1, 1, (2, 100))
    tensor_evaluate.tucker_evaluate(x, rng.standard_normal((9, 2)), factors)


@pytest.fixture
def one_block(monkeypatch):
    """One block and one multiprocessor, so that every buffer is used more than once."""
    monkeypatch.setattr("linalgk_kernels.cuda.matfun_roots.MOST_BLOCKS", 1)
    monkeypatch.setattr(cuda, "BLOCKS_EACH", 1)
    with emulated.device(mode="check") as device:
        device.layer.multiprocessors = 1
        yield device


@pytest.mark.parametrize(("name", "number"), list(barriers()))
def test_no_barrier_can_go(monkeypatch, one_block, name, number):
    source = cuda.source
    monkeypatch.setattr(cuda, "source", lambda stem: without(source(stem), name, number))
    # an index that is not there yet leads past the end before anyone notices the race
    with pytest.raises(cuda_on_cpu.DeviceError, match=r"race on|nobody wrote|past the end"):
        exercise()


def test_the_exercise_passes_with_all_of_them(one_block):
    exercise()
    assert set(one_block.layer.launched) == {
        "root_warp", "root_block", "hermitian_scan", "symmetrise",
        "stack_lists", "stack_sum", "stack_fold", "hadamard_tiles", "kron_tiles", "kron_mode",
        "tucker_points",
    }  # fmt: skip


def test_the_mutation_takes_one_line_away():
    text = cuda.source("matfun_scan")
    cases = [case.values for case in barriers() if case.values[0] == "matfun_scan.cu"]
    assert len(cases) == 2
    for case in cases:
        assert without(text, *case).count("__syncthreads();") == text.count("__syncthreads();") - 1

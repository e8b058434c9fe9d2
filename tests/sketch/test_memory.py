"""What sketches take beyond their data and their result."""

import tracemalloc

import numpy as np
import pytest

import linalgk as lk


def peak(run):
    run()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        result = run()
        return tracemalloc.get_traced_memory()[1] - before - result.nbytes
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_gaussian_sketch_is_never_stored(threads):
    # stored it would take 819 MB; the issue allows 50
    a = np.ones((200_000, 20))
    s = lk.sketch.Gaussian(512, 200_000, rng=0)
    with lk.config_context(num_threads=threads):
        assert peak(lambda: s @ a) < 50e6


def test_a_sparse_stack_takes_the_places_of_some_blocks():
    a = np.ones((400_000, 4))
    s = lk.sketch.SparseStack(1024, 400_000, rng=0)
    # 4 bytes for each of 8 places of 2^17 rows, and what a panel takes
    assert peak(lambda: s @ a) < 4 * 8 * 2**17 + 1e6


def test_rows_in_order_cost_one_result_and_one_block():
    block = 2**14
    s = lk.sketch.SparseStack(64, 40 * block, rng=0)
    acc = s.accumulator(8)
    most = 0
    piece = np.ones((10_000, 8))
    for at in range(0, 40 * block, 10_000):
        rows = piece[: min(10_000, 40 * block - at)]
        acc.update(rows, offset=at)
        most = max(most, acc.nbytes)
    assert most <= 8 * 8 * (64 + block)

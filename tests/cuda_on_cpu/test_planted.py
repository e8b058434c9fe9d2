"""Each kernel of planted/ has one bug, which must be found and told with its line.

With ``-DFIXED`` the same kernel is right, and then nothing may be found. The comment ``// BUG``
marks the line that the message has to name.
"""

import functools
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import cuda_on_cpu

FOLDER = Path(__file__).parent / "planted"
N = 64
IN = np.arange(1, 4 * N + 1, dtype=np.float32)
X = IN[:N]
RACE = r"race on {} memory: {} by thread \d+, {} by (thread \d+|other threads)"
# Which of the two comes second depends on the order; both lines are told.
EITHER = RACE.format("{}", "(read|written)", "(read|written)")
UNWRITTEN = "read of shared memory that nobody wrote in this block"
IN_FLIGHT = "read of shared memory with a cp.async in flight"
ENDLESS = "still running after the time limit: an endless loop?"

# What fast mode makes of a bug where it raises nothing.
WRONG, RIGHT, HIDDEN = "wrong with every seed", "right with every seed", "right with seed 0 only"


@dataclass(frozen=True)
class Bug:
    """A planted bug: ``expected(x)`` is right; ``check`` and ``fast`` are messages or outcomes."""

    name: str
    expected: object
    check: str
    fast: str
    size: int = N  # of both arrays
    block: int = N
    grid: int = 1
    shared_mem: int = 0
    mark: str = "BUG"  # the line that fast mode names
    left: str = ""  # what fast mode says when arrays lie at the closed page below, if not the same

    def line(self, mark):
        lines = (FOLDER / f"{self.name}.cu").read_text().splitlines()
        (number,) = (i for i, line in enumerate(lines, 1) if f"// {mark}" in line)
        return number


def _product(x):
    m = x.reshape(8, 8)
    return (m @ m).ravel()


def _counts(x):
    return x.reshape(-1, 8).sum(axis=0)


def _last_two(x):
    return np.append(x[:3], x[3] + x[2])


BUGS = [
    Bug("barrier_before_use", lambda x: x[::-1], UNWRITTEN, WRONG),
    Bug(
        "barrier_after_use",
        lambda x: 2 * x[::-1] + 1,
        EITHER.format("shared"),
        WRONG,
    ),
    Bug("product_in_place", _product, EITHER.format("shared"), WRONG),
    Bug(
        "order_hidden",
        lambda x: np.append(np.float32(0), x[:-1]),
        RACE.format("shared", "read", "written") + " at order_hidden.cu:5",
        HIDDEN,
    ),
    Bug(
        "other_block",
        _last_two,
        r"race on global memory: read by thread 0, written by thread 0 of another block at ",
        HIDDEN,
        size=4,
        grid=4,
        block=32,
    ),
    Bug(
        "plain_update_shared",
        lambda x: _counts(x),
        EITHER.format("shared"),
        RIGHT,
    ),
    Bug(
        "plain_update_global",
        lambda x: 3 * _counts(x),
        EITHER.format("global"),
        RIGHT,
        grid=3,
    ),
    Bug(
        "atomic_then_plain",
        lambda x: np.full(N, x.sum()),
        RACE.format("shared", "updated by an atomic", "read"),
        WRONG,
    ),
    Bug(
        "store_past",
        lambda x: np.roll(x, 1),
        "4-byte write 0 bytes past the end of argument 1 of 256 bytes",
        "write 0 bytes past the end of argument 1",
        left="a write 0 bytes past the end of argument 1",
    ),
    Bug(
        "store_before",
        lambda x: np.roll(x, -1),
        "4-byte write 4 bytes before the start of argument 1",
        "a write 4 bytes before the start of argument 1",
        mark="",
        left="write 4 bytes before the start of argument 1",
    ),
    Bug(
        "load_past",
        lambda x: x + np.roll(x, -16),
        "4-byte read 0 bytes past the end of argument 0",
        "read 0 bytes past the end of argument 0",
        left=WRONG,
    ),
    Bug(
        "missing_wait",
        lambda x: x[::4],
        IN_FLIGHT,
        "a thread returned with a cp.async in flight that nobody waited for",
        size=4 * N,
        mark="COPY",
    ),
    Bug("wait_leaves_one", lambda x: x[::4], IN_FLIGHT, WRONG, size=4 * N),
    Bug(
        "wait_without_barrier",
        lambda x: x[::-4] - 3,
        f"({IN_FLIGHT}|{UNWRITTEN})",
        WRONG,
        size=4 * N,
    ),
    Bug(
        "copy_misaligned",
        lambda x: x[1::4],
        "cp.async: an address is misaligned: not a multiple of 16",
        "cp.async: an address is misaligned: not a multiple of 16",
        size=4 * N,
    ),
    Bug(
        "store_to_const",
        lambda x: x + 1,
        "write to argument 0, which is const",
        RIGHT,
    ),
    Bug(
        "early_return",
        lambda x: x,
        "__syncthreads: 32 threads wait, 32 have returned",
        "__syncthreads: 32 threads wait, 32 have returned",
    ),
    Bug(
        "two_barriers",
        lambda x: x,
        r"__syncthreads of thread 32, while thread 0 waits at two_barriers.cu:9",
        r"__syncthreads of thread 32, while thread 0 waits at two_barriers.cu:9",
    ),
    Bug(
        "missing_lane",
        lambda x: x.reshape(-1, 2)[:, ::-1].ravel(),
        r"a shuffle \(mask 0xffffffff\) waits for lane 31, which has returned",
        r"a shuffle \(mask 0xffffffff\) waits for lane 31, which has returned",
    ),
    Bug(
        "divergent_shuffle",
        lambda x: x.reshape(-1, 2)[:, ::-1].ravel(),
        r"a shuffle \(mask 0xffffffff\) waits for lane 16, which waits in __syncthreads at "
        r"divergent_shuffle.cu:10",
        r"a shuffle \(mask 0xffffffff\) waits for lane 16, which waits in __syncthreads at "
        r"divergent_shuffle.cu:10",
    ),
    Bug("missing_syncwarp", lambda x: x.reshape(-1, 2)[:, ::-1].ravel(), UNWRITTEN, WRONG),
    Bug(
        "shuffle_is_no_barrier",
        lambda x: x.reshape(-1, 2)[:, ::-1].ravel(),
        RACE.format("shared", "read", "written"),
        RIGHT,
    ),
    Bug(
        "static_overflow",
        lambda x: np.roll(x, -1),
        r"array index out of bounds: 64 in 'float \[64\]'",
        WRONG,
    ),
    Bug(
        "dynamic_overflow",
        lambda x: np.tile(x[:32], 2),
        "4-byte write 0 bytes past the end of the dynamic shared memory of 128 bytes",
        "write 0 bytes past the end of the dynamic shared memory",
        shared_mem=128,
    ),
    Bug(
        "misaligned",
        lambda x: x[1 : 2 * N : 2] + x[2 : 2 * N + 1 : 2],
        "misaligned address for .*float2.*: not a multiple of 8",
        RIGHT,
        size=4 * N,
    ),
    Bug("endless", lambda x: x, ENDLESS, ENDLESS),
    Bug("deep_stack", lambda x: np.full(N, x.sum()), "stack overflow", "stack overflow", mark=""),
    Bug("trap", lambda x: x, r"__trap\(\) \[block 0,0,0 thread 5,0,0\]", r"__trap\(\)"),
    Bug(
        "zero_divisor",
        lambda x: x + N // np.arange(1, N + 1),
        "integer division by zero",
        "integer division by zero",
    ),
    Bug(
        "null_pointer",
        lambda x: x,
        "(4-byte read|access) through a null pointer",
        "read through a null pointer",
    ),
]


@functools.cache
def module(fixed, mode):
    """All of planted/ as one module, so that there are four to compile and not a hundred."""
    cuda_on_cpu.require()
    parts = [
        f'#line 1 "{bug.name}.cu"\n{(FOLDER / bug.name).with_suffix(".cu").read_text()}'
        for bug in BUGS
    ]
    options = ("-DFIXED",) if fixed else ()
    return cuda_on_cpu.RawModule(code="\n".join(parts), options=options, mode=mode, timeout=0.3)


def run(bug, *, fixed, mode, seed=0, flush="right"):
    """The output, as far as it is compared."""
    m = module(fixed, mode)
    m.seed, m.flush = seed, flush
    x = IN[: bug.size].copy()
    expected = bug.expected(x)
    out = np.zeros(expected.size, np.float32)
    last = None if bug.name == "null_pointer" else np.int32(min(bug.size, N))
    function = m.get_function(bug.name)
    function((bug.grid,), (bug.block,), (x, out, last), shared_mem=bug.shared_mem)
    return out, expected


def names(bug):
    return bug.name


def test_every_planted_file_is_listed():
    assert {path.stem for path in FOLDER.glob("*.cu")} == {bug.name for bug in BUGS}


@pytest.mark.parametrize("bug", BUGS, ids=names)
def test_check_finds_it_and_names_its_line(bug):
    with pytest.raises(cuda_on_cpu.DeviceError) as error:
        run(bug, fixed=False, mode="check")
    message = str(error.value)
    # The probe of the stack belongs to the function's first line, and with clang to none.
    if bug.name == "deep_stack":
        assert re.match(rf"({bug.name}\.cu:\d+|\(unknown place\)): {bug.check}", message), message
    else:
        assert re.match(rf"{bug.name}\.cu:\d+: {bug.check}", message), message
        assert re.search(rf"{bug.name}\.cu:{bug.line('BUG')}\b", message), message


@pytest.mark.parametrize("flush", ["right", "left"])
@pytest.mark.parametrize("bug", BUGS, ids=names)
def test_fast_finds_what_it_can(bug, flush):
    outcome = bug.left if flush == "left" and bug.left else bug.fast
    seeds = (0, 1, 2) if outcome in (WRONG, RIGHT, HIDDEN) else (0,)
    for seed in seeds:
        if outcome in (WRONG, RIGHT, HIDDEN):
            out, expected = run(bug, fixed=False, mode="fast", seed=seed, flush=flush)
            right = np.array_equal(out, expected)
            assert right == (outcome == RIGHT or (outcome == HIDDEN and seed == 0))
            continue
        with pytest.raises(cuda_on_cpu.DeviceError) as error:
            run(bug, fixed=False, mode="fast", seed=seed, flush=flush)
        message = str(error.value)
        # Canaries are looked at when the kernel has ended, so there is no line to tell.
        known = not outcome.startswith("a write") and bug.name != "deep_stack"
        mark = "BUG" if flush == "left" and bug.left else bug.mark
        place = (
            rf"{bug.name}\.cu:{bug.line(mark)}: "
            if known
            else r"((\w+\.cu:\d+|\(unknown place\)): )?"
        )
        assert re.match(place + outcome, message), message


@pytest.mark.parametrize("mode", ["fast", "check"])
@pytest.mark.parametrize("bug", BUGS, ids=names)
def test_without_the_bug_nothing_is_found(bug, mode):
    for seed in (0, 1, 2):
        for flush in ("right", "left"):
            out, expected = run(bug, fixed=True, mode=mode, seed=seed, flush=flush)
            np.testing.assert_array_equal(out, expected)

"""Fast Walsh-Hadamard transform along an axis, and the SRHT of one block of rows.

An array (outer, n, inner) is transformed in stages of ascending stride: (x, y) -> (x + y, x - y).
Several stages at once run in registers: `_group` takes up to 16 rows of any distance, `_first` the
strides within a chunk of contiguous elements, by shuffles. A group of rows is transformed to its
end before the next begins, so that a block of any size stays in the cache that holds it. Only
additions, each the same whatever is fused: the bits depend on no choice made here. Floor: log2(n)
additions an element, one read and one write of memory, and another for every three stages beyond
what the last cache holds.
"""

import functools

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ._preset import helper, njit
from ._simd import BYTES, _data, _for_size, _ir, aligned, allocate, compact, release
from ._threads import run

# Stages of a group at most: its rows fill half of the registers.
RADIX = 4 if BYTES == 64 else 3
# Registers that `_first` takes.
CHUNK = 1 << RADIX
# Stages of a group beyond the first-level cache: sixteen rows at distances of a power of two would
# compete for the twelve places that such a cache has for them.
DIRECT = 3
# Columns that are one piece of work where threads share a level, and bytes of a panel's row in
# `srht`: wide enough for the memory, narrow enough for 2^14 rows to stay in a cache.
PIECE, PANEL = 1024, 256
# Bytes up to which one thread is enough, and from which on threads share a transform, although
# each level then waits for all of them.
ALONE, SHARED = 1 << 20, 1 << 23


def _function(context, builder, kind, name, arguments, emit):
    """An internal function of the caller's module, compiled once; arguments are IR types."""
    name = f"linalgk.{name}.{kind.dtype}"
    function = builder.module.globals.get(name)
    if function is None:
        function = ir.Function(builder.module, ir.FunctionType(ir.VoidType(), arguments), name)
        function.linkage = "internal"
        _for_size(function)
        body = ir.IRBuilder(function.append_basic_block())
        emit(context, body, kind, function.args)
        body.ret_void()
    return function


def _stage(builder, values, h):
    """A stage between whole values ``h`` apart."""
    for i in range(len(values)):
        if not i & h:
            a, b = values[i], values[i + h]
            values[i], values[i + h] = builder.fadd(a, b), builder.fsub(a, b)


def _splat(builder, kind, value):
    vector = _ir(kind.dtype)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.IntType(32)(0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), None)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), mask)


def _emit_group(stages, signed):
    def emit(context, builder, kind, args):
        source, step, target, stride, width, last = args
        vector, intp = _ir(kind.dtype), width.type
        align, count = kind.dtype.bitwidth // 8, 1 << stages
        factors = [last]
        if signed:
            one, zero = ir.Constant(vector.element, 1), ir.Constant(ir.IntType(8), 0)
            bits = [builder.load(builder.gep(last, [intp(i)])) for i in range(count)]
            plus = [builder.icmp_unsigned("==", bit, zero) for bit in bits]
            factors = [builder.select(p, one, ir.Constant(one.type, -1)) for p in plus]
        wide = [_splat(builder, kind, f) for f in factors]

        def columns(c, unit, factors):
            def rows(base, distance):
                starts = [base]
                for i in range(1, count):
                    starts.append(builder.gep(base, [builder.mul(intp(i), distance)]))
                return [builder.bitcast(builder.gep(r, [c]), unit.as_pointer()) for r in starts]

            values = [builder.load(place, align=align) for place in rows(source, step)]
            if signed:
                values = [builder.fmul(v, f) for v, f in zip(values, factors, strict=True)]
            for k in range(stages):
                _stage(builder, values, 1 << k)
            if not signed:
                values = [builder.fmul(v, factors[0]) for v in values]
            for v, place in zip(values, rows(target, stride), strict=True):
                builder.store(v, place, align=align)

        lanes = intp(vector.count)
        whole = builder.and_(width, intp(-vector.count))
        with cgutils.for_range_slice(builder, intp(0), whole, lanes, intp) as (c, _):
            columns(c, vector, wide)
        with cgutils.for_range_slice(builder, whole, width, intp(1), intp) as (c, _):
            columns(c, vector.element, factors)

    return emit


def _call_group(context, builder, sig, args, last, signed):
    """A call of the function that has as many stages as the last argument says."""
    kind = sig.args[3]
    element, intp = _ir(kind.dtype).element, args[1].type
    source = builder.gep(_data(context, builder, sig.args[0], args[0]), [args[1]])
    target = builder.gep(_data(context, builder, kind, args[3]), [args[4]])
    values = [source, args[2], target, args[5], args[6], last]
    place = element.as_pointer()
    arguments = [place, intp, place, intp, intp, last.type]
    done = builder.append_basic_block("done")
    switch = builder.switch(args[-1], done)
    for r in range(RADIX + 1):
        block = builder.append_basic_block(f"stages{r}")
        switch.add_case(intp(r), block)
        builder.position_at_end(block)
        name, emit = f"hadamard_group{r}_{int(signed)}", _emit_group(r, signed)
        builder.call(_function(context, builder, kind, name, arguments, emit), values)
        builder.branch(done)
    builder.position_at_end(done)
    return context.get_dummy_value()


@intrinsic
def _group(typingctx, source, at, step, target, to, stride, width, scale, stages):
    """``stages`` stages between rows of ``width`` elements, the first of them at ``at``.

    Rows are ``step`` elements apart in the source and ``stride`` in the target, where they are
    multiplied by ``scale``.
    """

    def codegen(context, builder, sig, args):
        scale = context.cast(builder, args[7], types.float64, sig.args[3].dtype)
        return _call_group(context, builder, sig, args, scale, False)

    intp = types.intp
    signature = types.none(source, intp, intp, target, intp, intp, intp, types.float64, intp)
    return signature, codegen


@intrinsic
def _signed_group(typingctx, source, at, step, target, to, stride, width, flips, row, stages):
    """`_group` of rows that are first negated where ``flips`` has a one, from ``row`` on."""

    def codegen(context, builder, sig, args):
        bits = builder.gep(_data(context, builder, sig.args[7], args[7]), [args[8]])
        return _call_group(context, builder, sig, args, bits, True)

    intp = types.intp
    return types.none(source, intp, intp, target, intp, intp, intp, flips, intp, intp), codegen


@intrinsic
def _negated(typingctx, source, at, target, count, flips, row):
    """Contiguous elements, negated where ``flips`` has a one."""

    def codegen(context, builder, sig, args):
        kind = sig.args[2]
        vector, intp = _ir(kind.dtype), args[1].type
        whole = ir.VectorType(ir.IntType(kind.dtype.bitwidth), vector.count)
        octets = ir.VectorType(ir.IntType(8), vector.count)
        source = builder.gep(_data(context, builder, sig.args[0], args[0]), [args[1]])
        bits = builder.gep(_data(context, builder, sig.args[4], args[4]), [args[5]])
        top = ir.Constant(whole.element, kind.dtype.bitwidth - 1)
        lift = ir.Constant(whole, [top] * vector.count)
        full = builder.and_(args[3], intp(-vector.count))
        step = intp(vector.count)

        def at(base, c, type_):
            return builder.bitcast(builder.gep(base, [c]), type_.as_pointer())

        for start, stop, by, unit, sign, bit, up in (
            (intp(0), full, step, vector, whole, octets, lift),
            (full, args[3], intp(1), vector.element, whole.element, octets.element, top),
        ):
            with cgutils.for_range_slice(builder, start, stop, by, intp) as (c, _):
                value = builder.load(at(source, c, unit), align=kind.dtype.bitwidth // 8)
                flip = builder.shl(builder.zext(builder.load(at(bits, c, bit), align=1), sign), up)
                value = builder.xor(builder.bitcast(value, sign), flip)
                place = at(args[2], c, unit)
                builder.store(builder.bitcast(value, unit), place, align=kind.dtype.bitwidth // 8)
        return context.get_dummy_value()

    intp = types.intp
    return types.none(source, intp, target, intp, flips, intp), codegen


def _emit_first(context, builder, kind, args):
    source, target, chunks, skip, stop, scale = args
    vector, intp = _ir(kind.dtype), chunks.type
    lanes, bits = vector.count, kind.dtype.bitwidth
    whole = ir.VectorType(ir.IntType(bits), lanes)
    splat = _splat(builder, kind, scale)
    undefined = ir.Constant(vector, ir.Undefined)
    width = CHUNK * lanes
    place = [cgutils.alloca_once(builder, vector) for _ in range(CHUNK)]

    def column(pointer, k):
        return builder.bitcast(builder.gep(pointer, [intp(k * lanes)]), vector.as_pointer())

    def within(value, h):
        """A stage of stride h between lanes."""
        order = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [k ^ h for k in range(lanes)])
        swapped = builder.shuffle_vector(value, undefined, order)
        signs = [-(1 << (bits - 1)) if k & h else 0 for k in range(lanes)]
        flipped = builder.xor(builder.bitcast(value, whole), ir.Constant(whole, signs))
        return builder.fadd(swapped, builder.bitcast(flipped, vector))

    with cgutils.for_range(builder, chunks) as loop:
        offset = builder.mul(loop.index, intp(width))
        here, there = builder.gep(source, [offset]), builder.gep(target, [offset])
        for k in range(CHUNK):
            builder.store(builder.load(column(here, k), align=bits // 8), place[k])
        for t in range(width.bit_length() - 1):
            h = 1 << t
            wanted = builder.and_(
                builder.icmp_signed("<=", skip, intp(t)), builder.icmp_signed(">", stop, intp(t))
            )
            with builder.if_then(wanted, likely=True):
                values = [builder.load(p) for p in place]
                if h < lanes:
                    values = [within(v, h) for v in values]
                else:
                    _stage(builder, values, h // lanes)
                for v, p in zip(values, place, strict=True):
                    builder.store(v, p)
        for k in range(CHUNK):
            value = builder.fmul(builder.load(place[k]), splat)
            builder.store(value, column(there, k), align=bits // 8)


@intrinsic
def _first(typingctx, source, at, target, to, chunks, skip, stop, scale):
    """Stages ``skip`` to ``stop`` of whole chunks of contiguous elements, CHUNK registers each."""

    def codegen(context, builder, sig, args):
        kind = sig.args[2]
        element, intp = _ir(kind.dtype).element, args[1].type
        arguments = [element.as_pointer(), element.as_pointer(), intp, intp, intp, element]
        function = _function(context, builder, kind, "hadamard_first", arguments, _emit_first)
        source = builder.gep(_data(context, builder, sig.args[0], args[0]), [args[1]])
        target = builder.gep(_data(context, builder, kind, args[2]), [args[3]])
        scale = context.cast(builder, args[7], types.float64, kind.dtype)
        builder.call(function, [source, target, *args[4:7], scale])
        return context.get_dummy_value()

    intp = types.intp
    return types.none(source, intp, target, intp, intp, intp, intp, types.float64), codegen


@intrinsic
def _pointer(typingctx, like, address):
    """Memory at an address, in the dtype of ``like``: a read-only array would be another type."""

    def codegen(context, builder, sig, args):
        return builder.inttoptr(args[1], context.get_value_type(sig.return_type))

    return types.CPointer(like.dtype)(like, types.intp), codegen


@helper
def _climb(out, levels, k, inner, scale, end):
    """From level k on, those whose group of rows is complete at element ``end``."""
    compact()
    while k < levels.shape[0]:
        length = inner << levels[k, 0]
        size = length << levels[k, 1]
        if end % size:
            return
        factor = scale if k == levels.shape[0] - 1 else 1.0
        _group(out, end - size, length, out, end - size, length, length, factor, levels[k, 1])
        k += 1


@helper
def _line(x, out, begin, end, skip, first, scale, chunk, buffer):
    """Transforms that a chunk holds whole, one after the other."""
    compact()
    whole = (end - begin) // chunk
    _first(x, begin, out, begin, whole, skip, first, scale)
    begin += whole * chunk
    for i in range(end - begin):
        buffer[i] = x[begin + i]
    for i in range(end - begin, chunk):
        buffer[i] = 0
    if begin < end:
        _first(buffer, 0, buffer, 0, 1, skip, first, scale)
    for i in range(end - begin):
        out[begin + i] = buffer[i]


@njit
def _units(address, out, levels, leaf, inner, scale, unit, start, stop):
    """Units ``start`` to ``stop`` of ``unit`` elements each, through all the levels.

    leaf : (skip, first, second, chunk). Within chunks of so many elements stages ``skip`` to
        ``first`` by `_first`, then ``second`` between chunks; without ``first`` none.
    levels : (levels, 2) of the stages before each level and its own.
    """
    compact()
    x = _pointer(out, address)
    skip, first, second, chunk = leaf
    block = allocate(out, (chunk << second) + 16)
    buffer = aligned(block)
    begin = start * unit
    finish = min(stop * unit, out.size)
    if first and second == 0:
        _line(x, out, begin, finish, skip, first, scale, chunk, buffer)
        begin = finish
    small = chunk << second if first else inner << levels[0, 1]
    alone = levels.shape[0] == (0 if first else 1)
    factor = scale if alone else 1.0
    for at in range(begin, finish, small):
        if first:
            _first(x, at, buffer, 0, 1 << second, skip, first, 1.0)
            _group(buffer, 0, chunk, out, at, chunk, chunk, factor, second)
            _climb(out, levels, 0, inner, scale, at + small)
        else:
            _group(x, at, inner, out, at, inner, inner, factor, levels[0, 1])
            _climb(out, levels, 1, inner, scale, at + small)
    release(block)


@njit
def _across(address, out, length, stages, scale, start, stop):
    """One level by itself: pieces ``start`` to ``stop`` of the columns of all groups of rows."""
    compact()
    x = _pointer(out, address)
    pieces = -(-length // PIECE)
    for item in range(start, stop):
        column = item % pieces * PIECE
        at = (item // pieces) * (length << stages) + column
        width = min(PIECE, length - column)
        _group(x, at, length, out, at, length, width, scale, stages)


@helper
def _signed(x, base, step, flips, row, width, buffer, small):
    """Rows from ``row`` on with their signs, zeros where there are no more."""
    compact()
    count = max(min(small // width, flips.size - row), 0)
    if width == 1 and step == 1:
        _negated(x, base + row, buffer, count, flips, row)
        for i in range(count, small):
            buffer[i] = 0
        return
    for i in range(count):
        at = base + (row + i) * step
        flip = flips[row + i]
        for c in range(width):
            buffer[i * width + c] = -x[at + c] if flip else x[at + c]
    for i in range(count * width, small):
        buffer[i] = 0


@njit
def _blocks(
    address, flips, out, picks, outs, steps, powers, add, levels, leaf, inner, width, start, stop
):  # fmt: skip
    """Panels ``start`` to ``stop`` of ``width`` columns: signs, transform, sampled rows.

    steps : elements between the rows of x, between its panels, between the rows of out, and where
        the first panel stands in a row of out.
    powers : (p, q); x is padded to 2^p rows, and those to the 2^q of the transform.
    levels, leaf, inner : as for `_units`.
    """
    compact()
    x = _pointer(out, address)
    p, q = powers
    skip, first, second, chunk = leaf
    small = chunk << second if first else width << levels[0, 1]
    size = width << p
    block, panel = allocate(out, small + 16), allocate(out, max(size, small) + 16)
    buffer, work = aligned(block), aligned(panel)
    one = out.dtype.type(1)
    nothing = out.dtype.type(0)
    for item in range(start, stop):
        for at in range(0, size, small):
            row = at // width
            whole = not first and row + (1 << levels[0, 1]) <= flips.size
            if not whole:
                _signed(x, item * steps[1], steps[0], flips, row, width, buffer, small)
            if first:
                _first(buffer, 0, buffer, 0, 1 << second, skip, first, 1.0)
                _group(buffer, 0, chunk, work, at, chunk, chunk, 1.0, second)
                _climb(work, levels, 0, inner, 1.0, at + small)
                continue
            if whole:
                base = item * steps[1] + row * steps[0]
                _signed_group(
                    x, base, steps[0], work, at, width, width, flips, row, levels[0, 1]
                )  # fmt: skip
            else:
                _group(buffer, 0, width, work, at, width, width, 1.0, levels[0, 1])
            _climb(work, levels, 1, inner, 1.0, at + small)
        for r in range(picks.size):
            at = (picks[r] & ((1 << p) - 1)) * width
            to = r * steps[2] + steps[3] + item * width
            # stages with rows of padding: v - 0 is v, and v + 0 is v unless v is -0
            zero = -nothing if picks[r] >> p == (1 << (q - p)) - 1 else nothing
            sign = -one if outs[r] else one
            for c in range(width):
                value = (work[at + c] + zero) * sign
                out[to + c] = out[to + c] + value if add else value
    release(block)
    release(panel)


@functools.lru_cache(256)
def _schedule(stages, inner, size):
    """``(levels, leaf, inner)`` for `_units` and elements of ``size`` bytes.

    Rows no wider than a register, of a power of two, are taken as one line with a leaf.
    """
    lanes = BYTES // size
    skip = inner.bit_length() - 1
    contiguous = inner <= lanes and inner == 1 << skip and stages
    if contiguous:
        # the strides below `inner` are left out of a transform of everything
        stages, inner = stages + skip, 1
        first = min(stages, (CHUNK * lanes).bit_length() - 1)
        second = min(stages - first, RADIX)
        before = first + second
    else:
        first = second = before = 0
    counts = []
    if not contiguous and inner % lanes and stages:
        # after as many stages as a register has lanes, rows are whole registers
        counts.append(min(stages, lanes.bit_length() - 1))
    rest = stages - before - sum(counts)
    rounds = -(-rest // DIRECT)
    counts += [rest // rounds + (k < rest % rounds) for k in range(rounds)]
    if not contiguous and not counts:
        counts = [0]
    table = [(before + sum(counts[:k]), count) for k, count in enumerate(counts)]
    levels = np.array(table, np.int64).reshape(-1, 2)
    return levels, (skip, first, second, CHUNK * lanes), inner


def _flat(x):
    """As one line of real numbers."""
    line = x.reshape(-1)
    return line.view(line.real.dtype)


def fwht(x, scale, threads):
    """See ``fwht`` in ``linalgk/sketch/_ops.py``."""
    out = np.empty(x.shape, x.dtype)
    outer, n, inner = x.shape
    if not x.size:
        return out
    line = _flat(out)
    inner *= line.size // x.size
    levels, leaf, inner = _schedule(n.bit_length() - 1, inner, line.itemsize)
    threads = threads if line.nbytes >= ALONE else 1
    # what a thread takes to its end, and how many levels that is
    unit, inside = line.size // outer, len(levels)
    if leaf[1] and not leaf[2]:
        unit = leaf[3]
    elif outer % threads and outer < 8 * threads and line.nbytes >= SHARED:
        ends = [leaf[3] << leaf[2] if leaf[1] else 1]
        ends += [inner << int(before + count) for before, count in levels]
        units = [line.size // end for end in ends]
        even = [k for k, count in enumerate(units) if count % threads == 0 or count >= 8 * threads]
        inside = max(even, default=0)
        unit = ends[inside]
    address = x.ctypes.data
    if inside or leaf[1]:
        factor = scale if inside == len(levels) else 1.0
        rest = address, line, levels[:inside], leaf, inner, factor, unit
        _units(*rest, 0, 0)
        run(lambda start, stop: _units(*rest, start, stop), -(-line.size // unit), threads)
        address = line.ctypes.data
    for k in range(inside, len(levels)):
        before, count = map(int, levels[k])
        length, factor = inner << before, scale if k + 1 == len(levels) else 1.0
        more = address, line, length, count, factor
        _across(*more, 0, 0)
        items = line.size // (length << count) * -(-length // PIECE)
        run(lambda start, stop, more=more: _across(*more, start, stop), items, threads)
        address = line.ctypes.data
    return out


def srht(x, flips, picks, outs, power, threads, total=None):
    """See ``srht`` in ``linalgk/sketch/_ops.py``; x in C or F order."""
    rows, columns = x.shape
    planes = 2 if x.dtype.kind == "c" else 1
    by_column = not x.flags.c_contiguous and x.flags.f_contiguous
    out = np.empty((len(picks), columns), x.dtype) if total is None else total
    if not out.size:
        return out
    source = x if by_column else np.ascontiguousarray(x)
    padded = min(max(rows - 1, 0).bit_length(), power)
    flips, outs = (np.require(bits, np.uint8, "CW") for bits in (flips, outs))
    picks = np.require(picks, np.int64, "CW")
    line, wide = _flat(out), columns * planes
    threads = threads if rows * wide >= 1 << 15 else 1

    def panels(begin, width, count, row, panel):
        levels, leaf, inner = _schedule(padded, width, line.itemsize)
        rest = (
            source.ctypes.data + begin * line.itemsize, flips, line, picks, outs,
            (row, panel, wide, begin), (padded, power), total is not None, levels, leaf, inner,
            width,
        )  # fmt: skip
        _blocks(*rest, 0, 0)
        run(lambda start, stop: _blocks(*rest, start, stop), count, threads)

    if by_column:
        panels(0, planes, columns, planes, rows * planes)
        return out
    # narrower panels for more threads, but not less than a line of the cache
    width = max(min(PANEL, -(-wide // threads) * line.itemsize), 64) // line.itemsize
    width = min(width, wide)
    count = wide // width
    panels(0, width, count, wide, width)
    if wide % width:
        panels(count * width, wide % width, 1, wide, 0)
    return out

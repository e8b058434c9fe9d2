"""Small matrix products C = A B of any strides: entries of A broadcast, rows of B and C vectors.

One register block for all shapes, a loop over the inner index and nothing packed. Numba's cache
does not see edits of this file in the kernels that use it: after editing, remove the cached files
(``linalgk info`` says where they are).
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ._simd import BYTES, _fma, _for_size, _ir

# Rows and vectors of the register block: 16 sums of 32 registers, or 8 of 16.
ROWS = 8 if BYTES == 64 else 4
VECTORS = 2


def _intrinsic_of(builder, name, result, arguments, values):
    kind = ir.FunctionType(result, arguments)
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), values)


def _suffix(vector):
    return f"v{vector.count}{'f32' if isinstance(vector.element, ir.FloatType) else 'f64'}"


class _Lanes:
    """Loads and stores of whole vectors, or of the first ``count`` lanes of one."""

    def __init__(self, builder, vector, width, count=None):
        self.builder, self.vector, self.width = builder, vector, width
        self.mask = None
        if count is not None:
            i32 = ir.IntType(32)
            lanes = ir.Constant(ir.VectorType(i32, vector.count), list(range(vector.count)))
            one = ir.Constant(lanes.type, ir.Undefined)
            one = builder.insert_element(one, builder.trunc(count, i32), i32(0))
            zeros = ir.Constant(ir.VectorType(i32, vector.count), None)
            wide = builder.shuffle_vector(one, ir.Constant(lanes.type, ir.Undefined), zeros)
            self.mask = builder.icmp_signed("<", lanes, wide)

    def _place(self, base, offset):
        return self.builder.bitcast(self.builder.gep(base, [offset]), self.vector.as_pointer())

    def load(self, base, offset):
        place = self._place(base, offset)
        if self.mask is None:
            return self.builder.load(place, align=self.width)
        name = f"llvm.masked.load.{_suffix(self.vector)}.p0{_suffix(self.vector)}"
        i32 = ir.IntType(32)
        return _intrinsic_of(
            self.builder, name, self.vector, [place.type, i32, self.mask.type, self.vector],
            [place, i32(self.width), self.mask, ir.Constant(self.vector, None)],
        )  # fmt: skip

    def store(self, base, offset, value):
        place = self._place(base, offset)
        if self.mask is None:
            self.builder.store(value, place, align=self.width)
            return
        name = f"llvm.masked.store.{_suffix(self.vector)}.p0{_suffix(self.vector)}"
        i32 = ir.IntType(32)
        _intrinsic_of(
            self.builder, name, ir.VoidType(), [self.vector, place.type, i32, self.mask.type],
            [value, place, i32(self.width), self.mask],
        )  # fmt: skip


def _splat(builder, vector, value):
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.IntType(32)(0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), None)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), mask)


def _exchanged(builder, value):
    """Real and imaginary parts in each other's place."""
    lanes = [i ^ 1 for i in range(value.type.count)]
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes)
    return builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), mask)


def _alternating(vector):
    return ir.Constant(vector, [-1.0 if i % 2 == 0 else 1.0 for i in range(vector.count)])


def _emit_tile(builder, kind, rows, vectors, masked, wide, args):
    """``rows`` x ``vectors`` entries of C: one loop over k.

    Of complex numbers, pairs (re, im) in one vector, the parts of A go to sums of their own; the
    second is multiplied by i at the end.
    """
    a, row_step, k_step, b, b_step, k, c, c_step, count = args
    vector, width, intp = _ir(kind.dtype), kind.dtype.bitwidth // 8, k.type
    parts = 2 if wide else 1
    lanes = _Lanes(builder, vector, width, count if masked else None)
    block = [(i, v, part) for i in range(rows) for v in range(vectors) for part in range(parts)]
    total = {key: cgutils.alloca_once(builder, vector) for key in block}
    for key in block:
        builder.store(ir.Constant(vector, None), total[key])
    start = [builder.mul(intp(i), row_step) for i in range(rows)]
    with cgutils.for_range(builder, k) as loop:
        at = builder.mul(loop.index, b_step)
        right = [lanes.load(b, builder.add(at, intp(v * vector.count))) for v in range(vectors)]
        shift = builder.mul(loop.index, k_step)
        for i in range(rows):
            for part in range(parts):
                where = builder.add(builder.add(start[i], shift), intp(part))
                left = _splat(builder, vector, builder.load(builder.gep(a, [where])))
                for v in range(vectors):
                    place = total[i, v, part]
                    builder.store(_fma(builder, left, right[v], builder.load(place)), place)
    for i in range(rows):
        base = builder.mul(intp(i), c_step)
        for v in range(vectors):
            value = builder.load(total[i, v, 0])
            if wide:
                turned = _exchanged(builder, builder.load(total[i, v, 1]))
                value = _fma(builder, turned, _alternating(vector), value)
            lanes.store(c, builder.add(base, intp(v * vector.count)), value)


def _tile_function(module, context, kind, rows, vectors, masked, wide):
    name = f"linalgk.kron{rows}x{vectors}{'m' if masked else ''}{'c' if wide else ''}.{kind.dtype}"
    function = module.globals.get(name)
    if function is None:
        intp = context.get_value_type(types.intp)
        place = _ir(kind.dtype).element.as_pointer()
        arguments = [place, intp, intp, place, intp, intp, place, intp, intp]
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), arguments), name)
        function.linkage = "internal"
        _for_size(function)
        body = ir.IRBuilder(function.append_basic_block())
        _emit_tile(body, kind, rows, vectors, masked, wide, function.args)
        body.ret_void()
    return function


def _strip(builder, context, kind, wide, a, row_step, k_step, b, b_step, k, c, c_step, m, shape, n):
    """All rows of C at ``shape`` = (vectors, masked): whole blocks of rows, then what is left."""
    vectors, masked = shape
    intp = k.type
    rows = ROWS // 2 if wide else ROWS
    # wide strips are for few rows only
    flat = vectors > VECTORS

    def call(builder, r, i):
        function = _tile_function(builder.module, context, kind, r, vectors, masked, wide)
        first = builder.gep(a, [builder.mul(i, row_step)])
        target = builder.gep(c, [builder.mul(i, c_step)])
        builder.call(function, [first, row_step, k_step, b, b_step, k, target, c_step, n])

    zero = intp(0)
    # of narrow strips twice the rows are in flight
    most = 2 * rows if vectors == 1 else rows
    at = builder.and_(m, intp(-most))
    rest = builder.and_(m, intp(rows - 1))
    if vectors == VECTORS:
        # one to three rows alone would wait for each other: they share with the block before
        few = builder.and_(
            builder.icmp_signed(">", rest, zero), builder.icmp_signed("<", rest, intp(rows // 2))
        )
        few = builder.and_(few, builder.icmp_signed(">", at, zero))
        taken = builder.select(few, intp(rows), zero)
        at, rest = builder.sub(at, taken), builder.add(rest, taken)
    if not flat:
        with cgutils.for_range_slice(builder, zero, at, intp(most), intp) as (i, _):
            call(builder, most, i)
    if vectors == 1:
        half = builder.and_(m, intp(rows))
        with builder.if_then(builder.icmp_signed("!=", half, zero)):
            call(builder, rows, at)
        at = builder.add(at, half)
    done = builder.append_basic_block("done")
    switch = builder.switch(rest, done)
    ends = [(r, (r,)) for r in range(1, rows // 2 + 1 if flat else rows)]
    if vectors == VECTORS:
        ends += [(rows + r, ((rows + r + 1) // 2, (rows + r) // 2)) for r in range(1, rows // 2)]
    for r, parts in ends:
        block = builder.append_basic_block(f"rest{r}")
        switch.add_case(intp(r), block)
        builder.position_at_end(block)
        place = at
        for part in parts:
            call(builder, part, place)
            place = builder.add(place, intp(part))
        builder.branch(done)
    builder.position_at_end(done)


def _emit_product(context, builder, kind, wide, args):
    a, row_step, k_step, b, b_step, k, c, c_step, m, n, panel = args
    vector, intp = _ir(kind.dtype), k.type
    lanes = vector.count
    step = VECTORS * lanes

    def strip(j, shape, count):
        # of a factor in panels, those of the columns before are k rows each
        by_panel = builder.mul(builder.sdiv(j, intp(step)), panel)
        offset = builder.select(builder.icmp_signed("==", panel, intp(0)), j, by_panel)
        _strip(
            builder, context, kind, wide, a, row_step, k_step, builder.gep(b, [offset]), b_step, k,
            builder.gep(c, [j]), c_step, m, shape, count,
        )  # fmt: skip

    whole, begin = builder.and_(n, intp(-step)), intp(0)
    if not wide:
        # few rows of twice the vectors are as many sums in flight
        flat = builder.and_(
            builder.icmp_signed("<=", m, intp(ROWS // 2)),
            builder.icmp_signed("==", panel, intp(0)),
        )
        begin = builder.select(flat, builder.and_(n, intp(-2 * step)), begin)
        with cgutils.for_range_slice(builder, intp(0), begin, intp(2 * step), intp) as (j, _):
            strip(j, (2 * VECTORS, False), n)
    with cgutils.for_range_slice(builder, begin, whole, intp(step), intp) as (j, _):
        strip(j, (VECTORS, False), n)
    rest = builder.sub(n, whole)
    full = builder.icmp_signed(">=", rest, intp(lanes))
    some = builder.select(full, builder.sub(rest, intp(lanes)), rest)
    with builder.if_then(full):
        _single(builder, context, kind, wide, a, row_step, k_step, b, b_step, k, c, c_step, m,
                whole, intp(lanes), panel, intp(0))  # fmt: skip
    more = builder.icmp_signed(">", some, intp(0))
    with builder.if_then(more):
        within = builder.select(full, intp(lanes), intp(0))
        _single(builder, context, kind, wide, a, row_step, k_step, b, b_step, k, c, c_step, m,
                whole, some, panel, within)  # fmt: skip


def _single(builder, context, kind, wide, a, row_step, k_step, b, b_step, k, c, c_step, m, whole,
            count, panel, within):  # fmt: skip
    """A strip of one vector or of a part of it, ``within`` numbers behind the whole panels."""
    intp = k.type
    step = VECTORS * _ir(kind.dtype).count
    by_panel = builder.mul(builder.sdiv(whole, intp(step)), panel)
    start = builder.select(builder.icmp_signed("==", panel, intp(0)), whole, by_panel)
    _strip(
        builder, context, kind, wide, a, row_step, k_step,
        builder.gep(b, [builder.add(start, within)]), b_step, k,
        builder.gep(c, [builder.add(whole, within)]), c_step, m, (1, True), count,
    )  # fmt: skip


@intrinsic
def product(typingctx, like, a, row_step, k_step, b, b_step, k, c, c_step, m, n, panel):
    """C = A B for A (m, k), B (k, n), at addresses of bytes; steps count real numbers.

    The dtype is that of ``like``; n counts a complex number as two. With ``panel`` rows of B lie in
    panels of `VECTORS` vectors, that many numbers apart.
    """

    def codegen(context, builder, sig, args):
        given = sig.args[0].dtype
        wide = isinstance(given, types.Complex)
        kind = types.CPointer(given.underlying_float if wide else given)
        name = f"linalgk.kron_product.{given}"
        function = builder.module.globals.get(name)
        place, intp = _ir(kind.dtype).element.as_pointer(), context.get_value_type(types.intp)
        if function is None:
            arguments = [place, intp, intp, place, intp, intp, place, *[intp] * 4]
            function = ir.Function(builder.module, ir.FunctionType(ir.VoidType(), arguments), name)
            function.linkage = "internal"
            _for_size(function)
            body = ir.IRBuilder(function.append_basic_block())
            _emit_product(context, body, kind, wide, function.args)
            body.ret_void()
        values = [
            builder.inttoptr(value, place) if i in (0, 3, 6) else value
            for i, value in enumerate(args[1:])
        ]
        builder.call(function, values)
        return context.get_dummy_value()

    return types.none(like, *[types.intp] * 11), codegen


@intrinsic
def move(typingctx, target, source, count):
    """Copy bytes between addresses."""

    def codegen(context, builder, sig, args):
        byte = ir.IntType(8).as_pointer()
        places = [builder.inttoptr(x, byte) for x in args[:2]]
        cgutils.raw_memcpy(builder, *places, args[2], 1)
        return context.get_dummy_value()

    return types.none(*[types.intp] * 3), codegen


@intrinsic
def address(typingctx, block):
    """Of a pointer, as a number."""

    def codegen(context, builder, sig, args):
        return builder.ptrtoint(args[0], context.get_value_type(types.intp))

    return types.intp(block), codegen

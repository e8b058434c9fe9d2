"""Vectors of one register as a Numba type, so that a kernel says which lanes it uses.

LLVM unrolls short constant loops into scalar code and leaves them so; a value of type
``<8 x double>`` cannot be scalarised by accident. One vector fills one register of the target
(64 bytes with AVX-512, else 32), and `product` multiplies register blocks of such vectors.
Numba's cache does not see edits of this file in the kernels that use it: after editing, remove
the cached files (``linalgk info`` says where they are).
"""

import numba
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model


def _has_avx512() -> bool:
    """Whether the code generator's target (which NUMBA_CPU_NAME can lower) has AVX-512."""
    if numba.config.CPU_FEATURES is not None:
        return "+avx512f" in numba.config.CPU_FEATURES
    if numba.config.CPU_NAME not in (None, "", "host", binding.get_host_cpu_name()):
        return numba.config.CPU_NAME in ("skylake-avx512", "icelake-server", "znver4", "znver5")
    try:
        return bool(binding.get_host_cpu_features().get("avx512f", False))
    except RuntimeError:
        return False


BYTES = 64 if _has_avx512() else 32
# 4x4 accumulators and 8 operands use 24 of 32 registers; 3x3 and 6 use 15 of 16.
TILE = 4 if BYTES == 64 else 3


class Vec(types.Type):
    """One register of ``BYTES // itemsize`` lanes."""

    def __init__(self, dtype):
        self.dtype = dtype
        super().__init__(name=f"vec{BYTES}({dtype})")


@register_model(Vec)
class _VecModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, _ir(fe_type.dtype))


def _ir(dtype):
    scalar = ir.FloatType() if dtype.bitwidth == 32 else ir.DoubleType()
    return ir.VectorType(scalar, BYTES * 8 // dtype.bitwidth)


def _data(context, builder, kind, value):
    """Where the elements of an array, or behind a pointer, begin."""
    if isinstance(kind, types.CPointer):
        return value
    return cgutils.create_struct_proxy(kind)(context, builder, value=value).data


def _pointer(context, builder, kind, base, offset):
    """Address of ``base[offset]`` as a pointer to one vector."""
    element = builder.gep(_data(context, builder, kind, base), [offset])
    return builder.bitcast(element, _ir(kind.dtype).as_pointer())


def _load(context, builder, arrtype, array, offset):
    return builder.load(
        _pointer(context, builder, arrtype, array, offset), align=arrtype.dtype.bitwidth // 8
    )


def _fma(builder, a, b, c):
    width, scalar = a.type.count, "f32" if isinstance(a.type.element, ir.FloatType) else "f64"
    name = f"llvm.fmuladd.v{width}{scalar}"
    fn = cgutils.get_or_insert_function(builder.module, ir.FunctionType(a.type, [a.type] * 3), name)
    return builder.call(fn, [a, b, c])


@intrinsic
def load(typingctx, array, offset):
    """The vector that starts at element ``offset`` of a 1-D array."""

    def codegen(context, builder, sig, args):
        return _load(context, builder, sig.args[0], *args)

    return Vec(array.dtype)(array, types.intp), codegen


@intrinsic
def store(typingctx, array, offset, value):
    """Write a vector to element ``offset`` of a 1-D array."""

    def codegen(context, builder, sig, args):
        pointer = _pointer(context, builder, sig.args[0], args[0], args[1])
        builder.store(args[2], pointer, align=sig.args[0].dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.none(array, types.intp, value), codegen


@intrinsic
def pointer(typingctx, like, address):
    """The address of an array's first element as a pointer to the dtype of ``like``.

    A kernel that takes addresses and strides is compiled once for all layouts and for read-only
    arrays; its caller keeps the array alive.
    """

    def codegen(context, builder, sig, args):
        return builder.inttoptr(args[1], context.get_value_type(sig.return_type))

    return types.CPointer(like.dtype)(like, types.intp), codegen


def _entry(builder, arrtype, offset, i, j, n):
    """Element at which entry (i, j) of an (n, n, lanes) matrix begins."""
    lanes = ir.Constant(n.type, _ir(arrtype.dtype).count)
    return builder.add(offset, builder.mul(builder.add(builder.mul(i, n), j), lanes))


@intrinsic
def entry(typingctx, array, offset, i, j, n):
    """Entry (i, j) of the (n, n, lanes) matrix at element ``offset``."""

    def codegen(context, builder, sig, args):
        where = _entry(builder, sig.args[0], *args[1:])
        return _load(context, builder, sig.args[0], args[0], where)

    return Vec(array.dtype)(array, *[types.intp] * 4), codegen


@intrinsic
def set_entry(typingctx, array, offset, i, j, n, value):
    """Write entry (i, j) of the (n, n, lanes) matrix at element ``offset``."""

    def codegen(context, builder, sig, args):
        where = _entry(builder, sig.args[0], *args[1:5])
        pointer = _pointer(context, builder, sig.args[0], args[0], where)
        builder.store(args[5], pointer, align=sig.args[0].dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.none(array, *[types.intp] * 4, value), codegen


@intrinsic
def get(typingctx, array, offset):
    """Element ``offset`` of a C-contiguous array counted flat, without index arithmetic."""

    def codegen(context, builder, sig, args):
        data = _data(context, builder, sig.args[0], args[0])
        return builder.load(builder.gep(data, [args[1]]))

    return array.dtype(array, types.intp), codegen


@intrinsic
def put(typingctx, array, offset, value):
    """Write element ``offset`` of a C-contiguous array counted flat."""

    def codegen(context, builder, sig, args):
        data = _data(context, builder, sig.args[0], args[0])
        builder.store(args[2], builder.gep(data, [args[1]]))
        return context.get_dummy_value()

    return types.none(array, types.intp, array.dtype), codegen


@intrinsic
def splat(typingctx, like, scalar):
    """A vector with every lane equal to a float, in the dtype of the array or pointer ``like``."""

    def codegen(context, builder, sig, args):
        vector = _ir(sig.return_type.dtype)
        value = context.cast(builder, args[1], types.float64, sig.return_type.dtype)
        one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.IntType(32)(0))
        mask = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), None)
        return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), mask)

    return Vec(like.dtype)(like, types.float64), codegen


@intrinsic
def fma(typingctx, a, b, c):
    """``a * b + c`` lane by lane, fused where the target has FMA."""

    def codegen(context, builder, sig, args):
        return _fma(builder, *args)

    return a(a, b, c), codegen


def _binary(emit, doc):
    @intrinsic
    def operation(typingctx, a, b):
        def codegen(context, builder, sig, args):
            return emit(builder, *args)

        return a(a, b), codegen

    operation.__doc__ = doc
    return operation


def _maximum(builder, a, b):
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


add = _binary(lambda builder, a, b: builder.fadd(a, b), "a + b, lane by lane")
sub = _binary(lambda builder, a, b: builder.fsub(a, b), "a - b, lane by lane")
mul = _binary(lambda builder, a, b: builder.fmul(a, b), "a * b, lane by lane")
div = _binary(lambda builder, a, b: builder.fdiv(a, b), "a / b, lane by lane")
maximum = _binary(_maximum, "max(a, b), lane by lane; b where either is NaN")


def _unary(name):
    @intrinsic
    def operation(typingctx, a):
        def codegen(context, builder, sig, args):
            (x,) = args
            scalar = "f32" if isinstance(x.type.element, ir.FloatType) else "f64"
            fn = cgutils.get_or_insert_function(
                builder.module,
                ir.FunctionType(x.type, [x.type]),
                f"llvm.{name}.v{x.type.count}{scalar}",
            )
            return builder.call(fn, [x])

        return a(a), codegen

    operation.__doc__ = f"{name}(a), lane by lane"
    return operation


sqrt = _unary("sqrt")
fabs = _unary("fabs")


def _for_size(function):
    function.attributes.add("noinline")
    function.attributes.add("optsize")


@intrinsic
def compact(typingctx):
    """Compile the enclosing function once, for size: no unrolling, no copy in each caller.

    The vectors are explicit already, and LLVM would unroll their loops a second time when it
    links the function to its caller, which doubles the time that the first call takes.
    """

    def codegen(context, builder, sig, args):
        _for_size(builder.function)
        return context.get_dummy_value()

    return types.none(), codegen


@intrinsic
def prefetch(typingctx, array, offset):
    """Ask for the cache line of element ``offset``, which may lie behind the end."""

    def codegen(context, builder, sig, args):
        i32, byte = ir.IntType(32), ir.IntType(8).as_pointer()
        where = builder.bitcast(_pointer(context, builder, sig.args[0], *args), byte)
        kind = ir.FunctionType(ir.VoidType(), [byte, i32, i32, i32])
        fn = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(fn, [where, i32(0), i32(3), i32(1)])
        return context.get_dummy_value()

    return types.none(array, types.intp), codegen


@intrinsic
def transpose(typingctx, source, at, step, target, to, stride):
    """A square of as many rows as a register has lanes: vectors at ``at + i * step`` become the
    columns of rows at ``to + j * stride``.
    """

    def codegen(context, builder, sig, args):
        source, at, step, target, to, stride = args
        lanes = _ir(sig.args[0].dtype).count

        def offset(base, i, width):
            return builder.add(base, builder.mul(ir.Constant(width.type, i), width))

        rows = [
            _load(context, builder, sig.args[0], source, offset(at, i, step)) for i in range(lanes)
        ]
        half = lanes // 2
        while half:
            low = [e if not e & half else lanes + e - half for e in range(lanes)]
            high = [e + half if not e & half else lanes + e for e in range(lanes)]
            masks = [
                ir.Constant(ir.VectorType(ir.IntType(32), lanes), mask) for mask in (low, high)
            ]
            for i in range(lanes):
                if not i & half:
                    pair = rows[i], rows[i + half]
                    rows[i], rows[i + half] = (builder.shuffle_vector(*pair, m) for m in masks)
            half //= 2
        for j, row in enumerate(rows):
            where = _pointer(context, builder, sig.args[3], target, offset(to, j, stride))
            builder.store(row, where, align=sig.args[3].dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.none(source, types.intp, types.intp, target, types.intp, types.intp), codegen


@intrinsic
def allocate(typingctx, like, count):
    """Uninitialised memory for ``count`` elements of the dtype of ``like``, to be released.

    `np.empty` would do, but compiling it takes a tenth of a second.
    """

    def codegen(context, builder, sig, args):
        size = ir.Constant(args[1].type, sig.args[0].dtype.bitwidth // 8)
        block = context.nrt.allocate(builder, builder.mul(args[1], size))
        with builder.if_then(cgutils.is_null(builder, block), likely=False):
            message = "linalgk: no memory for the workspace of a kernel"
            context.call_conv.return_user_exc(builder, MemoryError, (message,))
        return builder.bitcast(block, context.get_value_type(sig.return_type))

    return types.CPointer(like.dtype)(like, types.intp), codegen


@intrinsic
def release(typingctx, block):
    """Give back what `allocate` gave."""

    def codegen(context, builder, sig, args):
        context.nrt.free(builder, builder.bitcast(args[0], cgutils.voidptr_t))
        return context.get_dummy_value()

    return types.none(block), codegen


@intrinsic
def aligned(typingctx, block):
    """The first multiple of 64 bytes in a block: a vector across cache lines costs two loads."""

    def codegen(context, builder, sig, args):
        intp = context.get_value_type(types.intp)
        past = builder.add(builder.ptrtoint(args[0], intp), ir.Constant(intp, 63))
        return builder.inttoptr(builder.and_(past, ir.Constant(intp, -64)), args[0].type)

    return block(block), codegen


def _lane_offsets(builder, offset, stride, count, lanes):
    """Element offsets of one entry in ``lanes`` matrices; lanes past ``count`` repeat the last."""
    last = builder.sub(count, ir.Constant(count.type, 1))
    for lane in range(lanes):
        index = ir.Constant(count.type, lane)
        index = builder.select(builder.icmp_signed("<", index, last), index, last)
        yield lane, builder.add(offset, builder.mul(index, stride))


@intrinsic
def gather(typingctx, array, offset, stride, count):
    """Elements ``offset + lane * stride`` of a C-contiguous array as one vector."""

    def codegen(context, builder, sig, args):
        data = _data(context, builder, sig.args[0], args[0])
        kind = _ir(sig.args[0].dtype)
        vector = ir.Constant(kind, ir.Undefined)
        for lane, where in _lane_offsets(builder, *args[1:], kind.count):
            value = builder.load(builder.gep(data, [where]))
            vector = builder.insert_element(vector, value, ir.IntType(32)(lane))
        return vector

    return Vec(array.dtype)(array, types.intp, types.intp, types.intp), codegen


@intrinsic
def scatter(typingctx, array, offset, stride, count, vector):
    """Write a vector to elements ``offset + lane * stride`` of a C-contiguous array."""

    def codegen(context, builder, sig, args):
        data = _data(context, builder, sig.args[0], args[0])
        _, offset, stride, count, vector = args
        lanes = ir.Constant(count.type, vector.type.count)
        # lanes past the count belong to nobody
        some = builder.icmp_signed("<", count, lanes)
        with cgutils.for_range(builder, builder.select(some, count, lanes)) as loop:
            where = builder.add(offset, builder.mul(loop.index, stride))
            lane = builder.trunc(loop.index, ir.IntType(32))
            builder.store(builder.extract_element(vector, lane), builder.gep(data, [where]))
        return context.get_dummy_value()

    return types.none(array, types.intp, types.intp, types.intp, vector), codegen


@intrinsic
def dot(typingctx, array, a, b, count):
    """Sum of ``a[k] * b[k]`` for ``count`` vectors that lie one after the other."""

    def codegen(context, builder, sig, args):
        array, a, b, count = args
        kind, intp = _ir(sig.args[0].dtype), count.type
        lanes, zero = ir.Constant(intp, kind.count), ir.Constant(kind, None)
        # two chains hide half of the latency; more would cost short rows more than they save
        chains = [cgutils.alloca_once(builder, kind) for _ in range(2)]
        for chain in chains:
            builder.store(zero, chain)

        def step(k, chain):
            shift = builder.mul(k, lanes)
            left = _load(context, builder, sig.args[0], array, builder.add(a, shift))
            right = _load(context, builder, sig.args[0], array, builder.add(b, shift))
            builder.store(_fma(builder, left, right, builder.load(chain)), chain)

        one = ir.Constant(intp, 1)
        pairs = builder.ashr(count, one)
        with cgutils.for_range(builder, pairs) as loop:
            k = builder.shl(loop.index, one)
            step(k, chains[0])
            step(builder.add(k, one), chains[1])
        odd = builder.and_(count, one)
        with builder.if_then(builder.icmp_signed("!=", odd, ir.Constant(intp, 0))):
            step(builder.sub(count, one), chains[0])
        return builder.fadd(builder.load(chains[0]), builder.load(chains[1]))

    return Vec(array.dtype)(array, types.intp, types.intp, types.intp), codegen


def _block(context, builder, kind, rows, cols, w, c, a, b, n, i, j, coef):
    """Emit a ``rows`` x ``cols`` block of `product` at (i, j), stored transposed as well."""
    vector, intp = _ir(kind.dtype), n.type

    def read(offset):
        return _load(context, builder, kind, w, offset)

    row = [builder.add(i, ir.Constant(intp, u)) for u in range(rows)]
    col = [builder.add(j, ir.Constant(intp, v)) for v in range(cols)]
    acc = [[cgutils.alloca_once(builder, vector) for _ in col] for _ in row]
    block = [(u, v) for u in range(rows) for v in range(cols)]
    for u, v in block:
        builder.store(ir.Constant(vector, None), acc[u][v])
    with cgutils.for_range(builder, n) as loop:
        left = [read(_entry(builder, kind, a, r, loop.index, n)) for r in row]
        right = [read(_entry(builder, kind, b, r, loop.index, n)) for r in col]
        for u, v in block:
            total = _fma(builder, left[u], right[v], builder.load(acc[u][v]))
            builder.store(total, acc[u][v])
    with builder.if_then(builder.icmp_signed(">=", coef, ir.Constant(intp, 0))):
        alpha, beta, gamma = (
            read(builder.add(coef, ir.Constant(intp, k * vector.count))) for k in range(3)
        )
        for u, v in block:
            value = builder.fmul(builder.load(acc[u][v]), gamma)
            here = read(_entry(builder, kind, a, row[u], col[v], n))
            value = _fma(builder, beta, here, value)
            diagonal = builder.icmp_signed("==", row[u], col[v])
            value = builder.select(diagonal, builder.fadd(value, alpha), value)
            builder.store(value, acc[u][v])
    for u, v in block:
        value = builder.load(acc[u][v])
        for r, s in ((row[u], col[v]), (col[v], row[u])):
            pointer = _pointer(context, builder, kind, w, _entry(builder, kind, c, r, s, n))
            builder.store(value, pointer, align=kind.dtype.bitwidth // 8)


def _emit_product(context, builder, kind, args):
    """Upper blocks of a product; rows and columns left over go one by one."""
    n = args[4]
    step, one, zero = (ir.Constant(n.type, k) for k in (TILE, 1, 0))
    whole = builder.sub(n, builder.srem(n, step))

    def upto(start, stop, step):
        return cgutils.for_range_slice(builder, start, stop, step, n.type)

    def block(rows, cols, i, j):
        _block(context, builder, kind, rows, cols, *args[:5], i, j, args[5])

    with upto(zero, whole, step) as (i, _):
        with upto(i, whole, step) as (j, _):
            block(TILE, TILE, i, j)
        with upto(whole, n, one) as (j, _):
            block(TILE, 1, i, j)
    with upto(whole, n, one) as (i, _), upto(i, n, one) as (j, _):
        block(1, 1, i, j)


@intrinsic
def product(typingctx, w, c, a, b, n, coef):
    """``C = A B`` for symmetric matrices of (n, n, lanes) at elements c, a, b of ``w``.

    With ``coef >= 0`` it is ``alpha I + beta A + gamma A B`` instead, with three vectors of
    coefficients, one per lane, at element ``coef``. Only the upper blocks are computed, from rows
    of both factors, which are columns too, and mirrored. A function of its own in the module of
    its caller: LLVM sees it once, while a Numba function is compiled again in every caller.
    """

    def codegen(context, builder, sig, args):
        kind = sig.args[0]
        name = f"linalgk.product.{kind.dtype}"
        function = builder.module.globals.get(name)
        if function is None:
            signature = ir.FunctionType(ir.VoidType(), [arg.type for arg in args])
            function = ir.Function(builder.module, signature, name)
            function.linkage = "internal"
            _for_size(function)
            body = ir.IRBuilder(function.append_basic_block())
            _emit_product(context, body, kind, function.args)
            body.ret_void()
        builder.call(function, args)
        return context.get_dummy_value()

    return types.none(w, *[types.intp] * 5), codegen

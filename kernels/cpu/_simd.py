"""Vectors of one register as a Numba type, so that a kernel says which lanes it uses.

LLVM unrolls short constant loops into scalar code and leaves them so; a value of type
``<8 x double>`` cannot be scalarised by accident. One vector fills one register of the target
(64 bytes with AVX-512, else 32), and `tile` multiplies register blocks of such vectors.
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


def _pointer(context, builder, arrtype, array, offset):
    """Address of ``array[offset]`` as a pointer to one vector."""
    data = cgutils.create_struct_proxy(arrtype)(context, builder, value=array).data
    element = builder.gep(data, [offset])
    return builder.bitcast(element, _ir(arrtype.dtype).as_pointer())


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
        data = cgutils.create_struct_proxy(sig.args[0])(context, builder, value=args[0]).data
        return builder.load(builder.gep(data, [args[1]]))

    return array.dtype(array, types.intp), codegen


@intrinsic
def put(typingctx, array, offset, value):
    """Write element ``offset`` of a C-contiguous array counted flat."""

    def codegen(context, builder, sig, args):
        data = cgutils.create_struct_proxy(sig.args[0])(context, builder, value=args[0]).data
        builder.store(args[2], builder.gep(data, [args[1]]))
        return context.get_dummy_value()

    return types.none(array, types.intp, array.dtype), codegen


@intrinsic
def splat(typingctx, scalar):
    """A vector with every lane equal to ``scalar``."""

    def codegen(context, builder, sig, args):
        vector = _ir(sig.args[0])
        one = builder.insert_element(ir.Constant(vector, ir.Undefined), args[0], ir.IntType(32)(0))
        mask = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), None)
        return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), mask)

    return Vec(scalar)(scalar), codegen


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


@intrinsic
def compact(typingctx):
    """Compile the enclosing function once, for size: no unrolling, no copy in each caller.

    The vectors are explicit already, and LLVM would unroll their loops a second time when it
    links the function to its caller, which doubles the time that the first call takes.
    """

    def codegen(context, builder, sig, args):
        builder.function.attributes.add("noinline")
        builder.function.attributes.add("optsize")
        return context.get_dummy_value()

    return types.none(), codegen


@intrinsic
def address(typingctx, array):
    """Where an array's data begin, in bytes."""

    def codegen(context, builder, sig, args):
        data = cgutils.create_struct_proxy(sig.args[0])(context, builder, value=args[0]).data
        return builder.ptrtoint(data, context.get_value_type(types.intp))

    return types.intp(array), codegen


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
        data = cgutils.create_struct_proxy(sig.args[0])(context, builder, value=args[0]).data
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
        data = cgutils.create_struct_proxy(sig.args[0])(context, builder, value=args[0]).data
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


def tile(rows, cols):
    """Intrinsic for a ``rows`` x ``cols`` block of a symmetric product, mirrored on store.

    ``tile(w, c, a, b, n, i, j, coef)`` computes ``C[i+u, j+v] = sum_k A[i+u, k] B[j+v, k]``:
    rows of both factors are read, which are columns too because every matrix here is symmetric.
    With ``coef >= 0`` it computes ``alpha I + beta A + gamma A B`` instead, with three vectors
    of coefficients, one per lane, at element ``coef``. Matrices are (n, n, lanes) at element
    offsets c, a, b of the workspace w; the block is also stored transposed.
    """

    def emit(context, builder, arrtype, w, c, a, b, n, i, j, coef):
        vector, intp = _ir(arrtype.dtype), n.type
        lanes = ir.Constant(intp, vector.count)

        def at(base, row, col):
            return builder.add(base, builder.mul(builder.add(builder.mul(row, n), col), lanes))

        def read(offset):
            return _load(context, builder, arrtype, w, offset)

        row = [builder.add(i, ir.Constant(intp, u)) for u in range(rows)]
        col = [builder.add(j, ir.Constant(intp, v)) for v in range(cols)]
        acc = [[cgutils.alloca_once(builder, vector) for _ in col] for _ in row]
        block = [(u, v) for u in range(rows) for v in range(cols)]
        for u, v in block:
            builder.store(ir.Constant(vector, None), acc[u][v])
        with cgutils.for_range(builder, n) as loop:
            left = [read(at(a, r, loop.index)) for r in row]
            right = [read(at(b, r, loop.index)) for r in col]
            for u, v in block:
                total = _fma(builder, left[u], right[v], builder.load(acc[u][v]))
                builder.store(total, acc[u][v])
        with builder.if_then(builder.icmp_signed(">=", coef, ir.Constant(intp, 0))):
            alpha, beta, gamma = (
                read(builder.add(coef, ir.Constant(intp, k * vector.count))) for k in range(3)
            )
            for u, v in block:
                value = builder.fmul(builder.load(acc[u][v]), gamma)
                value = _fma(builder, beta, read(at(a, row[u], col[v])), value)
                diagonal = builder.icmp_signed("==", row[u], col[v])
                value = builder.select(diagonal, builder.fadd(value, alpha), value)
                builder.store(value, acc[u][v])
        for u, v in block:
            value = builder.load(acc[u][v])
            for offset in (at(c, row[u], col[v]), at(c, col[v], row[u])):
                pointer = _pointer(context, builder, arrtype, w, offset)
                builder.store(value, pointer, align=arrtype.dtype.bitwidth // 8)

    @intrinsic
    def block(typingctx, w, c, a, b, n, i, j, coef):
        def codegen(context, builder, sig, args):
            emit(context, builder, sig.args[0], *args)
            return context.get_dummy_value()

        return types.none(w, *[types.intp] * 7), codegen

    return block

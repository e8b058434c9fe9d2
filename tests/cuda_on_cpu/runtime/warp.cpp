// What the threads of a warp do together. The last to arrive computes for all: by then every
// operand has been written, and nobody has moved on, so that one meeting is enough.
#include "runtime.h"

#include <math.h>
#include <string.h>

namespace {

enum { SHFL_IDX, SHFL_UP, SHFL_DOWN, SHFL_XOR };
enum { VOTE_BALLOT, VOTE_ANY, VOTE_ALL, VOTE_UNI };
enum { ADD, MIN, MAX, AND, OR, XOR };
enum { MMA_F16, MMA_BF16, MMA_TF32, MMA_F64_K4, MMA_F64_K16 };

// The threads that meet: the lanes of `mask` in `warp`.
struct Party {
    Fiber *warp;
    u32 mask;
    template <class T> T *operands(u32 lane) const {
        return static_cast<T *>(warp[lane].operands);
    }
};

template <class Compute>
void collective(Op op, u32 mask, Where where, void *operands, Compute compute) {
    Fiber *self = me;
    Fiber *warp = fibers + self->warp * WARP_SIZE;
    const u32 existing = run.threads - self->warp * WARP_SIZE;
    self->where = where;
    self->op = op;
    // A full mask in the short last warp means the lanes that exist.
    if (mask == FULL_MASK && existing < WARP_SIZE) mask >>= WARP_SIZE - existing;
    self->mask = mask;
    if (!(mask >> self->lane & 1))
        fail(where, "%s: the mask 0x%08x lacks the calling lane %u", op_name(*self), mask,
             self->lane);
    if (existing < WARP_SIZE && mask >> existing)
        fail(where, "%s: the mask 0x%08x has lanes that this warp of %u threads lacks",
             op_name(*self), mask, existing);
    self->operands = operands;
    for (u32 rest = mask & ~(1u << self->lane); rest; rest &= rest - 1) {
        const Fiber &other = warp[__builtin_ctz(rest)];
        if (other.state == WARP && other.op == op && other.mask == mask) continue;
        if (other.state == DONE)
            fail(where, "%s (mask 0x%08x) waits for lane %u, which has returned", op_name(*self),
                 mask, other.lane);
        wait_as(WARP);
        return;
    }
    for (u32 rest = mask; rest; rest &= rest - 1) {
        const Fiber &other = warp[__builtin_ctz(rest)];
        if (other.where.line != where.line ||
            (other.where.file != where.file && strcmp(other.where.file, where.file) != 0))
            fail(where, "%s of lane %u, while lane %u waits at %s:%d", op_name(*self), self->lane,
                 other.lane, other.where.file, other.where.line);
    }
    compute(Party{warp, mask});
    for (u32 rest = mask & ~(1u << self->lane); rest; rest &= rest - 1)
        wake(&warp[__builtin_ctz(rest)]);
}

template <class F> void each(u32 mask, F f) {
    for (u32 rest = mask; rest; rest &= rest - 1) f(u32(__builtin_ctz(rest)));
}

} // namespace

const char *op_name(const Fiber &fiber) {
    static const char *const names[] = {"__syncthreads",  "__syncwarp", "a shuffle",
                                        "a vote",         "a match",    "a warp reduction",
                                        "ldmatrix",       "mma"};
    return names[fiber.op];
}

COC_API void coc_syncwarp(u32 mask, const char *file, int line) {
    collective(OP_SYNCWARP, mask, {file, line}, nullptr,
               [](const Party &) { check_warp_barrier(me->warp); });
}

struct Shuffle {
    int kind, lane, width;
    u64 value, result;
};

COC_API u64 coc_shfl(int kind, u32 mask, u64 bits, int lane, int width, const char *file,
                     int line) {
    const Where where = {file, line};
    if (width < 1 || width > 32 || width & (width - 1))
        fail(where, "a shuffle's width is a power of two up to 32, not %d", width);
    Shuffle mine = {kind, lane, width, bits, 0};
    collective(OP_SHFL, mask, where, &mine, [](const Party &party) {
        each(party.mask, [&](u32 i) {
            Shuffle &s = *party.operands<Shuffle>(i);
            const int width = s.width, segment = int(i) & ~(width - 1), here = int(i) - segment;
            int source;
            bool inside = true;
            switch (s.kind) {
            case SHFL_IDX: source = segment + (s.lane & (width - 1)); break;
            case SHFL_UP: source = int(i) - s.lane, inside = here >= s.lane; break;
            case SHFL_DOWN: source = int(i) + s.lane, inside = here + s.lane < width; break;
            default:
                // "Parallel thread execution", shfl: xor may reach into earlier segments only.
                source = int(i) ^ s.lane, inside = source < segment + width;
            }
            if (!inside)
                s.result = s.value;
            else if (source >= 0 && source < 32 && party.mask >> source & 1)
                s.result = party.operands<Shuffle>(u32(source))->value;
            else
                s.result = ~u64(0); // undefined on a device: the poison
        });
    });
    return mine.result;
}

struct Vote {
    int kind, predicate;
    u32 result;
};

COC_API u32 coc_vote(int kind, u32 mask, int predicate, const char *file, int line) {
    Vote mine = {kind, predicate, 0};
    collective(OP_VOTE, mask, {file, line}, &mine, [](const Party &party) {
        u32 ballot = 0;
        each(party.mask,
             [&](u32 i) { ballot |= u32(party.operands<Vote>(i)->predicate != 0) << i; });
        each(party.mask, [&](u32 i) {
            Vote &v = *party.operands<Vote>(i);
            v.result = v.kind == VOTE_BALLOT ? ballot
                       : v.kind == VOTE_ANY  ? ballot != 0
                       : v.kind == VOTE_ALL  ? ballot == party.mask
                                             : ballot == 0 || ballot == party.mask;
        });
    });
    return mine.result;
}

struct Match {
    u64 value;
    u32 result;
};

COC_API u32 coc_match_any(u32 mask, u64 bits, const char *file, int line) {
    Match mine = {bits, 0};
    collective(OP_MATCH, mask, {file, line}, &mine, [](const Party &party) {
        each(party.mask, [&](u32 i) {
            Match &m = *party.operands<Match>(i);
            each(party.mask,
                 [&](u32 j) { m.result |= u32(party.operands<Match>(j)->value == m.value) << j; });
        });
    });
    return mine.result;
}

struct Reduce {
    int kind, is_signed;
    u32 value, result;
};

COC_API u32 coc_reduce(int kind, int is_signed, u32 mask, u32 value, const char *file, int line) {
    Reduce mine = {kind, is_signed, value, 0};
    collective(OP_REDUCE, mask, {file, line}, &mine, [](const Party &party) {
        const Reduce &first = *party.operands<Reduce>(u32(__builtin_ctz(party.mask)));
        u32 total = first.value;
        each(party.mask & (party.mask - 1), [&](u32 i) {
            const u32 v = party.operands<Reduce>(i)->value;
            const bool less = first.is_signed ? int(v) < int(total) : v < total;
            switch (first.kind) {
            case ADD: total += v; break;
            case MIN: total = less ? v : total; break;
            case MAX: total = less ? total : v; break;
            case AND: total &= v; break;
            case OR: total |= v; break;
            default: total ^= v;
            }
        });
        each(party.mask, [&](u32 i) { party.operands<Reduce>(i)->result = total; });
    });
    return mine.result;
}

// --- Matrices ------------------------------------------------------------------------------------

struct LoadMatrix {
    u32 *r;
    int count, transposed;
    const void *row;
};

// "Warp-level matrix load instruction: ldmatrix": lane 8 i + j gives the address of row j of matrix
// i; a lane gets of each matrix the elements 2 (lane % 4) + {0, 1} of row lane / 4.
COC_API void coc_ldmatrix(u32 *r, int count, int transposed, const void *row, const char *file,
                          int line) {
    LoadMatrix mine = {r, count, transposed, row};
    collective(OP_LDMATRIX, FULL_MASK, {file, line}, &mine, [](const Party &party) {
        const Where where = me->where;
        if (party.mask != FULL_MASK) fail(where, "ldmatrix needs a whole warp");
        const LoadMatrix &first = *party.operands<LoadMatrix>(0);
        u16 element[8][8];
        for (int matrix = 0; matrix < first.count; matrix++) {
            for (int j = 0; j < 8; j++) {
                Fiber &giver = party.warp[8 * matrix + j];
                const void *address = static_cast<LoadMatrix *>(giver.operands)->row;
                if (reinterpret_cast<uintptr_t>(address) % 16)
                    fail(where, "ldmatrix: the row address of lane %u is misaligned: not a "
                                "multiple of 16", giver.lane);
                check_access(where, &giver, address, 16, READ);
                if (!in_shared(address, 16))
                    fail(where, "ldmatrix: the row address of lane %u is not in shared memory",
                         giver.lane);
                memcpy(element[j], address, 16);
            }
            for (u32 lane = 0; lane < WARP_SIZE; lane++) {
                const u32 i = lane / 4, j = 2 * (lane % 4);
                const u16 lo = first.transposed ? element[j][i] : element[i][j];
                const u16 hi = first.transposed ? element[j + 1][i] : element[i][j + 1];
                party.operands<LoadMatrix>(lane)->r[matrix] = u32(lo) | u32(hi) << 16;
            }
        }
    });
}

namespace {

struct Mma {
    int kind;
    void *d;
    const void *a, *b;
};

float float_of_bits(u32 bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

float float_of_half(u16 h) {
    const u32 sign = u32(h & 0x8000u) << 16, exponent = h >> 10 & 31u, m = h & 0x3ffu;
    if (exponent == 31) return float_of_bits(sign | 0x7f800000u | m << 13);
    if (exponent) return float_of_bits(sign | (exponent + 112) << 23 | m << 13);
    return (sign ? -1.0f : 1.0f) * float(m) * 0x1p-24f;
}

float narrow(int kind, u16 bits) {
    return kind == MMA_F16 ? float_of_half(bits) : float_of_bits(u32(bits) << 16);
}

float toward_zero(double x) {
    const float nearest = float(x);
    if (fabs(double(nearest)) > fabs(x)) return nextafterf(nearest, 0.0f);
    return nearest;
}

// A model of the devices' sums (Fasi, Higham, Mikaitis and Pranesh, "Numerical behavior of NVIDIA
// tensor cores", PeerJ Computer Science 2021): within a block of products all terms are aligned to
// the largest and cut off there, and the sum is rounded toward zero.
float truncated_sum(float c, const double *products, int count, int at_once) {
    for (int start = 0; start < count; start += at_once) {
        double largest = fabs(double(c));
        bool finite = isfinite(c);
        for (int k = start; k < start + at_once; k++) {
            largest = fmax(largest, fabs(products[k]));
            finite = finite && isfinite(products[k]);
        }
        double sum = c;
        if (finite && largest > 0) {
            const int unit = ilogb(largest) - 24;
            sum = trunc(scalbn(double(c), -unit));
            for (int k = start; k < start + at_once; k++) sum += trunc(scalbn(products[k], -unit));
            sum = scalbn(sum, unit);
        } else {
            for (int k = start; k < start + at_once; k++) sum += products[k];
        }
        c = toward_zero(sum);
    }
    return c;
}

// "Matrix fragments for mma.m16n8k16 with floating point type" and "... mma.m16n8k8": with
// g = lane / 4 and t = lane % 4, registers 0..3 of A are rows g, g + 8, g, g + 8; C and D have
// columns 2 t + {0, 1} of row g, then of row g + 8.
void multiply_narrow(const Party &party, int kind) {
    const int depth = kind == MMA_TF32 ? 8 : 16;
    float a[16][16], b[8][16];
    for (int lane = 0; lane < 32; lane++) {
        const Mma &operands = *party.operands<Mma>(u32(lane));
        const u32 *ra = static_cast<const u32 *>(operands.a);
        const u32 *rb = static_cast<const u32 *>(operands.b);
        const int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; i++) {
            const int row = g + (i % 2) * 8;
            if (kind == MMA_TF32) {
                // The low 13 bits are not read.
                a[row][t + (i / 2) * 4] = float_of_bits(ra[i] & 0xffffe000u);
            } else {
                const int column = 2 * t + (i / 2) * 8;
                a[row][column] = narrow(kind, u16(ra[i]));
                a[row][column + 1] = narrow(kind, u16(ra[i] >> 16));
            }
        }
        for (int i = 0; i < 2; i++) {
            if (kind == MMA_TF32) {
                b[g][t + i * 4] = float_of_bits(rb[i] & 0xffffe000u);
            } else {
                b[g][2 * t + i * 8] = narrow(kind, u16(rb[i]));
                b[g][2 * t + i * 8 + 1] = narrow(kind, u16(rb[i] >> 16));
            }
        }
    }
    for (int lane = 0; lane < 32; lane++) {
        float *d = static_cast<float *>(party.operands<Mma>(u32(lane))->d);
        const int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; i++) {
            const float *row = a[g + (i / 2) * 8], *column = b[2 * t + i % 2];
            double products[16], sum = d[i];
            for (int k = 0; k < depth; k++) products[k] = double(row[k]) * double(column[k]);
            for (int k = 0; k < depth; k++) sum += products[k];
            d[i] = run.truncate ? truncated_sum(d[i], products, depth, kind == MMA_TF32 ? 4 : 8)
                                : float(sum);
        }
    }
}

// "Matrix fragments for mma.m8n8k4 with .f64" and "... mma.m16n8k16 with .f64". Sums are chains of
// fused multiply-adds; the order on a device is not documented.
void multiply_f64(const Party &party, int kind) {
    const int depth = kind == MMA_F64_K4 ? 4 : 16;
    double a[16][16], b[8][16];
    for (int lane = 0; lane < 32; lane++) {
        const Mma &operands = *party.operands<Mma>(u32(lane));
        const double *ra = static_cast<const double *>(operands.a);
        const double *rb = static_cast<const double *>(operands.b);
        const int g = lane / 4, t = lane % 4;
        if (kind == MMA_F64_K4) {
            a[g][t] = ra[0], b[g][t] = rb[0];
        } else {
            for (int i = 0; i < 8; i++) a[g + (i % 2) * 8][i / 2 * 4 + t] = ra[i];
            for (int i = 0; i < 4; i++) b[g][4 * i + t] = rb[i];
        }
    }
    for (int lane = 0; lane < 32; lane++) {
        double *d = static_cast<double *>(party.operands<Mma>(u32(lane))->d);
        const int g = lane / 4, t = lane % 4;
        for (int i = 0; i < (kind == MMA_F64_K4 ? 2 : 4); i++)
            for (int k = 0; k < depth; k++)
                d[i] = fma(a[g + (i / 2) * 8][k], b[2 * t + i % 2][k], d[i]);
    }
}

} // namespace

COC_API void coc_mma(int kind, void *d, const void *a, const void *b, const char *file, int line) {
    Mma mine = {kind, d, a, b};
    collective(OP_MMA, FULL_MASK, {file, line}, &mine, [](const Party &party) {
        if (party.mask != FULL_MASK) fail(me->where, "mma needs a whole warp");
        const int kind = party.operands<Mma>(0)->kind;
        if (kind == MMA_F64_K4 || kind == MMA_F64_K16)
            multiply_f64(party, kind);
        else
            multiply_narrow(party, kind);
    });
}

// --- Asynchronous copies -------------------------------------------------------------------------

// The bytes land only when they are waited for, and until then their place holds NaN.
COC_API void coc_cp_async(void *shared, const void *global, int bytes, int valid, const char *file,
                          int line) {
    me->where = {file, line};
    const size_t size = size_t(bytes);
    if (valid < 0 || valid > bytes)
        fail(me->where, "cp.async: %d valid bytes of %d", valid, bytes);
    if (reinterpret_cast<uintptr_t>(shared) % size || reinterpret_cast<uintptr_t>(global) % size)
        fail(me->where, "cp.async: an address is misaligned: not a multiple of %d", bytes);
    check_access(me->where, me, shared, size, WRITE);
    if (!in_shared(shared, size))
        fail(me->where, "cp.async: the destination is not in shared memory");
    if (valid) check_access(me->where, me, global, size_t(valid), READ);
    if (valid) {
        // A source that cannot be read is found here and not at the wait.
        const volatile char *from = static_cast<const volatile char *>(global);
        (void)from[0], (void)from[valid - 1];
    }
    memset(shared, 0xff, size);
    check_in_flight(shared, size);
    me->copies.push_back({static_cast<char *>(shared), static_cast<const char *>(global),
                          u32(bytes), u32(valid), me->group});
}

COC_API void coc_cp_async_commit() { me->group++; }

COC_API void coc_cp_async_wait(int newest, const char *file, int line) {
    me->where = {file, line};
    size_t landed = 0;
    for (const Copy &copy : me->copies) {
        if (copy.group + u32(newest) >= me->group) break;
        memcpy(copy.to, copy.from, copy.valid);
        memset(copy.to + copy.valid, 0, copy.bytes - copy.valid);
        check_landed(copy.to, copy.bytes);
        landed++;
    }
    me->copies.erase(me->copies.begin(), me->copies.begin() + long(landed));
}

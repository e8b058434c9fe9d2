// The part of CUDA C++ that the kernels use, for a host compiler. Each CUDA thread is a fiber of
// the runtime; whatever lets another thread run, or looks at shared memory, is a call into it.
//
// No standard header is read: NVRTC has none either, and they would be most of the compile time.
#pragma once
#include <stddef.h>

#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __restrict__ __restrict
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
// Thread-local although one OS thread runs all: only so do all of them, those of templates
// included, lie in one block of memory that the runtime can find, poison and watch.
#define __shared__ thread_local

#ifndef __clang__
#define __builtin_assume(condition) ((void)0)
#endif

// The caller's place in the source, as the last arguments of whatever can fail or wait.
#define COC_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

typedef unsigned long long coc_u64;

// --- Vector types -------------------------------------------------------------------------------

#define COC_VECTORS(name, T, align2, align4)                                                       \
    struct name##1 { T x; };                                                                       \
    struct __attribute__((aligned(align2))) name##2 { T x, y; };                                   \
    struct name##3 { T x, y, z; };                                                                 \
    struct __attribute__((aligned(align4))) name##4 { T x, y, z, w; };                             \
    inline name##1 make_##name##1(T x) { return {x}; }                                             \
    inline name##2 make_##name##2(T x, T y) { return {x, y}; }                                     \
    inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                             \
    inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }

COC_VECTORS(char, signed char, 2, 4)
COC_VECTORS(uchar, unsigned char, 2, 4)
COC_VECTORS(short, short, 4, 8)
COC_VECTORS(ushort, unsigned short, 4, 8)
COC_VECTORS(int, int, 8, 16)
COC_VECTORS(uint, unsigned, 8, 16)
COC_VECTORS(long, long, 16, 16)
COC_VECTORS(ulong, unsigned long, 16, 16)
COC_VECTORS(longlong, long long, 16, 16)
COC_VECTORS(ulonglong, coc_u64, 16, 16)
COC_VECTORS(float, float, 8, 16)
COC_VECTORS(double, double, 16, 16)

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

// --- The runtime --------------------------------------------------------------------------------

enum { COC_SHFL_IDX, COC_SHFL_UP, COC_SHFL_DOWN, COC_SHFL_XOR };
enum { COC_VOTE_BALLOT, COC_VOTE_ANY, COC_VOTE_ALL, COC_VOTE_UNI };
enum { COC_SYNC, COC_SYNC_OR, COC_SYNC_AND, COC_SYNC_COUNT };
enum { COC_ADD, COC_MIN, COC_MAX, COC_AND, COC_OR, COC_XOR };
enum { COC_MMA_F16, COC_MMA_BF16, COC_MMA_TF32, COC_MMA_F64_K4, COC_MMA_F64_K16 };

extern "C" {
// By value and const: one call for each activation, and no load that the checker would see.
uint3 coc_thread_idx() __attribute__((const));
uint3 coc_block_idx() __attribute__((const));
uint3 coc_block_dim() __attribute__((const));
uint3 coc_grid_dim() __attribute__((const));
unsigned coc_lane() __attribute__((const));
unsigned char *coc_dynamic_shared() __attribute__((const));

int coc_syncthreads(int kind, int predicate, const char *file, int line);
void coc_syncwarp(unsigned mask, const char *file, int line);
coc_u64 coc_shfl(int kind, unsigned mask, coc_u64 bits, int lane, int width, const char *file,
                 int line);
unsigned coc_vote(int kind, unsigned mask, int predicate, const char *file, int line);
unsigned coc_match_any(unsigned mask, coc_u64 bits, const char *file, int line);
unsigned coc_reduce(int kind, int is_signed, unsigned mask, unsigned value, const char *file,
                    int line);
void coc_mma(int kind, void *d, const void *a, const void *b, const char *file, int line);
void coc_ldmatrix(unsigned *r, int count, int transposed, const void *shared, const char *file,
                  int line);
void coc_cp_async(void *shared, const void *global, int bytes, int valid, const char *file,
                  int line);
void coc_cp_async_commit();
void coc_cp_async_wait(int newest, const char *file, int line);
void coc_atomic_access(void *address, size_t bytes, const char *file, int line);
void coc_yield();
long long coc_clock();
[[noreturn]] void coc_trap(const char *file, int line);
}

#define threadIdx (coc_thread_idx())
#define blockIdx (coc_block_idx())
#define blockDim (coc_block_dim())
#define gridDim (coc_grid_dim())
constexpr int warpSize = 32;

// --- Bits ---------------------------------------------------------------------------------------

template <class To, class From> inline __attribute__((always_inline)) To coc_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "bit casts keep the size");
    To to;
    __builtin_memcpy(&to, &from, sizeof to);
    return to;
}

// A value of at most 8 bytes, as the shuffles carry it.
template <class T> inline coc_u64 coc_pack(T value) {
    static_assert(sizeof(T) <= 8, "a shuffle moves at most 8 bytes");
    coc_u64 bits = 0;
    __builtin_memcpy(&bits, &value, sizeof value);
    return bits;
}
template <class T> inline T coc_unpack(coc_u64 bits) {
    T value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}

inline int __float_as_int(float x) { return coc_bits<int>(x); }
inline unsigned __float_as_uint(float x) { return coc_bits<unsigned>(x); }
inline float __int_as_float(int x) { return coc_bits<float>(x); }
inline float __uint_as_float(unsigned x) { return coc_bits<float>(x); }
inline long long __double_as_longlong(double x) { return coc_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return coc_bits<double>(x); }
inline int __double2hiint(double x) { return int(coc_bits<coc_u64>(x) >> 32); }
inline int __double2loint(double x) { return int(coc_bits<coc_u64>(x)); }
inline double __hiloint2double(int hi, int lo) {
    return coc_bits<double>(coc_u64(unsigned(hi)) << 32 | unsigned(lo));
}

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(coc_u64 x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll(coc_u64(x)) : 64; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned __brev(unsigned x) {
    x = (x & 0x55555555u) << 1 | (x >> 1 & 0x55555555u);
    x = (x & 0x33333333u) << 2 | (x >> 2 & 0x33333333u);
    x = (x & 0x0f0f0f0fu) << 4 | (x >> 4 & 0x0f0f0f0fu);
    return __builtin_bswap32(x);
}
inline coc_u64 __brevll(coc_u64 x) {
    return coc_u64(__brev(unsigned(x))) << 32 | __brev(unsigned(x >> 32));
}
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(coc_u64(a) * b >> 32); }
inline int __mulhi(int a, int b) { return int((long long)a * b >> 32); }
inline coc_u64 __umul64hi(coc_u64 a, coc_u64 b) {
    return coc_u64((unsigned __int128)a * b >> 64);
}
inline long long __mul64hi(long long a, long long b) { return (long long)((__int128)a * b >> 64); }
inline unsigned __funnelshift_l(unsigned lo, unsigned hi, unsigned shift) {
    return unsigned((coc_u64(hi) << 32 | lo) << (shift & 31) >> 32);
}
inline unsigned __funnelshift_r(unsigned lo, unsigned hi, unsigned shift) {
    return unsigned((coc_u64(hi) << 32 | lo) >> (shift & 31));
}
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
    const coc_u64 bytes = coc_u64(y) << 32 | x;
    unsigned result = 0;
    for (int i = 0; i < 4; i++)
        result |= unsigned(bytes >> 8 * (selector >> 4 * i & 7) & 0xff) << 8 * i;
    return result;
}

template <class T> inline T __ldg(const T *p) { return *p; }
template <class T> inline T __ldcg(const T *p) { return *p; }
template <class T> inline T __ldcs(const T *p) { return *p; }
template <class T> inline void __stcs(T *p, T value) { *p = value; }
template <class T> inline void __stcg(T *p, T value) { *p = value; }

// --- Synchronisation, votes, shuffles -----------------------------------------------------------

inline void __syncthreads(COC_HERE) { coc_syncthreads(COC_SYNC, 0, file, line); }
inline int __syncthreads_or(int predicate, COC_HERE) {
    return coc_syncthreads(COC_SYNC_OR, predicate, file, line);
}
inline int __syncthreads_and(int predicate, COC_HERE) {
    return coc_syncthreads(COC_SYNC_AND, predicate, file, line);
}
inline int __syncthreads_count(int predicate, COC_HERE) {
    return coc_syncthreads(COC_SYNC_COUNT, predicate, file, line);
}
inline void __syncwarp(unsigned mask = 0xffffffffu, COC_HERE) { coc_syncwarp(mask, file, line); }

inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}
inline void __nanosleep(unsigned) { coc_yield(); }
inline long long clock64() { return coc_clock(); }
inline int clock() { return int(coc_clock()); }
[[noreturn]] inline void __trap(COC_HERE) { coc_trap(file, line); }

template <class T>
inline T __shfl_sync(unsigned mask, T value, int lane, int width = 32, COC_HERE) {
    return coc_unpack<T>(coc_shfl(COC_SHFL_IDX, mask, coc_pack(value), lane, width, file, line));
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, COC_HERE) {
    return coc_unpack<T>(
        coc_shfl(COC_SHFL_UP, mask, coc_pack(value), int(delta), width, file, line));
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, COC_HERE) {
    return coc_unpack<T>(
        coc_shfl(COC_SHFL_DOWN, mask, coc_pack(value), int(delta), width, file, line));
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, COC_HERE) {
    return coc_unpack<T>(coc_shfl(COC_SHFL_XOR, mask, coc_pack(value), lanes, width, file, line));
}

inline unsigned __ballot_sync(unsigned mask, int predicate, COC_HERE) {
    return coc_vote(COC_VOTE_BALLOT, mask, predicate, file, line);
}
inline int __any_sync(unsigned mask, int predicate, COC_HERE) {
    return int(coc_vote(COC_VOTE_ANY, mask, predicate, file, line));
}
inline int __all_sync(unsigned mask, int predicate, COC_HERE) {
    return int(coc_vote(COC_VOTE_ALL, mask, predicate, file, line));
}
template <class T> inline unsigned __match_any_sync(unsigned mask, T value, COC_HERE) {
    return coc_match_any(mask, coc_pack(value), file, line);
}

#define COC_REDUCE(name, kind)                                                                     \
    inline unsigned name(unsigned mask, unsigned value, COC_HERE) {                                \
        return coc_reduce(kind, 0, mask, value, file, line);                                       \
    }
#define COC_REDUCE_SIGNED(name, kind)                                                              \
    inline int name(unsigned mask, int value, COC_HERE) {                                          \
        return int(coc_reduce(kind, 1, mask, unsigned(value), file, line));                        \
    }
COC_REDUCE(__reduce_add_sync, COC_ADD)
COC_REDUCE(__reduce_min_sync, COC_MIN)
COC_REDUCE(__reduce_max_sync, COC_MAX)
COC_REDUCE(__reduce_and_sync, COC_AND)
COC_REDUCE(__reduce_or_sync, COC_OR)
COC_REDUCE(__reduce_xor_sync, COC_XOR)
COC_REDUCE_SIGNED(__reduce_add_sync, COC_ADD)
COC_REDUCE_SIGNED(__reduce_min_sync, COC_MIN)
COC_REDUCE_SIGNED(__reduce_max_sync, COC_MAX)

#include "math.inc"
#include "half.inc"

// --- Atomics ------------------------------------------------------------------------------------

// Fibers are not preempted: a plain update is atomic. The checker must hear of one atomic access,
// not of a load and a store.
template <class T, class F>
inline __attribute__((no_sanitize("thread"))) T coc_atomic(T *address, F update, const char *file,
                                                           int line) {
#ifdef COC_CHECK
    coc_atomic_access(address, sizeof(T), file, line);
#endif
    const T old = *address;
    *address = update(old);
    return old;
}

#define COC_ATOMIC(name, T, expression)                                                            \
    inline T name(T *address, T value, COC_HERE) {                                                 \
        return coc_atomic(address, [value](T old) -> T { return expression; }, file, line);        \
    }
#define COC_ATOMIC_INTEGER(T)                                                                      \
    COC_ATOMIC(atomicExch, T, ((void)old, value))                                                  \
    COC_ATOMIC(atomicMin, T, old < value ? old : value)                                            \
    COC_ATOMIC(atomicMax, T, old > value ? old : value)                                            \
    COC_ATOMIC(atomicAnd, T, old & value)                                                          \
    COC_ATOMIC(atomicOr, T, old | value)                                                           \
    COC_ATOMIC(atomicXor, T, old ^ value)                                                          \
    inline T atomicCAS(T *address, T expected, T value, COC_HERE) {                                \
        return coc_atomic(                                                                         \
            address, [=](T old) -> T { return old == expected ? value : old; }, file, line);       \
    }

COC_ATOMIC_INTEGER(int)
COC_ATOMIC_INTEGER(unsigned)
COC_ATOMIC_INTEGER(long long)
COC_ATOMIC_INTEGER(coc_u64)
// CUDA adds neither to long long nor subtracts from anything of 64 bits.
COC_ATOMIC(atomicAdd, int, int(unsigned(old) + unsigned(value)))
COC_ATOMIC(atomicAdd, unsigned, old + value)
COC_ATOMIC(atomicAdd, coc_u64, old + value)
COC_ATOMIC(atomicSub, int, int(unsigned(old) - unsigned(value)))
COC_ATOMIC(atomicSub, unsigned, old - value)
COC_ATOMIC(atomicInc, unsigned, old >= value ? 0u : old + 1u)
COC_ATOMIC(atomicDec, unsigned, old == 0u || old > value ? value : old - 1u)
COC_ATOMIC(atomicAdd, float, old + value)
COC_ATOMIC(atomicAdd, double, old + value)
COC_ATOMIC(atomicAdd, __half, __hadd(old, value))
COC_ATOMIC(atomicAdd, __nv_bfloat16, __hadd(old, value))
COC_ATOMIC(atomicExch, float, ((void)old, value))

#include "export.inc"
#include "wrappers.h"

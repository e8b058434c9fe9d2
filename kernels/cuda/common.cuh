// What every kernel needs: the element type, offsets, teams of threads and their reductions.
// The element type is given by -DLK_REAL=float or double (a macro T would reach into NVRTC's own
// headers); complex arrays travel as pairs.
#pragma once

typedef LK_REAL T;
typedef long long offset;

#define LK_FULL 0xffffffffu

// float and double under one name, so that no literal widens an expression.
__device__ __forceinline__ float lk_abs(float x) { return fabsf(x); }
__device__ __forceinline__ double lk_abs(double x) { return fabs(x); }
__device__ __forceinline__ float lk_max(float x, float y) { return fmaxf(x, y); }
__device__ __forceinline__ double lk_max(double x, double y) { return fmax(x, y); }
__device__ __forceinline__ float lk_sqrt(float x) { return __fsqrt_rn(x); }
__device__ __forceinline__ double lk_sqrt(double x) { return __dsqrt_rn(x); }
__device__ __forceinline__ float lk_fma(float x, float y, float z) { return fmaf(x, y, z); }
__device__ __forceinline__ double lk_fma(double x, double y, double z) { return fma(x, y, z); }

// Neither NaN nor infinity; a comparison with NaN is false.
__device__ __forceinline__ bool lk_finite(float x) { return fabsf(x) <= 3.402823466e38f; }
__device__ __forceinline__ bool lk_finite(double x) { return fabs(x) <= 1.7976931348623157e308; }

// 2^e exactly, for e within the normal range of T.
__device__ __forceinline__ float lk_power_of_two(float, int e) {
  return __int_as_float((e + 127) << 23);
}
__device__ __forceinline__ double lk_power_of_two(double, int e) {
  return __longlong_as_double((long long)(e + 1023) << 52);
}

// NaN of either type.
__device__ __forceinline__ float lk_nan(float) { return __int_as_float(0x7fffffff); }
__device__ __forceinline__ double lk_nan(double) {
  return __longlong_as_double(0x7fffffffffffffffLL);
}

// The modulus without overflow, NaN if either part is not finite.
__device__ __forceinline__ T lk_modulus(T x, T y) {
  const T u = lk_abs(x), v = lk_abs(y);
  if (!lk_finite(u) || !lk_finite(v)) return lk_nan(T());
  const T big = lk_max(u, v), small = u < v ? u : v;
  if (big == 0) return 0;
  const T ratio = small / big;
  return ratio == 0 ? big : big * lk_sqrt(lk_fma(ratio, ratio, (T)1));
}

// The larger of what is there and a non-negative x or NaN: bit patterns of such numbers are ordered
// as integers are, with NaN above infinity.
__device__ __forceinline__ void lk_raise(float *place, float x) {
  atomicMax((int *)place, __float_as_int(x));
}
__device__ __forceinline__ void lk_raise(double *place, double x) {
  atomicMax((unsigned long long *)place, (unsigned long long)__double_as_longlong(x));
}

// The t-th pair row <= col, counted column by column.
__device__ __forceinline__ void lk_pair(int t, int &row, int &col) {
  col = (int)((sqrtf(8.0f * t + 1.0f) - 1.0f) * 0.5f);
  while (col * (col + 1) / 2 > t) --col;
  while ((col + 1) * (col + 2) / 2 <= t) ++col;
  row = t - col * (col + 1) / 2;
}

struct Sum {
  template <class U> __device__ static U of(U x, U y) { return x + y; }
};
struct Max {
  template <class U> __device__ static U of(U x, U y) { return x > y ? x : y; }
};

// The threads that share a matrix: one warp of a block, or the whole block. `scratch` holds a
// value per warp of the team. Reductions run in one fixed order.
struct Warp {
  int rank, size;
  __device__ explicit Warp(double *) : rank(threadIdx.x & 31), size(32) {}
  __device__ void sync() const { __syncwarp(LK_FULL); }
  template <class Op, class U> __device__ U reduce(U x) const {
    for (int step = 16; step > 0; step >>= 1) x = Op::of(x, __shfl_xor_sync(LK_FULL, x, step));
    return x;
  }
};

struct Block {
  int rank, size;
  double *scratch;
  __device__ explicit Block(double *place)
      : rank(threadIdx.x), size(blockDim.x), scratch(place) {}
  __device__ void sync() const { __syncthreads(); }
  template <class Op, class U> __device__ U reduce(U x) const {
    for (int step = 16; step > 0; step >>= 1) x = Op::of(x, __shfl_xor_sync(LK_FULL, x, step));
    const int warps = size >> 5;
    if (warps == 1) return x;
    // whoever is still reading the last result must not find this one
    __syncthreads();
    if ((rank & 31) == 0) scratch[rank >> 5] = (double)x;
    __syncthreads();
    U total = (U)scratch[0];
    for (int w = 1; w < warps; ++w) total = Op::of(total, (U)scratch[w]);
    return total;
  }
};

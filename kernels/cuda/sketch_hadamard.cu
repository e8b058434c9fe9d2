// Fast Walsh-Hadamard transform: tiles of rows in shared memory, and the sampled rows of a block.
//
// A block takes 2^rows rows of `width` columns, coalesced, and up to four stages at a time in
// registers. Only additions in ascending order of strides: the bits are those of the CPU, whatever
// tiles there are. Floor: one read and one write of the array for each launch.
#include "common.cuh"
#include "lk_ptx.cuh"

// Columns of a tile whose rows are not contiguous.
#define LK_PANEL 32

// CuPy compiles with -ftz=true, under which a plain sum, product or negation loses subnormals.
__device__ __forceinline__ float lk_sum(float x, float y) { return lk_add_rn(x, y); }
__device__ __forceinline__ double lk_sum(double x, double y) { return x + y; }
__device__ __forceinline__ float lk_product(float x, float y) { return lk_mul_rn(x, y); }
__device__ __forceinline__ double lk_product(double x, double y) { return x * y; }
__device__ __forceinline__ float lk_negative(float x) {
  return __int_as_float((int)((unsigned)__float_as_int(x) ^ 0x80000000u));
}
__device__ __forceinline__ double lk_negative(double x) {
  const unsigned long long bits = (unsigned long long)__double_as_longlong(x);
  return __longlong_as_double((long long)(bits ^ 0x8000000000000000ull));
}

// One word in 128 bytes is left out, so that strides of powers of two do not share a bank.
__device__ __forceinline__ int lk_place(int e) { return e + (e >> (sizeof(T) == 4 ? 5 : 4)); }

// R stages, the first between elements `span` apart.
template <int R>
__device__ __forceinline__ void lk_stages(T *tile, int count, int span) {
  for (int q = threadIdx.x; q < count >> R; q += blockDim.x) {
    const int high = q / span, at = high * (span << R) + q - high * span;
    T v[1 << R];
#pragma unroll
    for (int i = 0; i < 1 << R; ++i) v[i] = tile[lk_place(at + i * span)];
#pragma unroll
    for (int h = 1; h < 1 << R; h <<= 1)
#pragma unroll
      for (int i = 0; i < 1 << R; ++i)
        if (!(i & h)) {
          const T x = v[i], y = v[i + h];
          v[i] = lk_sum(x, y);
          v[i + h] = lk_sum(x, lk_negative(y));
        }
#pragma unroll
    for (int i = 0; i < 1 << R; ++i) tile[lk_place(at + i * span)] = v[i];
  }
}

// `stages` stages between rows of `length` elements, the result times `scale`; x and out may be the
// same. width: length, and a tile is contiguous, or LK_PANEL columns. Rows of x from rows_in on are
// zero; flips (or null) has a one where a row is negated first. rows_in, rows_out: of all members.
extern "C" __global__ void __launch_bounds__(512, 1)
hadamard_tiles(const T *x, T *out, const unsigned char *flips, offset rows_in, offset rows_out,
               offset length, int width, int rows, int stages, T scale, offset tiles) {
  extern __shared__ __align__(16) unsigned char smem[];
  T *tile = (T *)smem;
  const int count = width << rows;
  const bool contiguous = width == length;
  const offset panels = (length + width - 1) / width;
  for (offset work = blockIdx.x; work < tiles; work += gridDim.x) {
    const offset row = work / panels << rows, column = work % panels * width;
    const offset start = row * length + column;
    for (int e = threadIdx.x; e < count; e += blockDim.x) {
      const int i = contiguous ? (flips ? e / width : 0) : e / LK_PANEL, c = e % LK_PANEL;
      const bool inside = contiguous ? start + e < rows_in * length
                                     : row + i < rows_in && column + c < length;
      T value = 0;
      if (inside) {
        value = x[start + (contiguous ? e : i * length + c)];
        if (flips && flips[row + i]) value = lk_negative(value);
      }
      tile[lk_place(e)] = value;
    }
    for (int done = 0; done < stages;) {
      // as even as they can be
      const int rounds = (stages - done + 3) / 4, next = (stages - done + rounds - 1) / rounds;
      const int span = width << done;
      __syncthreads();
      if (next == 4) lk_stages<4>(tile, count, span);
      if (next == 3) lk_stages<3>(tile, count, span);
      if (next == 2) lk_stages<2>(tile, count, span);
      if (next == 1) lk_stages<1>(tile, count, span);
      done += next;
    }
    __syncthreads();
    for (int e = threadIdx.x; e < count; e += blockDim.x) {
      const int i = e / LK_PANEL, c = e % LK_PANEL;
      const T value = lk_product(tile[lk_place(e)], scale);
      if (contiguous) {
        if (start + e < rows_out * length) out[start + e] = value;
      } else if (row + i < rows_out && column + c < length) {
        out[start + i * length + c] = value;
      }
    }
    // no barrier: the same thread puts the next tile's entry where it read this one's
  }
}

// out[r] (+)= +-H[picks[r]]: of 2^(low + high) rows transformed, all but the first 2^low zero before,
// those are in `work`.
extern "C" __global__ void __launch_bounds__(256, 1)
hadamard_sample(const T *work, const offset *picks, const unsigned char *outs, T *out, offset count,
                offset columns, int low, int high, int add) {
  const offset mask = ((offset)1 << low) - 1, top = ((offset)1 << high) - 1;
  for (offset r = blockIdx.x; r < count; r += gridDim.x) {
    const T *source = work + (picks[r] & mask) * columns;
    T *target = out + r * columns;
    // a stage with rows of zeros: v - 0 is v, and v + 0 is v unless v is -0
    const bool whole = picks[r] >> low == top, flip = outs[r];
    for (offset c = threadIdx.x; c < columns; c += blockDim.x) {
      T value = source[c];
      if (!whole) value = lk_sum(value, (T)0);
      if (flip) value = lk_negative(value);
      target[c] = add ? lk_sum(target[c], value) : value;
    }
  }
}

// Random numbers of a stream and tiles of operators.
//
// Floor: what is written over bandwidth. A call costs 20 wide products, of integers, and 100
// operations in double precision for a pair of normals: on devices with full double precision
// about as long as its bytes take; elsewhere arithmetic is the floor of normals.
// Lines begin anywhere: `call` is the call of the first number, `skip` what is left out of it.
#include "common.cuh"
#include "sketch_philox.cuh"

// Two numbers that are stored at once.
template <class U> struct __align__(2 * sizeof(U)) Pair {
  U first, second;
};

template <class P, class U> __device__ __forceinline__ bool together(const U *out, offset at,
                                                                     offset n) {
  return at >= 0 && at + (offset)(sizeof(P) / sizeof(U)) <= n
         && (counter)(out + at) % sizeof(P) == 0;
}

template <class U>
__device__ __forceinline__ void put_pair(U *out, offset at, offset n, U first, U second) {
  if (together<Pair<U>>(out, at, n)) {
    *(Pair<U> *)(out + at) = {first, second};
    return;
  }
  if (at >= 0 && at < n) out[at] = first;
  if (at + 1 >= 0 && at + 1 < n) out[at + 1] = second;
}

__device__ __forceinline__ void put_words(unsigned *out, offset at, offset n, uint4 w) {
  if (together<uint4>(out, at, n)) {
    *(uint4 *)(out + at) = w;
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i)
    if (at + i >= 0 && at + i < n) out[at + i] = lk_word(w, i);
}

__device__ __forceinline__ T sign_of(unsigned word, int bit) {
  return word >> bit & 1 ? (T)-1 : (T)1;
}

// --- Lines ---------------------------------------------------------------------------------------

extern "C" __global__ void __launch_bounds__(256, 1)
words(unsigned *out, offset n, counter call, int skip, unsigned k0, unsigned k1, unsigned tag) {
  const offset step = (offset)gridDim.x * blockDim.x;
  for (offset i = (offset)blockIdx.x * blockDim.x + threadIdx.x; 4 * i - skip < n; i += step)
    put_words(out, 4 * i - skip, n, lk_philox(call + i, 0, tag, k0, k1));
}

extern "C" __global__ void __launch_bounds__(256, 1)
uniforms(double *out, offset n, counter call, int skip, unsigned k0, unsigned k1, unsigned tag) {
  const offset step = (offset)gridDim.x * blockDim.x;
  for (offset i = (offset)blockIdx.x * blockDim.x + threadIdx.x; 2 * i - skip < n; i += step) {
    const uint4 w = lk_philox(call + i, 0, tag, k0, k1);
    const double first = __dsub_rn(lk_fraction(w.x, w.y), 1.0);
    put_pair(out, 2 * i - skip, n, first, __dsub_rn(lk_fraction(w.z, w.w), 1.0));
  }
}

// Rounded from double precision; none but zero is below 7e-24, so that flushing changes nothing.
extern "C" __global__ void __launch_bounds__(256, 1)
normals(T *out, offset n, counter call, int skip, unsigned k0, unsigned k1, unsigned tag) {
  const offset step = (offset)gridDim.x * blockDim.x;
  for (offset i = (offset)blockIdx.x * blockDim.x + threadIdx.x; 2 * i - skip < n; i += step) {
    const double2 z = lk_normal_pair(lk_philox(call + i, 0, tag, k0, k1));
    put_pair(out, 2 * i - skip, n, (T)z.x, (T)z.y);
  }
}

// A lane makes 128 signs; the warp writes each of its words along the lanes.
extern "C" __global__ void __launch_bounds__(256, 1)
signs(T *out, offset n, counter call, int skip, unsigned k0, unsigned k1, unsigned tag) {
  const int lane = threadIdx.x & 31;
  const offset step = (offset)gridDim.x * blockDim.x;
  const offset begin = (offset)blockIdx.x * blockDim.x + threadIdx.x - lane;
  for (offset i = begin; 128 * i - skip < n; i += step) {
    const uint4 w = lk_philox(call + i + lane, 0, tag, k0, k1);
    for (int from = 0; from < 32; ++from)
#pragma unroll
      for (int q = 0; q < 4; ++q) {
        const unsigned word = __shfl_sync(LK_FULL, lk_word(w, q), from);
        const offset at = 128 * (i + from) + 32 * q + lane - skip;
        if (at >= 0 && at < n) out[at] = sign_of(word, lane);
      }
  }
}

// Lemire's integers in [0, high); threshold = 2^64 mod high.
extern "C" __global__ void __launch_bounds__(256, 1)
integers(long long *out, offset n, counter start, counter high, counter threshold, unsigned k0,
         unsigned k1, unsigned tag) {
  const offset step = (offset)gridDim.x * blockDim.x;
  for (offset i = (offset)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
    counter bits;
    for (unsigned attempt = 0;; ++attempt) {
      const uint4 w = lk_philox(start + i, attempt, tag, k0, k1);
      bits = (counter)w.x << 32 | w.y;
      if (bits * high >= threshold) break;
      bits = (counter)w.z << 32 | w.w;
      if (bits * high >= threshold) break;
    }
    out[i] = (long long)__umul64hi(bits, high);
  }
}

// --- Tiles: entries (row, col) and on of an operator, a piece of 256 columns per block -----------

extern "C" __global__ void __launch_bounds__(256, 1)
normal_tile(T *out, offset rows, offset cols, offset row, counter col, unsigned k0, unsigned k1,
            unsigned tag) {
  const offset pieces = (cols + 255) / 256, first = row / 2;
  const offset pairs = (row + rows + 1) / 2 - first;
  for (offset work = blockIdx.x; work < pairs * pieces; work += gridDim.x) {
    const offset pair = first + work / pieces, c = work % pieces * 256 + threadIdx.x;
    if (c >= cols) continue;
    const double2 z = lk_normal_pair(lk_philox(col + c, (unsigned)pair, tag, k0, k1));
    const offset r = 2 * pair - row;
    if (r >= 0) out[r * cols + c] = (T)z.x;
    if (r + 1 < rows) out[(r + 1) * cols + c] = (T)z.y;
  }
}

extern "C" __global__ void __launch_bounds__(256, 1)
sign_tile(T *out, offset rows, offset cols, offset row, counter col, unsigned k0, unsigned k1,
          unsigned tag) {
  const offset pieces = (cols + 255) / 256, first = row / 128;
  const offset groups = (row + rows + 127) / 128 - first;
  for (offset work = blockIdx.x; work < groups * pieces; work += gridDim.x) {
    const offset group = first + work / pieces, c = work % pieces * 256 + threadIdx.x;
    if (c >= cols) continue;
    const uint4 w = lk_philox(col + c, (unsigned)group, tag, k0, k1);
    const offset top = 128 * group - row;
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      const unsigned word = lk_word(w, q);
      for (int bit = 0; bit < 32; ++bit) {
        const offset r = top + 32 * q + bit;
        if (r >= 0 && r < rows) out[r * cols + c] = sign_of(word, bit);
      }
    }
  }
}

// bucket << 1 | negative for data rows col to col + m: (m, nnz), four of a row at once.
extern "C" __global__ void __launch_bounds__(256, 1)
stack_hashes(unsigned *out, offset m, int nnz, unsigned buckets, counter col, unsigned k0,
             unsigned k1, unsigned tag) {
  const int groups = (nnz + 3) / 4;
  for (offset work = blockIdx.x; 256 * work < m * groups; work += gridDim.x) {
    // one long division a block
    const offset top = 256 * work / groups;
    const int rest = (int)(256 * work - top * groups) + threadIdx.x;
    const offset i = top + rest / groups;
    const int group = rest % groups;
    if (i >= m) continue;
    const uint4 w = lk_philox(col + i, group, tag, k0, k1);
    unsigned place[4];
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      const unsigned word = lk_word(w, q);
      const unsigned bucket = (unsigned)((counter)(word >> 1) * buckets >> 31);
      place[q] = ((4 * group + q) * buckets + bucket) << 1 | (word & 1);
    }
    // numbers beyond the row's last belong to nobody
    put_words(out + i * nnz, 4 * group, nnz, make_uint4(place[0], place[1], place[2], place[3]));
  }
}

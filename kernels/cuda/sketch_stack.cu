// A sparse-stack sketch times a matrix, without atomics in any sum: S A in the canonical order of
// kernels/cpu/sketch_stack.py, and S^T Y.
//
// Each block of 2^14 data rows is sorted by where its rows go, for each of the nnz blocks of rows
// of the result by itself: lists of rows, ascending. An entry of the result belongs to one thread,
// which walks its list; a warp reads 512 bytes of each row.
// Floor of S A ("gather"): m n bytes of A from memory once, and nnz times from the second-level
// cache, which holds the panel of 512 bytes of a block's rows (8 MB) that all lists share; beside
// it 4 nnz bytes a row to read the places and 2 nnz to write and to read the lists. Of S^T Y: m n
// written, nnz m n read from the second-level cache.
#include "common.cuh"
#include "lk_ptx.cuh"

#define BLOCK 16384
#define PANEL (512 / (int)sizeof(T))  // columns of a warp
#define EACH (PANEL / 32)             // columns of a thread
#define AHEAD 4                       // rows on their way
#define BINS 1024
#define BITS 10
#define WARPS 16  // of a block of 512 threads

typedef unsigned short small;

__device__ __forceinline__ float add(float x, float y) { return lk_add_rn(x, y); }
__device__ __forceinline__ double add(double x, double y) { return __dadd_rn(x, y); }
__device__ __forceinline__ float mul(float x, float y) { return lk_mul_rn(x, y); }
__device__ __forceinline__ double mul(double x, double y) { return __dmul_rn(x, y); }

// The sign as bits: a negation may flush what is subnormal.
__device__ __forceinline__ float with_sign(float x, unsigned negative) {
  return __uint_as_float(__float_as_uint(x) ^ negative << 31);
}
__device__ __forceinline__ double with_sign(double x, unsigned negative) {
  const unsigned long long sign = (unsigned long long)negative << 63;
  return __longlong_as_double((long long)((unsigned long long)__double_as_longlong(x) ^ sign));
}

// Rows of the data in a block of 2^14; the first row stands at `first` in the first of them.
struct Rows {
  offset begin;
  int count;
  __device__ Rows(offset block, int first, offset m) {
    const offset low = block * BLOCK - first, high = low + BLOCK;
    begin = low > 0 ? low : 0;
    count = (int)((high < m ? high : m) - begin);
  }
};

// --- Lists ---------------------------------------------------------------------------------------

// Warps take runs of rows. Ranks of a step of 32 rows: how many before have the same digit.
struct Digits {
  small *count;  // of this warp
  int lane;

  // Where the lane's row goes; counts move on.
  __device__ int place(int digit, bool inside) const {
    const unsigned same = __match_any_sync(LK_FULL, inside ? digit : BINS);
    const int leader = __ffs((int)same) - 1;
    int base = 0;
    if (inside && lane == leader) {
      base = count[digit];
      count[digit] = (small)(base + __popc(same));
    }
    base = __shfl_sync(LK_FULL, base, leader);
    __syncwarp(LK_FULL);
    return base + __popc(same & ((1u << lane) - 1));
  }
};

// Segment (block, t): list = rows within the block with their signs as bit 14, by bucket and then
// by row; starts[bucket] for bucket = 0 ... buckets. Digits of ten bits, the lowest first; `spare`
// holds a list for each block of threads.
extern "C" __global__ void __launch_bounds__(512, 1)
stack_lists(const unsigned *h, small *lists, small *starts, small *spare, offset m, int nnz,
            int buckets, int first, offset block, int blocks, int passes) {
  __shared__ small counts[WARPS][BINS];
  __shared__ int totals[WARPS];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const Digits digits = {counts[warp], lane};
  for (offset work = blockIdx.x; work < (offset)blocks * nnz; work += gridDim.x) {
    const Rows rows(block + work / nnz, first, m);
    const int t = (int)(work % nnz);
    const unsigned *places = h + rows.begin * nnz + t;
    const unsigned base = (unsigned)t * buckets;
    small *list = lists + work * BLOCK, *start = starts + work * (buckets + 1);
    const int each = ((rows.count + WARPS - 1) / WARPS + 31) & ~31;
    const int low = warp * each, high = min(low + each, rows.count);
    for (int pass = 0; pass < passes; ++pass) {
      small *to = (passes - pass) % 2 ? list : spare + (offset)blockIdx.x * BLOCK;
      const small *from = (passes - pass) % 2 ? spare + (offset)blockIdx.x * BLOCK : list;
      for (int bin = lane; bin < BINS; bin += 32) counts[warp][bin] = 0;
      __syncwarp(LK_FULL);
      for (int step = low; step < high; step += 32) {
        const int i = step + lane;
        unsigned place = 0;
        if (i < high) place = places[(offset)(pass ? from[i] & (BLOCK - 1) : i) * nnz];
        digits.place(((place >> 1) - base) >> BITS * pass & (BINS - 1), i < high);
      }
      __syncthreads();
      // bins by ascending digit, in each the warps by ascending row; a thread has two bins
      int sums[2] = {0, 0};
      for (int w = 0; w < WARPS; ++w)
        for (int b = 0; b < 2; ++b) sums[b] += counts[w][2 * threadIdx.x + b];
      int before = sums[0] + sums[1];
      for (int step = 1; step < 32; step <<= 1) {
        const int other = __shfl_up_sync(LK_FULL, before, step);
        if (lane >= step) before += other;
      }
      if (lane == 31) totals[warp] = before;
      __syncthreads();
      before -= sums[0] + sums[1];
      for (int w = 0; w < warp; ++w) before += totals[w];
      for (int b = 0; b < 2; ++b)
        for (int w = 0; w < WARPS; ++w) {
          const int count = counts[w][2 * threadIdx.x + b];
          counts[w][2 * threadIdx.x + b] = (small)before;
          before += count;
        }
      __syncthreads();
      for (int step = low; step < high; step += 32) {
        const int i = step + lane;
        unsigned place = 0;
        int row = i;
        if (i < high) {
          if (pass) row = from[i] & (BLOCK - 1);
          place = places[(offset)row * nnz];
        }
        const int at =
            digits.place(((place >> 1) - base) >> BITS * pass & (BINS - 1), i < high);
        if (i < high) to[at] = (small)(row | (place & 1) << 14);
      }
      __syncthreads();
    }
    // where a bucket differs from the one before it, its list and those of empty ones begin
    for (int i = threadIdx.x; i <= rows.count; i += blockDim.x) {
      int here = buckets, last = -1;
      if (i < rows.count) here = (int)((places[(offset)(list[i] & (BLOCK - 1)) * nnz] >> 1) - base);
      if (i > 0) last = (int)((places[(offset)(list[i - 1] & (BLOCK - 1)) * nnz] >> 1) - base);
      for (int bucket = last + 1; bucket <= here; ++bucket) start[bucket] = (small)i;
    }
  }
}

// --- Sums ----------------------------------------------------------------------------------------

// Numbers 0, 1, ... to the threads: panels of columns one after another, in a panel the rows, in a
// row the lanes, so that what runs at the same time reads the same panel. A lane has the columns
// col, col + lanes, ... below n.
struct Panels {
  offset n;
  int full, lanes_of_last;
  __device__ explicit Panels(offset n) : n(n), full((int)(n / PANEL)) {
    lanes_of_last = (int)((n - (offset)full * PANEL + EACH - 1) / EACH);
  }
  __device__ offset lanes() const { return (offset)full * 32 + lanes_of_last; }
  __device__ void find(offset number, offset rows, offset &row, offset &col, int &lanes) const {
    const offset panel = number / (32 * rows);
    const offset rest = number - panel * 32 * rows;
    lanes = panel < full ? 32 : lanes_of_last;
    row = rest / lanes;
    col = panel * PANEL + rest % lanes;
  }
};

// out (k, n) = scale (out + sums of some blocks), or without out where it is fresh; split: the
// partial sums (blocks, k, n), each from zero.
extern "C" __global__ void __launch_bounds__(256, 1)
stack_sum(const T *a, const small *lists, const small *starts, T *out, offset m, offset n, offset k,
          int nnz, int buckets, int first, offset block, int blocks, bool split, bool fresh,
          T scale) {
  const Panels panels(n);
  const offset each = k * panels.lanes(), step = (offset)gridDim.x * blockDim.x;
  offset number = (offset)blockIdx.x * blockDim.x + threadIdx.x;
  for (; number < (split ? blocks : 1) * each; number += step) {
    const int low = split ? (int)(number / each) : 0, high = split ? low + 1 : blocks;
    offset r, col;
    int lanes;
    panels.find(number - low * each, k, r, col, lanes);
    const int t = (int)(r / buckets), bucket = (int)(r - (offset)t * buckets);
    T *place = out + (low * k + r) * n + col;
    T total[EACH];
    bool mine[EACH];
#pragma unroll
    for (int v = 0; v < EACH; ++v) {
      // lanes of the last panel have what they share, not a whole row's
      mine[v] = col + v * lanes < n;
      total[v] = mine[v] && !fresh ? place[v * lanes] : (T)0;
    }
    for (int b = low; b < high; ++b) {
      const Rows rows(block + b, first, m);
      const offset segment = (offset)b * nnz + t;
      const small *list = lists + segment * BLOCK, *start = starts + segment * (buckets + 1);
      const T *data = a + rows.begin * n + col;
      const int end = start[bucket + 1];
      T part[EACH];
#pragma unroll
      for (int v = 0; v < EACH; ++v) part[v] = 0;
      for (int i = start[bucket]; i < end; i += AHEAD) {
        T x[AHEAD][EACH];
#pragma unroll
        for (int u = 0; u < AHEAD; ++u) {
          const bool inside = i + u < end;
          const unsigned entry = inside ? list[i + u] : 0;
          const T *row = data + (offset)(entry & (BLOCK - 1)) * n;
          // no sum that began with +0 is -0: adding +0 for a row beyond the last changes nothing
#pragma unroll
          for (int v = 0; v < EACH; ++v)
            x[u][v] = inside && mine[v] ? with_sign(row[v * lanes], entry >> 14) : (T)0;
        }
#pragma unroll
        for (int u = 0; u < AHEAD; ++u)
#pragma unroll
          for (int v = 0; v < EACH; ++v) part[v] = add(part[v], x[u][v]);
      }
#pragma unroll
      for (int v = 0; v < EACH; ++v) total[v] = add(total[v], part[v]);
    }
#pragma unroll
    for (int v = 0; v < EACH; ++v)
      if (mine[v]) place[v * lanes] = split ? total[v] : mul(total[v], scale);
  }
}

// out = scale (out + parts of the blocks, ascending), or without out where it is fresh.
extern "C" __global__ void __launch_bounds__(256, 1)
stack_fold(const T *parts, T *out, offset size, int blocks, bool fresh, T scale) {
  const offset step = (offset)gridDim.x * blockDim.x;
  for (offset i = (offset)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += step) {
    T total = fresh ? (T)0 : out[i];
    for (int b = 0; b < blocks; ++b) total = add(total, parts[b * size + i]);
    out[i] = mul(total, scale);
  }
}

// out (m, n): rows that are scale times the sum of nnz signed rows of y, in order.
extern "C" __global__ void __launch_bounds__(256, 1)
stack_gather(const T *y, const unsigned *h, T *out, offset m, offset n, int nnz, T scale) {
  const Panels panels(n);
  const offset step = (offset)gridDim.x * blockDim.x;
  offset number = (offset)blockIdx.x * blockDim.x + threadIdx.x;
  for (; number < m * panels.lanes(); number += step) {
    offset i, col;
    int lanes;
    panels.find(number, m, i, col, lanes);
    T total[EACH];
#pragma unroll
    for (int v = 0; v < EACH; ++v) total[v] = 0;
#pragma unroll 4
    for (int t = 0; t < nnz; ++t) {
      const unsigned place = h[i * nnz + t];
      const T *row = y + (offset)(place >> 1) * n + col;
#pragma unroll
      for (int v = 0; v < EACH; ++v)
        if (col + v * lanes < n) total[v] = add(total[v], with_sign(row[v * lanes], place & 1));
    }
#pragma unroll
    for (int v = 0; v < EACH; ++v)
      if (col + v * lanes < n) out[i * n + col + v * lanes] = mul(total[v], scale);
  }
}

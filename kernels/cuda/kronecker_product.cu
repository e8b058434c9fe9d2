// Products with Kronecker products: several factors at a time on a tile in shared memory, and one
// large factor by blocks.
//
// A stage multiplies the slices of its tile, rows of numbers along the last mode, by one factor and
// writes the products with that mode in front: out[i][s] = sum_k F[i][k] x[s][k]. Each stage finds
// its mode last again and leaves the others in order, so that nothing is transposed but the
// columns of a tile on their way in (Jangda and Yadav, "Fast Kronecker Matrix-Matrix
// Multiplication on GPUs", PPoPP 2024, Algorithm 1). Products wait in registers until everybody has
// read the tile: one buffer does. Complex numbers are pairs, and their factors real matrices of
// twice the order [[re, -im], [im, re]], which costs the four products that it has to.
//
// Floor: a read and a write of the array for each launch. TENSOR=1: float64 by DMMA m8n8k4, float32
// by m16n8k8 on the upper and lower halves of its numbers (3xTF32).
#include "common.cuh"
#include "lk_ptx.cuh"

#define CHUNK (16 / (int)sizeof(T))  // numbers in 16 bytes
#define LINE (8 * CHUNK)             // in 128 bytes, as many as there are banks
#define FACTORS 12                   // of a launch

struct __align__(16) Chunk {
  T at[CHUNK];
};

// 16 bytes are left out after each 128, and again after each 2048: rows and columns of powers of
// two lie in different banks, and no chunk is torn.
__device__ __forceinline__ int place(int e) {
  const int line = (int)((unsigned)e / LINE);
  return e + (line + (int)((unsigned)line / 16)) * CHUNK;
}

__device__ __forceinline__ void copy(float *to, const float *from) { lk_cp_async_4(to, from); }
__device__ __forceinline__ void copy(double *to, const double *from) { lk_cp_async_8(to, from); }

// Division of numbers below 2^16 by one of them.
struct Divisor {
  unsigned by, inverse;
  __device__ explicit Divisor(int d) : by(d), inverse(d > 1 ? 0xffffffffu / d + 1 : 0) {}
  __device__ int of(int n) const { return by == 1 ? n : (int)__umulhi((unsigned)n, inverse); }
};

// --- What a warp multiplies ----------------------------------------------------------------------

// Eight rows of a factor times LENGTH slices, or if it is `square` sixteen times half as many: 128
// bytes a lane. value(j, i) belongs to row(j) + i, and row(j) is even, and to slice(j), counted from
// the warp's first.
//
// multiply adds the products of `depth` numbers of each slice: those of slice s stand from s pitch
// on, those of the factor by columns of `width`, with columns of zeros up to a multiple of STEP.
// Slices beyond `last` are that one once more.
#define LENGTH (512 / (int)sizeof(T))

#if TENSOR

#define STEP 8

template <class U> struct Share;

template <> struct Share<double> {
  static const int ROWS = 2, SLICES = 8;
  const int square, g, t;
  double d[8][2];

  __device__ explicit Share(bool square)
      : square(square), g((threadIdx.x & 31) >> 2), t(threadIdx.x & 3), d() {}
  __device__ int row(int j) const { return (j & square) * 8 + 2 * t; }
  __device__ int slice(int j) const { return (j >> square) * 8 + g; }
  __device__ double value(int j, int i) const { return d[j][i]; }

  __device__ void multiply(const double *tile, int first, int last, int pitch,
                           const double *factor, int width, int depth) {
    const bool whole = depth % STEP == 0;
#pragma unroll 1
    for (int start = 0; start < depth; start += STEP) {
      // two steps of four: a lane has neighbours in memory, as a sum may take any order
      const int k = start + 2 * t;
      double f[2][2];
#pragma unroll
      for (int v = 0; v < 2; ++v) {
        f[0][v] = factor[(k + v) * width + g];
        f[1][v] = square ? factor[(k + v) * width + 8 + g] : f[0][v];
      }
      Chunk x;
      // from here step by step: addresses ready made would take registers
      int next = (first + g) * pitch + k;
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        if (!(j & square)) {
          const int at = min(next, last * pitch + k);
          if (whole) {
            x = *(const Chunk *)(tile + place(at));
          } else {
            for (int v = 0; v < 2; ++v) x.at[v] = k + v < depth ? tile[place(at + v)] : 0.0;
          }
          next += 8 * pitch;
        }
#pragma unroll
        for (int v = 0; v < 2; ++v) lk_mma_m8n8k4_f64(d[j], x.at[v], f[j % 2][v]);
      }
    }
  }
};

// x = upper + lower, both of eleven bits, to 2^-23 of x.
__device__ __forceinline__ void split(float x, unsigned &upper, unsigned &lower) {
  upper = lk_to_tf32(x);
  lower = lk_to_tf32(x - __uint_as_float(upper));
}

template <> struct Share<float> {
  static const int ROWS = 2, SLICES = 16;
  const int square, g, t;
  float d[8][4];

  __device__ explicit Share(bool square)
      : square(square), g((threadIdx.x & 31) >> 2), t(threadIdx.x & 3), d() {}
  __device__ int row(int j) const { return (j / 2 & square) * 8 + 2 * t; }
  __device__ int slice(int j) const { return (j / 2 >> square) * 16 + j % 2 * 8 + g; }
  __device__ float value(int j, int i) const { return d[j / 2][j % 2 * 2 + i]; }

  __device__ void multiply(const float *tile, int first, int last, int pitch, const float *factor,
                           int width, int depth) {
    const bool whole = depth % STEP == 0;
#pragma unroll 1
    for (int start = 0; start < depth; start += STEP) {
      const int k = start + 2 * t;
      unsigned upper[2][2], lower[2][2];
#pragma unroll
      for (int v = 0; v < 2; ++v) {
        const float *f = factor + (k + v) * width + g;
        split(f[0], upper[0][v], lower[0][v]);
        split(f[square * 8], upper[1][v], lower[1][v]);
      }
      unsigned x[4], rest[4];
      int next = (first + g) * pitch + k;
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        if (!(j & square)) {
#pragma unroll
          for (int h = 0; h < 2; ++h) {
            const int at = min(next, last * pitch + k);
            float2 pair;
            if (whole) {
              pair = *(const float2 *)(tile + place(at));
            } else {
              pair.x = k < depth ? tile[place(at)] : 0.0f;
              pair.y = k + 1 < depth ? tile[place(at + 1)] : 0.0f;
            }
            split(pair.x, x[h], rest[h]);
            split(pair.y, x[h + 2], rest[h + 2]);
            next += 8 * pitch;
          }
        }
        // the small ones first; what is left out, lower times lower, is 2^-24 of the whole. Tensor
        // cores cut off what others round (Ootomo and Yokota 2022, section 3): sums of eight only
        float sum[4] = {0, 0, 0, 0};
        lk_mma_m16n8k8_tf32(sum, rest, upper[j % 2]);
        lk_mma_m16n8k8_tf32(sum, x, lower[j % 2]);
        lk_mma_m16n8k8_tf32(sum, x, upper[j % 2]);
#pragma unroll
        for (int v = 0; v < 4; ++v) d[j][v] += sum[v];
      }
    }
  }
};

#else

#define STEP 1

template <class U> struct Share {
  static const int ROWS = 8, SLICES = LENGTH / 32;
  const int lane;
  T d[SLICES][ROWS];

  __device__ explicit Share(bool) : lane(threadIdx.x & 31), d() {}
  __device__ int row(int) const { return 0; }
  __device__ int slice(int j) const { return 32 * j + lane; }
  __device__ T value(int j, int i) const { return d[j][i]; }

  __device__ void add(const T (&x)[SLICES], const T *column) {
    Chunk f[ROWS / CHUNK];
#pragma unroll
    for (int i = 0; i < ROWS / CHUNK; ++i) f[i] = ((const Chunk *)column)[i];
#pragma unroll
    for (int j = 0; j < SLICES; ++j)
#pragma unroll
      for (int i = 0; i < ROWS; ++i) d[j][i] = lk_fma(f[i / CHUNK].at[i % CHUNK], x[j], d[j][i]);
  }

  __device__ void multiply(const T *tile, int first, int last, int pitch, const T *factor,
                           int width, int depth) {
    const int step = depth % CHUNK == 0 ? CHUNK : 1;
    int at[SLICES];
#pragma unroll
    for (int j = 0; j < SLICES; ++j) at[j] = min(first + slice(j), last) * pitch;
#pragma unroll 1
    for (int k = 0; k < depth; k += step) {
      T x[SLICES];
      if (step == 1) {
#pragma unroll
        for (int j = 0; j < SLICES; ++j) x[j] = tile[place(at[j] + k)];
        add(x, factor + k * width);
        continue;
      }
      Chunk some[SLICES];
#pragma unroll
      for (int j = 0; j < SLICES; ++j) some[j] = *(const Chunk *)(tile + place(at[j] + k));
#pragma unroll
      for (int v = 0; v < CHUNK; ++v) {
#pragma unroll
        for (int j = 0; j < SLICES; ++j) x[j] = some[j].at[v];
        add(x, factor + (k + v) * width);
      }
    }
  }
};

#endif

// Rows of a factor in shared memory, what one of its columns takes, and how many there are.
__device__ __forceinline__ int padded(int rows) { return (rows + 7) / 8 * 8; }
__device__ __forceinline__ int width_of(int rows) { return padded(rows) + CHUNK; }
__device__ __forceinline__ bool is_square(int rows) { return TENSOR && padded(rows) % 16 == 0; }
__device__ __forceinline__ int columns_of(int depth) { return (depth + STEP - 1) / STEP * STEP; }

// The real number at (row, column) of the matrix that stands for re + i im.
__device__ __forceinline__ T embedded(T re, T im, int row, int column) {
  return row == column ? re : row ? im : -im;
}

// --- Several factors -----------------------------------------------------------------------------

struct Factors {
  const T *at[FACTORS];
  __device__ const T *get(int n) const {
    const T *found = at[0];
#pragma unroll
    for (int j = 1; j < FACTORS; ++j)
      if (j == n) found = at[j];
    return found;
  }
};

// The Kronecker product of neighbouring factors, by columns. sizes: (p, q) of each.
__device__ void load_factor(T *to, const Factors &factors, const int *sizes, int first, int count,
                            int rows, int depth, int planes, int set) {
  const int width = width_of(rows), shift = planes - 1;
  for (int e = threadIdx.x; e < columns_of(depth) * width; e += blockDim.x) {
    const int k = e / width, r = e - k * width;
    T value = 0;
    if (r < rows && k < depth) {
      int i = r >> shift, j = k >> shift;
      T re = 1, im = 0;
      for (int n = count - 1; n >= 0; --n) {
        const int p = sizes[2 * (first + n)], q = sizes[2 * (first + n) + 1];
        const int row = i % p, column = j % q;
        const T *f = factors.get(first + n) + (((offset)set * p + row) * q + column) * planes;
        const T a = f[0], b = shift ? f[1] : (T)0;
        const T was = re;
        re = n == count - 1 ? a : shift ? re * a - im * b : re * a;
        im = n == count - 1 ? b : was * b + im * a;
        i /= p, j /= q;
      }
      value = embedded(re, im, r & shift, k & shift);
    }
    to[e] = value;
  }
}

// Slices of a tile: `each` of every member.
struct Slices {
  int total, each;
  bool several;
  Divisor by_each;
  __device__ Slices(int members, int each)
      : total(members * each), each(each), several(members > 1), by_each(each) {}
  __device__ int member(int s) const { return several ? by_each.of(s) : 0; }
};

// rows, depth: of the factor, in real numbers.
__device__ __forceinline__ void stage(T *tile, const T *factor, int rows, int depth, int planes,
                                      const Slices &slices) {
  const bool square = is_square(rows);
  const int warp = threadIdx.x >> 5, shift = planes - 1, height = square ? 16 : 8;
  const int across = padded(rows) / height;
  const int top = warp % across * height, first = warp / across * (LENGTH * 8 / height);
  const bool busy = first < slices.total;
  Share<T> share(square);
  if (busy)
    share.multiply(tile, first, slices.total - 1, depth, factor + top, width_of(rows), depth);
  __syncthreads();
  if (busy) {
#pragma unroll
    for (int j = 0; j < share.SLICES; ++j) {
      const int s = first + share.slice(j);
      if (s >= slices.total) continue;
      const int member = slices.member(s), rest = s - member * slices.each;
      const int step = slices.each * planes;
      const int r = top + share.row(j);
      int to = (member * rows + r >> shift) * step + rest * planes;
#pragma unroll
      for (int i = 0; i < share.ROWS; ++i) {
        if (r + i < rows) tile[place(to)] = share.value(j, i);
        to += shift && i % 2 == 0 ? 1 : step - shift;
      }
    }
  }
  __syncthreads();
}

// x (sets, members, size_in, after) -> out (sets, members, size_out, after), which may be the same
// where sizes are. A tile: `together` members whole, or `width` columns of one. plan: first factor,
// count, p and q of each stage, the last mode first; then (p, q) of each factor. room: numbers of a
// tile in shared memory.
extern "C" __global__ void __launch_bounds__(640, 1)
kron_tiles(const T *x, T *out, const T *f0, const T *f1, const T *f2, const T *f3, const T *f4,
           const T *f5, const T *f6, const T *f7, const T *f8, const T *f9, const T *f10,
           const T *f11, const int *plan, int stages, int planes, int room, offset members,
           offset after, int size_in, int size_out, int together, int width, int chunks,
           int panels, int tiles) {
  extern __shared__ __align__(16) unsigned char smem[];
  T *tile = (T *)smem;
  const Factors factors = {{f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11}};
  const int shift = planes - 1;
  int loaded = -1;
  for (int work = blockIdx.x; work < tiles; work += gridDim.x) {
    const int panel = work % panels, chunk = work / panels % chunks, set = work / panels / chunks;
    const offset begin = (offset)chunk * together, left = (offset)panel * width;
    const int here = (int)(members - begin < together ? members - begin : together);
    const int columns = (int)(after - left < width ? after - left : width);
    const int across = columns * planes, count = here * size_in * across;
    const T *from = x + ((set * members + begin) * size_in * after + left) * planes;
    if (after == 1) {
      const int whole = ((unsigned long long)from & 15) == 0 ? count / CHUNK * CHUNK : 0;
      for (int e = threadIdx.x * CHUNK; e < whole; e += blockDim.x * CHUNK)
        lk_cp_async_16(tile + place(e), from + e);
      for (int e = whole + threadIdx.x; e < count; e += blockDim.x)
        copy(tile + place(e), from + e);
    } else {
      const Divisor by_across(across), by_size(size_in);
      for (int e = threadIdx.x; e < count; e += blockDim.x) {
        const int row = by_across.of(e), c = e - row * across;
        const int member = here > 1 ? by_size.of(row) : 0, i = row - member * size_in;
        const int to = (member * columns + (c >> shift)) * size_in + i;
        copy(tile + place(to * planes + (c & shift)), from + row * after * planes + c);
      }
    }
    lk_cp_async_commit();
    if (set != loaded) {
      T *to = tile + room;
      for (int n = 0; n < stages; ++n) {
        const int *s = plan + 4 * n;
        const int rows = s[2] * planes, depth = s[3] * planes;
        load_factor(to, factors, plan + 4 * stages, s[0], s[1], rows, depth, planes, set);
        to += columns_of(depth) * width_of(rows);
      }
      loaded = set;
    }
    lk_cp_async_wait<0>();
    __syncthreads();
    const T *factor = tile + room;
    int size = size_in;
    for (int n = 0; n < stages; ++n) {
      const int p = plan[4 * n + 2], q = plan[4 * n + 3];
      const int rows = p * planes, depth = q * planes;
      const Slices slices(here, columns * (size / q));
      stage(tile, factor, rows, depth, planes, slices);
      factor += columns_of(depth) * width_of(rows);
      size = size / q * p;
    }
    T *to = out + ((set * members + begin) * size_out * after + left) * planes;
    const Divisor by_across(across);
    for (int e = threadIdx.x; e < here * size_out * across; e += blockDim.x) {
      const int row = by_across.of(e);
      to[row * after * planes + e - row * across] = tile[place(e)];
    }
    __syncthreads();
  }
}

// --- One factor ----------------------------------------------------------------------------------

#define HEIGHT 64  // rows that the eight warps of a block have

// x (sets, members, q, after) -> out (sets, members, p, after), f (sets, p, q). A block has HEIGHT
// rows and LENGTH slices, which are columns of members one after another.
extern "C" __global__ void __launch_bounds__(512, 1)
kron_mode(const T *x, const T *f, T *out, offset members, offset after, int p, int q, int planes,
          int across, offset along, offset tiles) {
  extern __shared__ __align__(16) unsigned char smem[];
  T *tile = (T *)smem, *factor = tile + place(LENGTH * LINE);
  const int shift = planes - 1, rows = p * planes, depth = q * planes, width = HEIGHT + CHUNK;
  const int warp = threadIdx.x >> 5;
  const int height = TENSOR ? 16 : 8;
  const int row = warp % (HEIGHT / height) * height;
  const int first = warp / (HEIGHT / height) * (LENGTH * 8 / height);
  const offset slices = members * after;
  for (offset work = blockIdx.x; work < tiles; work += gridDim.x) {
    const int top = (int)(work % across) * HEIGHT;
    const offset begin = work / across % along * LENGTH, set = work / across / along;
    const int here = (int)(slices - begin < LENGTH ? slices - begin : LENGTH);
    const T *from = x + set * slices * q * planes;
    // threads side by side read side by side: the slices of one number, or the numbers of a slice
    const bool wide = after >= 16;
    const int own = wide ? threadIdx.x % LENGTH : threadIdx.x / LINE;
    Share<T> share(TENSOR);
    for (int start = 0; start < depth; start += LINE) {
      const int some = min(depth - start, LINE);
      for (int s = own; s < here; s += wide ? LENGTH : blockDim.x / LINE) {
        const offset slice = begin + s, member = after == 1 ? slice : slice / after;
        const T *line = from + ((member * q - member) * after + slice) * planes;
        int k = wide ? threadIdx.x / LENGTH : threadIdx.x % LINE;
        for (; k < some; k += wide ? blockDim.x / LENGTH : LINE)
          copy(tile + place(s * LINE + k),
               line + ((start + k) >> shift) * after * planes + (k & shift));
      }
      lk_cp_async_commit();
      for (int e = threadIdx.x; e < HEIGHT * LINE; e += blockDim.x) {
        const int r = top + e / LINE, k = e % LINE;
        T value = 0;
        if (r < rows && k < some) {
          const T *at = f + ((set * p + (r >> shift)) * q + ((start + k) >> shift)) * planes;
          value = embedded(at[0], at[shift], r & shift, k & shift);
        }
        factor[k * width + e / LINE] = value;
      }
      lk_cp_async_wait<0>();
      __syncthreads();
      if (first < here) share.multiply(tile, first, here - 1, LINE, factor + row, width, some);
      __syncthreads();
    }
#pragma unroll
    for (int j = 0; j < share.SLICES; ++j) {
      const int s = first + share.slice(j);
      if (s >= here) continue;
      const offset slice = begin + s, member = after == 1 ? slice : slice / after;
      const offset step = after * planes;
      T *to = out + set * slices * p * planes + member * p * step;
      to += (slice - member * after) * planes;
      const int r = top + row + share.row(j);
      to += (r >> shift) * step;
#pragma unroll
      for (int i = 0; i < share.ROWS; ++i) {
        if (r + i < rows) *to = share.value(j, i);
        to += shift && i % 2 == 0 ? 1 : step - shift;
      }
    }
  }
}

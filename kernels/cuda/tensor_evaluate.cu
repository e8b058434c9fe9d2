// A Chebyshev-Tucker function at scattered points: a block takes 32 or 64 of them, one or two to a
// lane, and its warps share the work on columns of factors and on entries of the core.
//
// Polynomials live in registers only: each warp runs the recurrence for eight columns of a factor at
// a time. Factors and core are read by whole warps at one address, points' values of the factors
// from shared memory. Of the core the first one or two modes are contracted in registers for eight
// entries of the others at a time. Floor: sum m_k r_k + prod r_k FMAs for each point.
#include "common.cuh"

// Columns, or entries of the core, that a warp has in registers.
#define LK_WIDE 8
// Points of a lane, which read an entry together: PER, by -D.
#define LK_POINTS (32 * PER)

// Four places for variables; of who is not there the length is one and the factor null.
struct Place {
  const T *factor, *slope;
  int m, r, row, at;  // row: of x, or -1; at: row of the values in shared memory
};

// values[at + i] = sum_j T_j(t) u[j, i] for up to eight columns i from `column` on.
__device__ __forceinline__ void
lk_columns(const T *u, int m, int r, int column, const T *t, T *values) {
  T sum[PER][LK_WIDE] = {}, before[PER], now[PER];
#pragma unroll
  for (int p = 0; p < PER; ++p) {
    before[p] = t[p];  // T_{-1} = T_1
    now[p] = 1;
  }
  for (int j = 0; j < m; ++j) {
#pragma unroll
    for (int q = 0; q < LK_WIDE; ++q) {
      const T c = column + q < r ? u[(offset)j * r + column + q] : (T)0;
#pragma unroll
      for (int p = 0; p < PER; ++p) sum[p][q] = lk_fma(now[p], c, sum[p][q]);
    }
#pragma unroll
    for (int p = 0; p < PER; ++p) {
      const T next = lk_fma(2 * t[p], now[p], -before[p]);
      before[p] = now[p];
      now[p] = next;
    }
  }
#pragma unroll
  for (int q = 0; q < LK_WIDE; ++q)
    if (column + q < r)
#pragma unroll
      for (int p = 0; p < PER; ++p) values[q * LK_POINTS + 32 * p] = sum[p][q];
}

// x (d, n), y (1 or 1 + d, n); core (ra, rb, rc, rd).
extern "C" __global__ void __launch_bounds__(128, 1)
tucker_points(const T *x, const T *core, T *y, const T *fa, const T *fb, const T *fc, const T *fd,
              const T *sa, const T *sb, const T *sc, const T *sd, const int *sizes, offset n,
              int slopes, offset blocks) {
  extern __shared__ __align__(16) unsigned char smem[];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  Place place[4] = {{fa, sa}, {fb, sb}, {fc, sc}, {fd, sd}};
  int total = 0;
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    place[k].m = sizes[3 * k];
    place[k].r = sizes[3 * k + 1];
    place[k].row = sizes[3 * k + 2];
    place[k].at = total;
    total += place[k].r;
  }
  // values of the factors, of their slopes, and a sum for each warp and row of y
  T *const values = (T *)smem, *const steep = values + (offset)total * LK_POINTS;
  T *const sums = steep + (slopes ? (offset)total * LK_POINTS : 0);
  const int ra = place[0].r, rb = place[1].r, rc = place[2].r, rd = place[3].r, rest = rc * rd;
  const T *const ea = values + place[0].at * LK_POINTS, *const eb = values + place[1].at * LK_POINTS;
  const T *const ec = values + place[2].at * LK_POINTS, *const ed = values + place[3].at * LK_POINTS;
  const offset ahead = steep - values;
  const int entries = (rest + LK_WIDE - 1) / LK_WIDE;
  // the core meets the first two variables' values, and either one's slopes
  const int kinds = slopes ? (place[1].row < 0 ? 2 : 3) : 1;
  for (offset block = blockIdx.x; block < blocks; block += gridDim.x) {
    const offset first = block * LK_POINTS + lane;
    int turn = 0;
    for (int k = 0; k < 4; ++k) {
      const Place own = place[k];
      if (own.row < 0) {
        if (warp == 0)
          for (int p = 0; p < PER; ++p) {
            values[own.at * LK_POINTS + lane + 32 * p] = 1;
            if (slopes) steep[own.at * LK_POINTS + lane + 32 * p] = 0;
          }
        continue;
      }
      T t[PER];
#pragma unroll
      for (int p = 0; p < PER; ++p)
        t[p] = first + 32 * p < n ? x[own.row * n + first + 32 * p] : (T)0;
      for (int s = 0; s < (slopes ? 2 : 1); ++s)
        for (int column = 0; column < own.r; column += LK_WIDE, ++turn)
          if (turn % warps == warp)
            lk_columns(s ? own.slope : own.factor, own.m, own.r, column, t,
                       (s ? steep : values) + (own.at + column) * LK_POINTS + lane);
    }
    __syncthreads();
    // by the value and the derivatives in the order of the places
    T found[PER][5] = {};
    for (int task = warp; task < kinds * entries; task += warps) {
      const int kind = task / entries, from = (task - kind * entries) * LK_WIDE;
      T sum[PER][LK_WIDE] = {};
      for (int a = 0; a < ra; ++a)
        for (int b = 0; b < rb; ++b) {
          const T *const c = core + ((offset)a * rb + b) * rest + from;
          T e[PER];
#pragma unroll
          for (int p = 0; p < PER; ++p)
            e[p] = ea[a * LK_POINTS + lane + 32 * p + (kind == 1 ? ahead : 0)] *
                   eb[b * LK_POINTS + lane + 32 * p + (kind == 2 ? ahead : 0)];
#pragma unroll
          for (int q = 0; q < LK_WIDE; ++q) {
            const T g = from + q < rest ? c[q] : (T)0;
#pragma unroll
            for (int p = 0; p < PER; ++p) sum[p][q] = lk_fma(g, e[p], sum[p][q]);
          }
        }
#pragma unroll
      for (int q = 0; q < LK_WIDE; ++q)
        if (from + q < rest) {
          const int c = (from + q) / rd, d = from + q - c * rd;
#pragma unroll
          for (int p = 0; p < PER; ++p) {
            const offset at_c = c * LK_POINTS + lane + 32 * p, at_d = d * LK_POINTS + lane + 32 * p;
            const T u = ec[at_c], v = ed[at_d];
            if (kind == 0) {
              found[p][0] = lk_fma(u * v, sum[p][q], found[p][0]);
              if (slopes) {
                found[p][3] = lk_fma(ec[at_c + ahead] * v, sum[p][q], found[p][3]);
                found[p][4] = lk_fma(u * ed[at_d + ahead], sum[p][q], found[p][4]);
              }
            } else if (kind == 1) {
              found[p][1] = lk_fma(u * v, sum[p][q], found[p][1]);
            } else {
              found[p][2] = lk_fma(u * v, sum[p][q], found[p][2]);
            }
          }
        }
    }
    const int rows = slopes ? 5 : 1;
#pragma unroll
    for (int i = 0; i < 5; ++i)
      if (i < rows)
#pragma unroll
        for (int p = 0; p < PER; ++p)
          sums[(warp * rows + i) * LK_POINTS + lane + 32 * p] = found[p][i];
    __syncthreads();
    for (int e = threadIdx.x; e < rows * LK_POINTS; e += blockDim.x) {
      const int i = e / LK_POINTS, p = e - i * LK_POINTS;
      const int row = i == 0 ? 0 : sizes[3 * (i - 1) + 2] + 1;
      if ((i && row == 0) || block * LK_POINTS + p >= n) continue;
      T sum = 0;
      for (int w = 0; w < warps; ++w) sum += sums[(w * rows + i) * LK_POINTS + p];
      y[row * n + block * LK_POINTS + p] = sum;
    }
    // the next points' values go where nobody reads any more; their sums are written after a barrier
  }
}

// What stands between two large matrix products, in one pass over memory each.
//
// Floor: bytes moved over bandwidth; next to the products of order n they cost a share of about
// flops per byte / n. Complex arrays are pairs; rows of all members are numbered through.
#include "common.cuh"

// out = a I + b M + c S with coeffs[member][step] = (a, b, c).
extern "C" __global__ void __launch_bounds__(256, 1)
polynomial(const T *m, const T *s, const T *coeffs, T *out, offset rows, int n, int planes,
           int steps, int step) {
  for (offset row = blockIdx.x; row < rows; row += gridDim.x) {
    const T *c = coeffs + (row / n * steps + step) * 3;
    const T c0 = c[0], c1 = c[1], c2 = c[2];
    const int diagonal = (int)(row % n) * planes;
    const offset start = row * n * planes;
    for (int j = threadIdx.x; j < n * planes; j += blockDim.x) {
      T value = lk_fma(c2, s[start + j], c1 * m[start + j]);
      if (j == diagonal) value += c0;
      out[start + j] = value;
    }
  }
}

// X <- (X + X^H) / 2 in place, a pair of mirrored 32 x 32 tiles per block.
extern "C" __global__ void __launch_bounds__(256, 1)
symmetrise(T *x, offset batch, int n, int planes, int tiles) {
  __shared__ T mirror[32][2 * 32 + 1];
  const int pairs = tiles * (tiles + 1) / 2;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  for (offset work = blockIdx.x; work < batch * pairs; work += gridDim.x) {
    int right, low;
    lk_pair((int)(work % pairs), right, low);
    const int i0 = low * 32, j0 = right * 32;
    T *m = x + work / pairs * n * n * planes;
    for (int r = warp; r < 32; r += 8) {
      if (j0 + r >= n || i0 + lane >= n) continue;
      for (int p = 0; p < planes; ++p)
        mirror[r][planes * lane + p] = m[((offset)(j0 + r) * n + i0 + lane) * planes + p];
    }
    __syncthreads();
    for (int r = warp; r < 32; r += 8) {
      const int i = i0 + r, j = j0 + lane;
      // a tile on the diagonal is its own mirror: its lower half decides
      if (i >= n || j >= n || j > i) continue;
      const offset at = ((offset)i * n + j) * planes;
      for (int p = 0; p < planes; ++p) {
        const T other = mirror[lane][planes * r + p];
        const T mean = (T)0.5 * (m[at + p] + (p ? -other : other));
        m[at + p] = mean;
        mirror[lane][planes * r + p] = p ? -mean : mean;
      }
    }
    __syncthreads();
    for (int r = warp; r < 32; r += 8) {
      const int i = j0 + r, j = i0 + lane;
      if (i >= n || j >= n || j <= i) continue;
      for (int p = 0; p < planes; ++p)
        m[((offset)i * n + j) * planes + p] = mirror[r][planes * lane + p];
    }
    // no barrier: the next tile comes where the same thread has just read
  }
}

// A step of the product form of Denman-Beavers (see general_sqrt in _ops.py): with N = inverse and
// mu per member, X' = mu/2 X + X N / (2 mu), M' = I/2 + mu^2 M / 4 + N / (4 mu^2), and the largest
// |M' - I| of each member. Members that are not going keep what they have.
extern "C" __global__ void __launch_bounds__(256, 1)
db_step(const T *x, const T *product, const T *m, const T *inverse, const T *mu,
        const bool *going, T *new_x, T *new_m, T *distance, offset rows, int n,
        int planes) {
  for (offset row = blockIdx.x; row < rows; row += gridDim.x) {
    const offset item = row / n;
    const T scale = mu[item], square = scale * scale;
    const bool active = going[item];
    const int diagonal = (int)(row % n);
    T far = 0;
    for (int j = threadIdx.x; j < n; j += blockDim.x) {
      T gap[2] = {0, 0};
      for (int p = 0; p < planes; ++p) {
        const offset at = (row * n + j) * planes + p;
        T xx = x[at], mm = m[at];
        if (active) {
          xx = (T)0.5 * (scale * xx + product[at] / scale);
          mm = (T)0.25 * (square * mm + inverse[at] / square);
          if (j == diagonal && p == 0) mm += (T)0.5;
        }
        new_x[at] = xx;
        new_m[at] = mm;
        gap[p] = j == diagonal && p == 0 ? mm - (T)1 : mm;
      }
      // NaN has to be seen
      const T size = lk_modulus(gap[0], gap[1]);
      far = size >= 0 && far >= 0 ? lk_max(far, size) : lk_nan(T());
    }
    lk_raise(distance + item, far);
  }
}

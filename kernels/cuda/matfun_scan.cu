// Structure of each member: largest entry, largest |a_ij - conj(a_ji)|, largest off the diagonal.
//
// A block takes one pair of mirrored 32 x 32 tiles, so that both are read along rows; results meet in
// atomic maxima of bit patterns, which order non-negative numbers as integers do and put NaN above
// infinity. Floor: one read of the batch.
#include "common.cuh"

// found: (3, batch), zero before; planes: 1 real, 2 complex.
extern "C" __global__ void __launch_bounds__(256, 1)
hermitian_scan(const T *a, T *found, offset batch, int n, int planes, int tiles) {
  __shared__ T mirror[32][2 * 32 + 1];
  const int pairs = tiles * (tiles + 1) / 2;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  for (offset work = blockIdx.x; work < batch * pairs; work += gridDim.x) {
    const offset item = work / pairs;
    int right, low;
    lk_pair((int)(work % pairs), right, low);
    const T *m = a + item * n * n * planes;
    const int i0 = low * 32, j0 = right * 32;
    for (int r = warp; r < 32; r += 8)
      for (int p = 0; p < planes; ++p) {
        const bool inside = j0 + r < n && i0 + lane < n;
        mirror[r][planes * lane + p] =
            inside ? m[((offset)(j0 + r) * n + i0 + lane) * planes + p] : (T)0;
      }
    __syncthreads();
    T largest = 0, defect = 0, spread = 0;
    for (int r = warp; r < 32; r += 8) {
      const int i = i0 + r, j = j0 + lane;
      if (i >= n || j >= n) continue;
      const offset at = ((offset)i * n + j) * planes;
      const T x = m[at], u = mirror[lane][planes * r];
      const T y = planes == 2 ? m[at + 1] : (T)0, v = planes == 2 ? mirror[lane][2 * r + 1] : (T)0;
      const T here = lk_modulus(x, y), there = lk_modulus(u, v);
      const T gap = lk_modulus(x - u, y + v);
      const T size = here >= there ? here : there;
      // a comparison with NaN is false, so NaN is looked for by itself
      const bool bad = !(here >= 0) || !(there >= 0);
      largest = bad || !(largest >= 0) ? lk_nan(T()) : lk_max(largest, size);
      // two finite entries may differ by more than the type holds
      defect = bad || !(defect >= 0) ? lk_nan(T()) : lk_max(defect, gap >= 0 ? gap : size);
      if (i != j) spread = bad || !(spread >= 0) ? lk_nan(T()) : lk_max(spread, size);
    }
    lk_raise(found + item, largest);
    lk_raise(found + batch + item, defect);
    lk_raise(found + 2 * batch + item, spread);
    __syncthreads();
  }
}

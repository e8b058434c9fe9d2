// A warp per matrix, see matfun_roots.cuh. Matrices are small enough for several warps in a block.
#include "matfun_roots.cuh"

extern "C" __global__ void __launch_bounds__(128, 1)
root_warp(const T *a, T *out, double *report, int *bad, const double *table, offset batch,
          int half, int planes, int ld, int whole, int num, int den, int rows, int width,
          int finish, double tol) {
  extern __shared__ __align__(16) unsigned char smem[];
  const Call call = {half, planes, ld, whole, num, den, rows, width, finish, tol};
  const Warp team(nullptr);
  const int warps = blockDim.x >> 5, warp = threadIdx.x >> 5;
  const int room = 4 * ld * ld + ld;
  T *mine = (T *)smem + (offset)warp * room;
  const offset stride = (offset)half * half * planes;
  for (offset k = (offset)blockIdx.x * warps + warp; k < batch; k += (offset)gridDim.x * warps)
    solve(team, a + k * stride, out + k * stride, report + 4 * k, bad, table, mine,
          mine + 4 * ld * ld, call);
}

// A block per matrix, see matfun_roots.cuh. At most 384 threads leave each the registers it needs.
#include "matfun_roots.cuh"

extern "C" __global__ void __launch_bounds__(384, 1)
root_block(const T *a, T *out, double *report, int *bad, const double *table, offset batch,
           int half, int planes, int ld, int whole, int num, int den, int rows, int width,
           int finish, double tol) {
  extern __shared__ __align__(16) unsigned char smem[];
  const Call call = {half, planes, ld, whole, num, den, rows, width, finish, tol};
  T *mine = (T *)smem;
  T *turns = mine + 4 * ld * ld;
  const Block team((double *)(turns + ld));
  const offset stride = (offset)half * half * planes;
  for (offset k = blockIdx.x; k < batch; k += gridDim.x)
    solve(team, a + k * stride, out + k * stride, report + 4 * k, bad, table, mine, turns, call);
}

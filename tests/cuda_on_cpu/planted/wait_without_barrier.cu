// A wait is for the thread's own copies, and others' are read.
extern "C" __global__ void wait_without_barrier(const float *in, float *out, int n) {
    __shared__ __align__(16) float s[256];
    const int t = threadIdx.x;
    lk_cp_async_16(&s[4 * t], &in[4 * t]);
    lk_cp_async_commit();
    lk_cp_async_wait<0>();
#ifdef FIXED
    __syncthreads();
#endif
    out[t] = s[4 * (n - 1 - t)]; // BUG
}

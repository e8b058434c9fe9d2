// Threads read what others write, with no barrier between.
extern "C" __global__ void barrier_before_use(const float *in, float *out, int n) {
    __shared__ float s[64];
    const int t = threadIdx.x;
    s[t] = in[t];
#ifdef FIXED
    __syncthreads();
#endif
    out[t] = s[n - 1 - t]; // BUG
}

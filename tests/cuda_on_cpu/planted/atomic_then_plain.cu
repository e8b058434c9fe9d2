// A sum made by atomics is read before all have added to it.
extern "C" __global__ void atomic_then_plain(const float *in, float *out, int) {
    __shared__ float total;
    const int t = threadIdx.x;
    if (t == 0) total = 0.0f;
    __syncthreads();
    atomicAdd(&total, in[t]);
#ifdef FIXED
    __syncthreads();
#endif
    out[t] = total; // BUG
}

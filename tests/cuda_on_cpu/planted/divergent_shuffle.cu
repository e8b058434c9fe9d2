// One half of a warp shuffles, the other waits at a barrier.
extern "C" __global__ void divergent_shuffle(const float *in, float *out, int) {
    const int t = threadIdx.x;
    float x = in[t];
#ifdef FIXED
    x = __shfl_xor_sync(0xffffffffu, x, 1);
#else
    if (t % 32 < 16) x = __shfl_xor_sync(0xffffffffu, x, 1); // BUG
#endif
    __syncthreads();
    out[t] = x;
}

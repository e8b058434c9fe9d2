// A tile is overwritten while others still read it.
extern "C" __global__ void barrier_after_use(const float *in, float *out, int n) {
    __shared__ float s[64];
    const int t = threadIdx.x;
    float sum = 0.0f;
    for (int tile = 0; tile < 2; tile++) {
        s[t] = in[t] + tile; // BUG
        __syncthreads();
        sum += s[n - 1 - t];
#ifdef FIXED
        __syncthreads();
#endif
    }
    out[t] = sum;
}

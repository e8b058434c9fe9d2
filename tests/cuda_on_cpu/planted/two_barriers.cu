// The threads of a block wait at different barriers.
extern "C" __global__ void two_barriers(const float *in, float *out, int n) {
    const int t = threadIdx.x;
    float x = in[t];
#ifdef FIXED
    __syncthreads();
#else
    if (t < n / 2)
        __syncthreads();
    else
        __syncthreads(); // BUG
#endif
    out[t] = x;
}

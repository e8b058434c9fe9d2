// More dynamic shared memory is used than was asked for.
extern "C" __global__ void dynamic_overflow(const float *in, float *out, int) {
    extern __shared__ __align__(16) unsigned char smem[];
    float *s = reinterpret_cast<float *>(smem);
    const int t = threadIdx.x;
#ifdef FIXED
    if (t < 32) s[t] = in[t];
    __syncthreads();
    out[t] = s[t % 32];
#else
    s[t] = in[t]; // BUG
    __syncthreads();
    out[t] = s[t % 32];
#endif
}

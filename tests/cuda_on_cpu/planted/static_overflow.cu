// A row of a shared array is one element too short.
extern "C" __global__ void static_overflow(const float *in, float *out, int) {
    __shared__ struct { float a[64], b[64]; } s;
    const int t = threadIdx.x;
    s.a[t] = in[t];
    __syncthreads();
#ifdef FIXED
    out[t] = s.a[(t + 1) % 64];
#else
    out[t] = s.a[t + 1]; // BUG
#endif
    s.b[t] = 0.0f;
}

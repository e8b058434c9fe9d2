// The first thread stores one element before the array.
extern "C" __global__ void store_before(const float *in, float *out, int n) {
    const int t = threadIdx.x;
#ifdef FIXED
    out[(t + n - 1) % n] = in[t];
#else
    out[t - 1] = in[t]; // BUG
#endif
}

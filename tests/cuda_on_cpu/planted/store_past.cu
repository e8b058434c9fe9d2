// The last thread stores one element past the array.
extern "C" __global__ void store_past(const float *in, float *out, int n) {
    const int t = threadIdx.x;
#ifdef FIXED
    out[(t + 1) % n] = in[t];
#else
    out[t + 1] = in[t]; // BUG
#endif
}

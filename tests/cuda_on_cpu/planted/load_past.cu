// A whole row past the end is read.
extern "C" __global__ void load_past(const float *in, float *out, int n) {
    const int t = threadIdx.x;
#ifdef FIXED
    out[t] = in[t] + in[(t + 16) % n];
#else
    out[t] = in[t] + in[t + 16]; // BUG
#endif
}

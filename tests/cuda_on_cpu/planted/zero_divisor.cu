// A device gives some number here; what is meant it is not.
extern "C" __global__ void zero_divisor(const float *in, float *out, int n) {
    const int t = threadIdx.x;
#ifdef FIXED
    out[t] = in[t] + float(n / (t + 1));
#else
    out[t] = in[t] + float(n / t); // BUG
#endif
}

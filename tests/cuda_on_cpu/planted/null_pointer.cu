// An optional argument is read without asking whether it is there.
extern "C" __global__ void null_pointer(const float *in, float *out, const float *scale) {
    const int t = threadIdx.x;
#ifdef FIXED
    out[t] = scale ? in[t] * scale[t] : in[t];
#else
    out[t] = in[t] * scale[t]; // BUG
#endif
}

// Pairs are read from an odd element on.
extern "C" __global__ void misaligned(const float *in, float *out, int) {
    const int t = threadIdx.x;
#ifdef FIXED
    const float2 pair = make_float2(in[2 * t + 1], in[2 * t + 2]);
#else
    const float2 pair = *reinterpret_cast<const float2 *>(in + 2 * t + 1); // BUG
#endif
    out[t] = pair.x + pair.y;
}

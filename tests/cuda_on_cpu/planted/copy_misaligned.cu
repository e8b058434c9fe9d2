// Copies of 16 bytes start at an odd element.
extern "C" __global__ void copy_misaligned(const float *in, float *out, int) {
    __shared__ __align__(16) float s[256];
    const int t = threadIdx.x;
#ifdef FIXED
    for (int i = 0; i < 3; i++) lk_cp_async_4(&s[4 * t + i], &in[4 * t + 1 + i]);
#else
    lk_cp_async_16(&s[4 * t], &in[4 * t + 1]); // BUG
#endif
    lk_cp_async_commit();
    lk_cp_async_wait<0>();
    out[t] = s[4 * t];
}

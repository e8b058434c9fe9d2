// Nobody waits for a copy.
extern "C" __global__ void missing_wait(const float *in, float *out, int) {
    __shared__ __align__(16) float s[256];
    const int t = threadIdx.x;
    lk_cp_async_16(&s[4 * t], &in[4 * t]); // COPY
    lk_cp_async_commit();
#ifdef FIXED
    lk_cp_async_wait<0>();
#endif
    out[t] = s[4 * t]; // BUG
}

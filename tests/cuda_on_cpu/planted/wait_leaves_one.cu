// The wait leaves the group in flight that is read.
extern "C" __global__ void wait_leaves_one(const float *in, float *out, int) {
    __shared__ __align__(16) float s[512];
    const int t = threadIdx.x;
    lk_cp_async_16(&s[4 * t], &in[4 * t]);
    lk_cp_async_commit();
    lk_cp_async_16(&s[256 + 4 * t], &in[4 * t]);
    lk_cp_async_commit();
#ifdef FIXED
    lk_cp_async_wait<0>();
#else
    lk_cp_async_wait<1>();
#endif
    out[t] = s[256 + 4 * t]; // BUG
    lk_cp_async_wait<0>();
}

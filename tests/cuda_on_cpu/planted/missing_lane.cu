// The mask names a lane that has left.
extern "C" __global__ void missing_lane(const float *in, float *out, int) {
    const int t = threadIdx.x;
#ifndef FIXED
    if (t % 32 == 31) return;
#endif
    out[t] = __shfl_xor_sync(0xffffffffu, in[t], 1); // BUG
}

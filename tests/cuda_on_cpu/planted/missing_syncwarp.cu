// Lanes exchange through shared memory as if they ran in step.
extern "C" __global__ void missing_syncwarp(const float *in, float *out, int) {
    __shared__ float s[64];
    const int t = threadIdx.x;
    s[t] = in[t];
#ifdef FIXED
    __syncwarp();
#endif
    out[t] = s[t ^ 1]; // BUG
}

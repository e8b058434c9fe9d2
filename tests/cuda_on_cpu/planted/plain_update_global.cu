// Threads of several blocks count in global memory.
extern "C" __global__ void plain_update_global(const float *in, float *out, int) {
    const int t = threadIdx.x;
#ifdef FIXED
    atomicAdd(&out[t % 8], in[t]);
#else
    out[t % 8] += in[t]; // BUG
#endif
}

// A shuffle between store and load does not order them; __syncwarp does.
extern "C" __global__ void shuffle_is_no_barrier(const float *in, float *out, int) {
    __shared__ float s[64];
    const int t = threadIdx.x;
    s[t] = in[t];
    const float x = __shfl_sync(0xffffffffu, in[t], 0);
#ifdef FIXED
    __syncwarp();
#endif
    out[t] = s[t ^ 1] + x - x; // BUG
}

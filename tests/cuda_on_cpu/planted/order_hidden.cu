// Right whenever the threads happen to run upwards.
extern "C" __global__ void order_hidden(const float *in, float *out, int) {
    __shared__ float s[64];
    const int t = threadIdx.x;
    s[t] = in[t];
#ifdef FIXED
    __syncthreads();
#endif
    out[t] = t ? s[t - 1] : 0.0f; // BUG
}

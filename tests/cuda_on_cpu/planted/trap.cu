// The kernel gives up by itself.
extern "C" __global__ void trap(const float *in, float *out, int) {
    const int t = threadIdx.x;
#ifndef FIXED
    if (t == 5) __trap(); // BUG
#endif
    out[t] = in[t];
}

// Some threads leave before the barrier.
extern "C" __global__ void early_return(const float *in, float *out, int n) {
    __shared__ float s[64];
    const int t = threadIdx.x;
#ifndef FIXED
    if (t >= n / 2) return;
#endif
    s[t] = in[t];
    __syncthreads(); // BUG
    out[t] = s[t];
}

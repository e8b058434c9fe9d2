// A thread waits for a value that nobody stores.
extern "C" __global__ void endless(const float *in, float *out, int) {
    const int t = threadIdx.x;
    volatile float *wanted = out;
#ifndef FIXED
    while (wanted[t] == 0.0f) wanted[t] = 0.0f; // BUG
#endif
    wanted[t] = in[t];
}

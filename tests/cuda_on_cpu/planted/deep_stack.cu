// A local array that no thread has room for here.
__device__ __noinline__ float deep_stack_sum(const float *in, int n) {
#ifdef FIXED
    volatile float local[64];
#else
    volatile float local[100000]; // BUG
#endif
    for (int i = 0; i < n; i++) local[i] = in[i];
    float sum = 0.0f;
    for (int i = 0; i < n; i++) sum += local[i];
    return sum;
}
extern "C" __global__ void deep_stack(const float *in, float *out, int n) {
    out[threadIdx.x] = deep_stack_sum(in, n);
}

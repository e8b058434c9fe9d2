// One kernel for each part of the language, for test_shim.py. Threads write what they got.

template <class T> struct Many { T values[8]; };

template <class T>
__device__ __forceinline__ void shuffle_all(const T *in, T *out, int arg, int width) {
    const int t = threadIdx.x, n = blockDim.x;
    const unsigned full = 0xffffffffu;
    const T x = in[t];
    out[t] = __shfl_sync(full, x, arg, width);
    out[n + t] = __shfl_up_sync(full, x, arg, width);
    out[2 * n + t] = __shfl_down_sync(full, x, arg, width);
    out[3 * n + t] = __shfl_xor_sync(full, x, arg, width);
}
template <class T> __global__ void shuffles(const T *in, T *out, int arg, int width) {
    shuffle_all(in, out, arg, width);
}

extern "C" __global__ void votes(const int *in, unsigned *out) {
    const int t = threadIdx.x, n = blockDim.x;
    const unsigned half = t % 32 < 16 ? 0x0000ffffu : 0xffff0000u;
    out[t] = __ballot_sync(0xffffffffu, in[t] > 2);
    out[n + t] = __ballot_sync(half, in[t] > 2);
    out[2 * n + t] = __any_sync(half, in[t] > 2);
    out[3 * n + t] = __all_sync(half, in[t] > 2);
    out[4 * n + t] = __match_any_sync(half, in[t]);
    out[5 * n + t] = __reduce_add_sync(half, unsigned(in[t]));
    out[6 * n + t] = unsigned(__reduce_min_sync(half, in[t]));
    out[7 * n + t] = __reduce_max_sync(half, unsigned(in[t]));
    out[8 * n + t] = __reduce_xor_sync(half, unsigned(in[t]));
    out[9 * n + t] = __syncthreads_or(in[t] == 7);
    out[10 * n + t] = __syncthreads_and(in[t] >= 0);
    out[11 * n + t] = __syncthreads_count(in[t] > 2);
}

extern "C" __global__ void coordinates(int *out) {
    const int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    const int size = blockDim.x * blockDim.y * blockDim.z;
    out[block * size + thread] = block * 1000 + thread + (lk_lane_id() == thread % warpSize);
}

template <class T> __global__ void add_atomically(const T *in, T *out) {
    __shared__ T sum;
    if (threadIdx.x == 0) sum = T(0);
    __syncthreads();
    atomicAdd(&sum, in[threadIdx.x]);
    __syncthreads();
    if (threadIdx.x == 0) atomicAdd(out, sum);
}

template <class T> __global__ void other_atomics(const T *in, T *out) {
    const T x = in[threadIdx.x];
    atomicMin(&out[0], x);
    atomicMax(&out[1], x);
    atomicAnd(&out[2], x);
    atomicOr(&out[3], x);
    atomicXor(&out[4], x);
    for (T seen = T(0);;) { // a sum, as it is made where there is no atomicAdd
        const T old = atomicCAS(&out[5], seen, T(seen + x));
        if (old == seen) break;
        seen = old;
    }
    out[6 + threadIdx.x] = atomicExch(&out[6 + threadIdx.x], x) + x;
}

extern "C" __global__ void bits(const unsigned *in, unsigned *out, const unsigned long long *wide,
                                unsigned long long *wide_out) {
    const int t = threadIdx.x, n = blockDim.x;
    const unsigned x = in[t], y = in[(t + 1) % n];
    out[t] = __popc(x);
    out[n + t] = __clz(int(x));
    out[2 * n + t] = __ffs(int(x));
    out[3 * n + t] = __brev(x);
    out[4 * n + t] = __umulhi(x, y);
    out[5 * n + t] = __byte_perm(x, y, 0x2741);
    out[6 * n + t] = __funnelshift_l(x, y, 11);
    out[7 * n + t] = __float_as_uint(__uint_as_float(x & 0x7f7fffffu));
    wide_out[t] = __umul64hi(wide[t], wide[(t + 1) % n]);
    wide_out[n + t] = __brevll(wide[t]);
    wide_out[2 * n + t] = __popcll(wide[t]) + 100 * __clzll((long long)wide[t]);
}

template <class T> __global__ void functions(const T *in, T *out, int *ints) {
    const int t = threadIdx.x, n = blockDim.x;
    const T x = in[t];
    int e;
    out[t] = sqrt(x) + cbrt(x);
    out[n + t] = rsqrt(x);
    out[2 * n + t] = exp2(x) - log2(x) + pow(x, T(1.5));
    out[3 * n + t] = ldexp(x, 3) + scalbn(x, -2);
    out[4 * n + t] = frexp(x, &e);
    out[5 * n + t] = fmax(x, T(1)) + fmin(x, T(1)) + max(x, T(2)) + min(x, T(2));
    out[6 * n + t] = ceil(x) + floor(x) + rint(x) + trunc(x) + fabs(-x) + abs(-x);
    out[7 * n + t] = fma(x, x, T(-1)) + logb(x);
    ints[t] = e;
    ints[n + t] = ilogb(x);
    ints[2 * n + t] = isnan(x - x) + 2 * isinf(x / T(0)) + 4 * isfinite(x) + 8 * signbit(-x);
}

extern "C" __global__ void fused(const float *x, float *out) {
    // 1 where the product is rounded before the sum, 0 where it is not.
    out[0] = x[0] * x[0] - x[1];
    out[1] = lk_add_rn(lk_mul_rn(x[0], x[0]), -x[1]);
    out[2] = __fadd_rn(__fmul_rn(x[0], x[0]), -x[1]);
    out[3] = lk_fma_rn(x[0], x[0], -x[1]);
}

extern "C" __global__ void to_narrow(const float *in, const double *wide, __half *h,
                                     __nv_bfloat16 *b, __half *from_wide, unsigned *tf32, int n) {
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        h[i] = __float2half(in[i]);
        b[i] = __float2bfloat16(in[i]);
        from_wide[i] = __double2half(wide[i]);
        tf32[i] = lk_to_tf32(in[i]);
    }
}

extern "C" __global__ void from_narrow(const __half *h, const __nv_bfloat16 *b, float *out,
                                       float *out_b, int n) {
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        out[i] = __half2float(h[i]);
        out_b[i] = float(b[i]);
    }
}

template <class T> __global__ void narrow_arithmetic(const T *x, const T *y, T *out, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    T sum = x[i];
    sum += y[i];
    out[i] = sum;
    out[n + i] = x[i] - y[i];
    out[2 * n + i] = x[i] * y[i];
    out[3 * n + i] = x[i] / y[i];
    out[4 * n + i] = __hfma(x[i], y[i], x[i]);
    out[5 * n + i] = x[i] < y[i] ? -x[i] : __habs(y[i]);
}

extern "C" __global__ void packed(const float *in, unsigned *half_pairs, unsigned *bfloat_pairs,
                                  float *out) {
    const int t = threadIdx.x;
    half_pairs[t] = lk_pack_f16(in[2 * t], in[2 * t + 1]);
    bfloat_pairs[t] = lk_pack_bf16(in[2 * t], in[2 * t + 1]);
    lk_unpack_f16(half_pairs[t], out[4 * t], out[4 * t + 1]);
    lk_unpack_bf16(bfloat_pairs[t], out[4 * t + 2], out[4 * t + 3]);
}

// Registers go out as they are: the test puts the matrices together.
template <class T> __global__ void mma(const T *a, const T *b, T *d, int kind) {
    const int lane = threadIdx.x;
    if (kind == 3) {
        double r[2] = {double(d[2 * lane]), double(d[2 * lane + 1])};
        lk_mma_m8n8k4_f64(r, double(a[lane]), double(b[lane]));
        d[2 * lane] = T(r[0]), d[2 * lane + 1] = T(r[1]);
        return;
    }
    double r[4], ra[8], rb[4];
    for (int i = 0; i < 8; i++) ra[i] = double(a[8 * lane + i]);
    for (int i = 0; i < 4; i++) rb[i] = double(b[4 * lane + i]), r[i] = double(d[4 * lane + i]);
    lk_mma_m16n8k16_f64(r, ra, rb);
    for (int i = 0; i < 4; i++) d[4 * lane + i] = T(r[i]);
}
extern "C" __global__ void mma_narrow(const unsigned *a, const unsigned *b, float *d, int kind) {
    const int lane = threadIdx.x;
    unsigned ra[4], rb[2];
    float r[4];
    for (int i = 0; i < 4; i++) ra[i] = a[4 * lane + i], r[i] = d[4 * lane + i];
    for (int i = 0; i < 2; i++) rb[i] = b[2 * lane + i];
    if (kind == 0) lk_mma_m16n8k16_f16(r, ra, rb);
    if (kind == 1) lk_mma_m16n8k16_bf16(r, ra, rb);
    if (kind == 2) lk_mma_m16n8k8_tf32(r, ra, rb);
    for (int i = 0; i < 4; i++) d[4 * lane + i] = r[i];
}

// A whole product 16 x 8 x 16 with what belongs to it: cp.async, ldmatrix, mma.
extern "C" __global__ void ldmatrix_product(const __half *a, const __half *b, float *d) {
    __shared__ __align__(16) __half sa[16][24], sb[16][8];
    const unsigned lane = threadIdx.x;
    lk_cp_async_16(&sa[lane / 2][8 * (lane % 2)], a + 16 * (lane / 2) + 8 * (lane % 2));
    if (lane < 16) lk_cp_async_16(sb[lane], b + 8 * lane);
    lk_cp_async_commit();
    lk_cp_async_wait<0>();
    __syncwarp();
    unsigned ra[4], rb[2];
    lk_ldmatrix_x4(ra, &sa[lane % 16][8 * (lane / 16)]);
    lk_ldmatrix_x2_trans(rb, sb[lane % 16]);
    float r[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    lk_mma_m16n8k16_f16(r, ra, rb);
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; i++) d[8 * (g + 8 * (i / 2)) + 2 * t + i % 2] = r[i];
}

extern "C" __global__ void ldmatrices(const unsigned short *in, unsigned *out) {
    __shared__ __align__(16) unsigned short s[32][8];
    const unsigned lane = threadIdx.x;
    for (int j = 0; j < 8; j++) s[lane][j] = in[8 * lane + j];
    __syncwarp();
    unsigned r1[1], r2[2], r4[4], t1[1], t2[2], t4[4];
    lk_ldmatrix_x1(r1, s[lane % 8]);
    lk_ldmatrix_x2(r2, s[lane % 16]);
    lk_ldmatrix_x4(r4, s[lane]);
    lk_ldmatrix_x1_trans(t1, s[lane % 8]);
    lk_ldmatrix_x2_trans(t2, s[lane % 16]);
    lk_ldmatrix_x4_trans(t4, s[lane]);
    for (int i = 0; i < 4; i++) {
        out[32 * i + lane] = r4[i];
        out[32 * (4 + i) + lane] = t4[i];
    }
    for (int i = 0; i < 2; i++) {
        out[32 * (8 + i) + lane] = r2[i];
        out[32 * (10 + i) + lane] = t2[i];
    }
    out[32 * 12 + lane] = r1[0];
    out[32 * 13 + lane] = t1[0];
}

extern "C" __global__ void copies(const float *in, float *out, const int *valid) {
    extern __shared__ __align__(16) unsigned char smem[];
    float *s = reinterpret_cast<float *>(smem);
    const int t = threadIdx.x;
    lk_cp_async_4(&s[t], &in[t]);
    lk_cp_async_commit();
    lk_cp_async_8(&s[32 + 2 * t], &in[2 * t]);
    lk_cp_async_commit();
    lk_cp_async_16_zfill(&s[96 + 4 * t], &in[4 * t], valid[t]);
    lk_cp_async_commit();
    lk_cp_async_wait<2>();
    out[t] = s[t];
    lk_cp_async_wait<0>();
    for (int i = 0; i < 2; i++) out[32 + 2 * t + i] = s[32 + 2 * t + i];
    for (int i = 0; i < 4; i++) out[96 + 4 * t + i] = s[96 + 4 * t + i];
}

__constant__ float table[4] = {1.0f, 10.0f, 100.0f, 1000.0f};
struct Options { int count; float scale; double shift; };

extern "C" __global__ void __launch_bounds__(32 * (1 + 1)) every_type(
    const float2 *__restrict__ pairs, float *__restrict__ out, const Options options,
    const bool twice, const __half h, signed char c, const unsigned long long big,
    const double *optional) {
    const int t = threadIdx.x;
    const float2 pair = __ldg(pairs + t);
    float x = (pair.x + table[t % 4] * pair.y) * options.scale + float(options.shift);
    if (twice) x += x;
    out[t] = x + float(h) + float(c) + float(big) + (optional ? float(optional[0]) : 0.0f);
}

extern "C" __global__ void twice_in_place(const float *in, float *out, float *rest, int n) {
    const int t = threadIdx.x;
    if (t < n) out[t] = in[t] + in[t];
    if (t == 0) rest[0] = 7.0f;
}

#ifdef NEVER
extern "C" __global__ void not_there(int *out) { out[0] = 1; }
#endif
#define MADE_BY_MACRO(name) \
    extern "C" __global__ void name(int *out) { out[0] = LEVEL; }
MADE_BY_MACRO(made_by_macro)

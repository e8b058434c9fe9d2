// Twins of kernels/cuda/lk_ptx.cuh: a function of each name and signature. What a warp does
// together is a call into the runtime; the fragment maps stand there.
#pragma once

inline unsigned lk_lane_id() { return coc_lane(); }
inline unsigned lk_smid() { return 0; }

inline float lk_add_rn(float a, float b) { return __fadd_rn(a, b); }
inline float lk_mul_rn(float a, float b) { return __fmul_rn(a, b); }
inline float lk_fma_rn(float a, float b, float c) { return __fmaf_rn(a, b, c); }

// cvt.rna: to nearest, ties away from zero, 10 bits of significand; NaN is 0x7fffffff.
inline unsigned lk_to_tf32(float x) {
    const unsigned u = __float_as_uint(x);
    if ((u & 0x7fffffffu) > 0x7f800000u) return 0x7fffffffu;
    return (u & 0x7f800000u) == 0x7f800000u ? u : (u + 0x1000u) & 0xffffe000u;
}
inline unsigned lk_pack_f16(float lo, float hi) {
    return unsigned(coc_half_of_float(lo)) | unsigned(coc_half_of_float(hi)) << 16;
}
inline unsigned lk_pack_bf16(float lo, float hi) {
    return unsigned(coc_bfloat16_of_float(lo)) | unsigned(coc_bfloat16_of_float(hi)) << 16;
}
inline void lk_unpack_f16(unsigned pair, float &lo, float &hi) {
    lo = coc_float_of_half((unsigned short)pair);
    hi = coc_float_of_half((unsigned short)(pair >> 16));
}
inline void lk_unpack_bf16(unsigned pair, float &lo, float &hi) {
    lo = coc_float_of_bfloat16((unsigned short)pair);
    hi = coc_float_of_bfloat16((unsigned short)(pair >> 16));
}

inline void lk_mma_m16n8k16_f16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                                COC_HERE) {
    coc_mma(COC_MMA_F16, d, a, b, file, line);
}
inline void lk_mma_m16n8k16_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                                 COC_HERE) {
    coc_mma(COC_MMA_BF16, d, a, b, file, line);
}
inline void lk_mma_m16n8k8_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                                COC_HERE) {
    coc_mma(COC_MMA_TF32, d, a, b, file, line);
}
inline void lk_mma_m8n8k4_f64(double (&d)[2], double a, double b, COC_HERE) {
    coc_mma(COC_MMA_F64_K4, d, &a, &b, file, line);
}
inline void lk_mma_m16n8k16_f64(double (&d)[4], const double (&a)[8], const double (&b)[4],
                                COC_HERE) {
    coc_mma(COC_MMA_F64_K16, d, a, b, file, line);
}

#define COC_LDMATRIX(name, count, transposed)                                                      \
    inline void name(unsigned (&r)[count], const void *shared, COC_HERE) {                         \
        coc_ldmatrix(r, count, transposed, shared, file, line);                                    \
    }
COC_LDMATRIX(lk_ldmatrix_x1, 1, 0)
COC_LDMATRIX(lk_ldmatrix_x2, 2, 0)
COC_LDMATRIX(lk_ldmatrix_x4, 4, 0)
COC_LDMATRIX(lk_ldmatrix_x1_trans, 1, 1)
COC_LDMATRIX(lk_ldmatrix_x2_trans, 2, 1)
COC_LDMATRIX(lk_ldmatrix_x4_trans, 4, 1)

inline void lk_cp_async_4(void *shared, const void *global, COC_HERE) {
    coc_cp_async(shared, global, 4, 4, file, line);
}
inline void lk_cp_async_8(void *shared, const void *global, COC_HERE) {
    coc_cp_async(shared, global, 8, 8, file, line);
}
inline void lk_cp_async_16(void *shared, const void *global, COC_HERE) {
    coc_cp_async(shared, global, 16, 16, file, line);
}
inline void lk_cp_async_16_zfill(void *shared, const void *global, int valid_bytes, COC_HERE) {
    coc_cp_async(shared, global, 16, valid_bytes, file, line);
}
inline void lk_cp_async_commit() { coc_cp_async_commit(); }
template <int N> inline void lk_cp_async_wait(COC_HERE) {
    static_assert(N >= 0, "the number of groups that may stay in flight");
    coc_cp_async_wait(N, file, line);
}

// Every operation that CUDA C++ has no words for, as a function; inline PTX stands in no other
// file. Section names are those of "Parallel Thread Execution ISA". Packed pairs of 16-bit numbers
// are `unsigned`, the first in the low half. In fragment maps g = lane / 4 and t = lane % 4.
//
// A host compiler sees an empty file; tests/cuda_on_cpu/shim/wrappers.h has a twin of each.
#pragma once
#ifdef __CUDACC__

// The lane's number in its warp.
__device__ __forceinline__ unsigned lk_lane_id() {
    unsigned lane;
    asm("mov.u32 %0, %%laneid;" : "=r"(lane));
    return lane;
}

// The multiprocessor that runs the thread now.
__device__ __forceinline__ unsigned lk_smid() {
    unsigned sm;
    asm volatile("mov.u32 %0, %%smid;" : "=r"(sm));
    return sm;
}

// --- Sums that keep subnormals, whatever -ftz says, and are never contracted ---------------------

__device__ __forceinline__ float lk_add_rn(float a, float b) {
    float sum;
    asm("add.rn.f32 %0, %1, %2;" : "=f"(sum) : "f"(a), "f"(b));
    return sum;
}

__device__ __forceinline__ float lk_mul_rn(float a, float b) {
    float product;
    asm("mul.rn.f32 %0, %1, %2;" : "=f"(product) : "f"(a), "f"(b));
    return product;
}

__device__ __forceinline__ float lk_fma_rn(float a, float b, float c) {
    float result;
    asm("fma.rn.f32 %0, %1, %2, %3;" : "=f"(result) : "f"(a), "f"(b), "f"(c));
    return result;
}

// --- Conversions ---------------------------------------------------------------------------------

// To nearest with ties away from zero: the bits of a float whose low 13 bits do not count.
__device__ __forceinline__ unsigned lk_to_tf32(float x) {
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
}

// "cvt": the first source goes to the upper half.
__device__ __forceinline__ unsigned lk_pack_f16(float lo, float hi) {
    unsigned pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(hi), "f"(lo));
    return pair;
}

__device__ __forceinline__ unsigned lk_pack_bf16(float lo, float hi) {
    unsigned pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(hi), "f"(lo));
    return pair;
}

__device__ __forceinline__ void lk_unpack_f16(unsigned pair, float &lo, float &hi) {
    asm("{\n\t.reg .b16 l, h;\n\t"
        "mov.b32 {l, h}, %2;\n\t"
        "cvt.f32.f16 %0, l;\n\t"
        "cvt.f32.f16 %1, h;\n\t}"
        : "=f"(lo), "=f"(hi)
        : "r"(pair));
}

__device__ __forceinline__ void lk_unpack_bf16(unsigned pair, float &lo, float &hi) {
    lo = __uint_as_float(pair << 16);
    hi = __uint_as_float(pair & 0xffff0000u);
}

// --- Products of small matrices by a warp: d += a b ----------------------------------------------
// Each needs all 32 lanes. D: row g, columns 2 t + {0, 1}; then, of 16 rows, row g + 8.

// A: register i holds row g + 8 (i % 2), columns 2 t + 8 (i / 2) + {0, 1}. B: rows
// 2 t + 8 i + {0, 1} of column g.
__device__ __forceinline__ void lk_mma_m16n8k16_f16(float (&d)[4], const unsigned (&a)[4],
                                                    const unsigned (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// As for f16.
__device__ __forceinline__ void lk_mma_m16n8k16_bf16(float (&d)[4], const unsigned (&a)[4],
                                                     const unsigned (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// A: register i holds row g + 8 (i % 2), column t + 4 (i / 2). B: row t + 4 i of column g.
__device__ __forceinline__ void lk_mma_m16n8k8_tf32(float (&d)[4], const unsigned (&a)[4],
                                                    const unsigned (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// A: row g, column t. B: row t, column g.
__device__ __forceinline__ void lk_mma_m8n8k4_f64(double (&d)[2], double a, double b) {
    asm volatile("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0, %1}, {%2}, {%3}, {%0, %1};"
                 : "+d"(d[0]), "+d"(d[1])
                 : "d"(a), "d"(b));
}

// A: register i holds row g + 8 (i % 2), column t + 4 (i / 2). B: row t + 4 i of column g. One
// instruction from sm_90 on; before, eight of m8n8k4, whose fragments are pieces of these.
__device__ __forceinline__ void lk_mma_m16n8k16_f64(double (&d)[4], const double (&a)[8],
                                                    const double (&b)[4]) {
#if __CUDA_ARCH__ >= 900
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f64.f64.f64.f64 {%0, %1, %2, %3}, "
                 "{%4, %5, %6, %7, %8, %9, %10, %11}, {%12, %13, %14, %15}, {%0, %1, %2, %3};"
                 : "+d"(d[0]), "+d"(d[1]), "+d"(d[2]), "+d"(d[3])
                 : "d"(a[0]), "d"(a[1]), "d"(a[2]), "d"(a[3]), "d"(a[4]), "d"(a[5]), "d"(a[6]),
                   "d"(a[7]), "d"(b[0]), "d"(b[1]), "d"(b[2]), "d"(b[3]));
#else
    double upper[2] = {d[0], d[1]}, lower[2] = {d[2], d[3]};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        lk_mma_m8n8k4_f64(upper, a[2 * i], b[i]);
        lk_mma_m8n8k4_f64(lower, a[2 * i + 1], b[i]);
    }
    d[0] = upper[0], d[1] = upper[1], d[2] = lower[0], d[3] = lower[1];
#endif
}

// --- Matrices of 8 x 8 16-bit elements from shared memory ----------------------------------------
// Lane 8 i + j gives the address of row j of matrix i, a multiple of 16; the addresses of lanes
// beyond the last matrix do not count. r[i]: columns 2 t + {0, 1} of row g of matrix i, or of its
// transpose. Each needs all 32 lanes.

__device__ __forceinline__ unsigned lk_shared_address(const void *shared) {
    return static_cast<unsigned>(__cvta_generic_to_shared(shared));
}

__device__ __forceinline__ void lk_ldmatrix_x1(unsigned (&r)[1], const void *shared) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"
                 : "=r"(r[0])
                 : "r"(lk_shared_address(shared))
                 : "memory");
}

__device__ __forceinline__ void lk_ldmatrix_x2(unsigned (&r)[2], const void *shared) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(lk_shared_address(shared))
                 : "memory");
}

__device__ __forceinline__ void lk_ldmatrix_x4(unsigned (&r)[4], const void *shared) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(lk_shared_address(shared))
                 : "memory");
}

__device__ __forceinline__ void lk_ldmatrix_x1_trans(unsigned (&r)[1], const void *shared) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
                 : "=r"(r[0])
                 : "r"(lk_shared_address(shared))
                 : "memory");
}

__device__ __forceinline__ void lk_ldmatrix_x2_trans(unsigned (&r)[2], const void *shared) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(lk_shared_address(shared))
                 : "memory");
}

__device__ __forceinline__ void lk_ldmatrix_x4_trans(unsigned (&r)[4], const void *shared) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(lk_shared_address(shared))
                 : "memory");
}

// --- Copies from global to shared memory that run beside the thread ------------------------------
// Both addresses are multiples of the size. The bytes are there after a wait, for the thread that
// waited; for others after a barrier as well.

__device__ __forceinline__ void lk_cp_async_4(void *shared, const void *global) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(lk_shared_address(shared)),
                 "l"(global)
                 : "memory");
}

__device__ __forceinline__ void lk_cp_async_8(void *shared, const void *global) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(lk_shared_address(shared)),
                 "l"(global)
                 : "memory");
}

__device__ __forceinline__ void lk_cp_async_16(void *shared, const void *global) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(lk_shared_address(shared)),
                 "l"(global)
                 : "memory");
}

// The first valid_bytes (0 to 16) are copied, the others are zero.
__device__ __forceinline__ void lk_cp_async_16_zfill(void *shared, const void *global,
                                                     int valid_bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(lk_shared_address(shared)),
                 "l"(global), "r"(valid_bytes)
                 : "memory");
}

// Closes a group: the copies issued since the last one.
__device__ __forceinline__ void lk_cp_async_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until at most the N newest groups are in flight.
template <int N> __device__ __forceinline__ void lk_cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

#endif

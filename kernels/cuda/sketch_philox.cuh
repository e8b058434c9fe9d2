// Random numbers that are functions of where they stand; kernels/cpu/sketch_philox.py says how.
#pragma once

typedef unsigned long long counter;

// The four words of one call: Philox4x32-10.
__device__ __forceinline__ uint4 lk_philox(counter j, unsigned sub, unsigned tag, unsigned k0,
                                           unsigned k1) {
  unsigned c0 = (unsigned)j, c1 = (unsigned)(j >> 32), c2 = sub, c3 = tag;
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const unsigned high0 = __umulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
    const unsigned high1 = __umulhi(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
    c0 = high1 ^ c1 ^ k0, c1 = low1;
    c2 = high0 ^ c3 ^ k1, c3 = low0;
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
  return make_uint4(c0, c1, c2, c3);
}

__device__ __forceinline__ double lk_double_of(counter bits) {
  return __longlong_as_double((long long)bits);
}
__device__ __forceinline__ counter lk_bits_of(double x) { return (counter)__double_as_longlong(x); }

// A double in [1, 2) of 52 random bits.
__device__ __forceinline__ double lk_fraction(unsigned high, unsigned low) {
  return lk_double_of((counter)high << 20 | (counter)(low >> 12) | 0x3FF0000000000000ull);
}

// p z + c, rounded twice: no option of the compiler makes one operation of these two.
__device__ __forceinline__ double lk_horner(double p, double z, double c) {
  return __dadd_rn(__dmul_rn(p, z), c);
}

// Two independent normals of one call, the bits of the CPU's.
__device__ __forceinline__ double2 lk_normal_pair(uint4 w) {
  const counter one = 0x3FF0000000000000ull, root_half = 0x3FE6A09E667F3BCDull;
  const double u = __dsub_rn(2.0, lk_fraction(w.x, w.y));
  const counter h = lk_bits_of(u) + (one - root_half);
  const double e = __dsub_rn(lk_double_of(h >> 52 | 0x4330000000000000ull), 4503599627371519.0);
  const double f = lk_double_of((h & 0xFFFFFFFFFFFFFull) + root_half);
  const double s = __ddiv_rn(__dsub_rn(f, 1.0), __dadd_rn(f, 1.0));
  const double z = __dmul_rn(s, s);
  double p = 0.14617872952506913;
  p = lk_horner(p, z, 0.15331596932448704);
  p = lk_horner(p, z, 0.18182893219785845);
  p = lk_horner(p, z, 0.222222110728223);
  p = lk_horner(p, z, 0.28571428626399387);
  p = lk_horner(p, z, 0.39999999999898445);
  p = lk_horner(p, z, 0.666666666666667);
  const double tail = __dmul_rn(s, __dadd_rn(2.0, __dmul_rn(z, p)));
  const double r = __dsqrt_rn(__dmul_rn(-2.0, __dadd_rn(__dmul_rn(e, 0.6931471805599453), tail)));
  // an angle of an eighth of the circle to either side; the rest is a sign and an exchange
  const double y = __dsub_rn(lk_fraction(w.z, w.w), 1.5);
  const double t = __dmul_rn(y, y);
  p = 5.633721005314096e-08;
  p = lk_horner(p, t, -3.5986417543868745e-06);
  p = lk_horner(p, t, 0.00016044115029163048);
  p = lk_horner(p, t, -0.004681754132282415);
  p = lk_horner(p, t, 0.07969262624603957);
  p = lk_horner(p, t, -0.6459640975062443);
  p = lk_horner(p, t, 1.5707963267948966);
  const counter sine = lk_bits_of(__dmul_rn(r, __dmul_rn(y, p)));
  p = -6.329400451286434e-09;
  p = lk_horner(p, t, 4.7106784363094807e-07);
  p = lk_horner(p, t, -2.5202039028895784e-05);
  p = lk_horner(p, t, 0.000919260274546957);
  p = lk_horner(p, t, -0.02086348076334078);
  p = lk_horner(p, t, 0.2536695079010478);
  p = lk_horner(p, t, -1.2337005501361697);
  counter cosine = lk_bits_of(__dmul_rn(r, __dadd_rn(1.0, __dmul_rn(t, p))));
  cosine ^= (counter)w.w << 63;
  const counter exchange = (cosine ^ sine) & (0 - (counter)(w.w >> 1 & 1));
  return make_double2(lk_double_of(cosine ^ exchange), lk_double_of(sine ^ exchange));
}

// Word number i of four, without an array in memory.
__device__ __forceinline__ unsigned lk_word(uint4 w, int i) {
  return i == 0 ? w.x : i == 1 ? w.y : i == 2 ? w.z : w.w;
}

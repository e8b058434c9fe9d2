// Roots of many small Hermitian matrices: a matrix per warp or per block, everything in one launch.
//
// With M = A/s, X = M or I, a step is P = a I + b M + c M^2, X <- X P^num, M <- M P^den: M tends to
// I and X to X_0 M_0^(-num/den). Every factor is a polynomial of M, so products are symmetric up to
// rounding: tiles above the diagonal are computed and mirrored, and a column of the left factor is
// read as a row. That is safe because X is never fed back (the coupled form would multiply rounding
// errors by the condition). A complex matrix X + iY travels as the real [[X, -Y], [Y, X]].
//
// Four buffers of shared memory hold the matrices; rows are padded to whole tiles, the padding is
// an identity block, which stays one. Floor: (2 + num + log2 den) n^3 flops a step, half of them
// saved by the mirror, at one 16-byte load of shared memory per 8 (TILE = 4) multiply-adds.
#pragma once
#include "common.cuh"

#define OK 0
#define NONFINITE 1
#define ASYMMETRIC 2
#define HARD 3
#define INDEFINITE 4
#define SINGULAR 5

// -DTILE: rows and columns of the product that one thread holds in registers.
struct __align__(TILE * sizeof(T) < 16 ? TILE * sizeof(T) : 16) Piece {
  T v[TILE];
};

__device__ __forceinline__ Piece load(const T *p) { return *(const Piece *)p; }

// out = A B for symmetric A and B that commute; with coeffs c A B + b A + a I instead.
template <class Team>
__device__ __forceinline__ void product(const Team &team, T *out, const T *a, const T *b, int ld,
                        const double *coeffs) {
  const int tiles = ld / TILE;
  const int all = tiles * (tiles + 1) / 2;
  for (int t = team.rank; t < all; t += team.size) {
    int row, col;
    lk_pair(t, row, col);
    T sum[TILE][TILE] = {};
    const T *pa = a + row * TILE, *pb = b + col * TILE;
#pragma unroll 2
    for (int k = 0; k < ld; ++k, pa += ld, pb += ld) {
      const Piece x = load(pa), y = load(pb);
#pragma unroll
      for (int i = 0; i < TILE; ++i)
#pragma unroll
        for (int j = 0; j < TILE; ++j) sum[i][j] = lk_fma(x.v[i], y.v[j], sum[i][j]);
    }
    if (coeffs) {
      const T c0 = (T)coeffs[0], c1 = (T)coeffs[1], c2 = (T)coeffs[2];
#pragma unroll
      for (int i = 0; i < TILE; ++i) {
        const Piece m = load(a + (row * TILE + i) * ld + col * TILE);
#pragma unroll
        for (int j = 0; j < TILE; ++j) {
          sum[i][j] = lk_fma(c2, sum[i][j], c1 * m.v[j]);
          if (row == col && i == j) sum[i][j] += c0;
        }
      }
    }
#pragma unroll
    for (int i = 0; i < TILE; ++i) {
      Piece up, down;
#pragma unroll
      for (int j = 0; j < TILE; ++j) {
        // one of the two triangles of a tile on the diagonal decides
        up.v[j] = row == col && j < i ? sum[j][i] : sum[i][j];
        down.v[j] = sum[j][i];
      }
      *(Piece *)(out + (row * TILE + i) * ld + col * TILE) = up;
      if (row != col) *(Piece *)(out + (col * TILE + i) * ld + row * TILE) = down;
    }
  }
  team.sync();
}

template <class Team>
__device__ __forceinline__ void copy(const Team &team, T *out, const T *in, int ld) {
  for (int k = team.rank; k < ld * ld; k += team.size) out[k] = in[k];
  team.sync();
}

// w^(whole - num/den) for w >= 0, whole 0 or 1.
__device__ __forceinline__ double power_of(double w, int whole, int num, int den) {
  if (w == 0) return whole ? 0 : 1 / w;
  double root = den == 2 ? sqrt(w) : w;
  if (den > 2) {
    // a root of the mantissa in single precision, and Newton: no call of pow, which costs registers
    const int e = ilogb(w), units = (e >= 0 ? e : e - den + 1) / den;
    const double x = ldexp(w, -units * den);
    root = (double)exp2f(log2f((float)x) / den);
    for (int step = 0; step < 3; ++step) {
      double rest = 1;
      for (int k = 1; k < den; ++k) rest *= root;
      root -= (root * rest - x) / (den * rest);
    }
    root = ldexp(root, units);
  }
  double power = 1;
  for (int k = 0; k < (whole ? den - num : num); ++k) power *= root;
  return whole ? power : 1 / power;
}

// Status, largest entry and the power of two to divide by (a multiple of den).
template <class Team>
__device__ __forceinline__ int inspect(const Team &team, const T *a, int half, int planes, double tol, int den,
                       int &exponent) {
  const int n = half * planes;
  T largest = 0, defect = 0, spread = 0;
  int bad = 0;
  for (int k = team.rank; k < half * half; k += team.size) {
    const int i = k / half, j = k % half;
    if (j > i) continue;
    for (int p = 0; p < planes; ++p) {
      const T lower = a[i * n + planes * j + p], upper = a[j * n + planes * i + p];
      bad |= !lk_finite(lower) || !lk_finite(upper);
      const T size = lk_max(lk_abs(lower), lk_abs(upper));
      largest = lk_max(largest, size);
      if (i != j) spread = lk_max(spread, size);
      defect = lk_max(defect, lk_abs(p ? lower + upper : lower - upper));
    }
  }
  bad = team.template reduce<Max>(bad);
  largest = team.template reduce<Max>(largest);
  spread = team.template reduce<Max>(spread);
  defect = team.template reduce<Max>(defect);
  exponent = 0;
  if (bad) return NONFINITE;
  if ((double)defect > tol * (double)largest) return ASYMMETRIC;
  if (largest > 0) {
    const int e = ilogb((double)largest) + 1;
    // rounded up, so that the largest entry is at most one
    exponent = (e > 0 ? (e + den - 1) / den : -(-e / den)) * den;
  }
  return spread > 0 ? OK : HARD;
}

// M = (A + A^H) / 2 at the scale 2^-exponent, padded with an identity.
template <class Team>
__device__ __forceinline__ void pack(const Team &team, T *m, const T *a, int half, int planes, int ld,
                     int exponent) {
  const int n = half * planes;
  // in two factors, because one alone may leave the range of the type
  const int first = -exponent >= 0 ? -exponent / 2 : -((exponent + 1) / 2);
  const T f = lk_power_of_two(T(), first);
  const T g = (T)0.5 * lk_power_of_two(T(), -exponent - first);
  for (int k = team.rank; k < ld * ld; k += team.size) {
    const int row = k / ld, col = k % ld;
    T value = row == col;
    if (row < n && col < n) {
      const int i = row % half, j = col % half;
      const bool same = row / half == col / half;
      const int p = same ? 0 : 1;
      T x = a[i * n + planes * j + p] * f * g, y = a[j * n + planes * i + p] * f * g;
      // Y is skew, and stands above with the other sign
      value = same ? x + y : (row >= half ? x - y : y - x);
    }
    m[k] = value;
  }
  team.sync();
}

// Divide M by an upper bound of its largest eigenvalue; returns the bound.
template <class Team>
__device__ __forceinline__ T normalise(const Team &team, T *m, int n, int ld) {
  T rows = 0, square = 0;
  for (int i = team.rank; i < n; i += team.size) {
    T sum = 0;
    for (int j = 0; j < n; ++j) {
      // m is symmetric: reading down a column spares the banks
      const T x = m[j * ld + i];
      sum += lk_abs(x);
      square = lk_fma(x, x, square);
    }
    rows = lk_max(rows, sum);
  }
  rows = team.template reduce<Max>(rows);
  square = lk_sqrt(team.template reduce<Sum>(square));
  // the smaller of the two, and 2^-9 more than the rounding of either sum can hide
  const T bound = (rows < square ? rows : square) * (T)1.001953125;
  const T inverse = bound > 0 ? (T)1 / bound : (T)1;
  // the shuffles above wait for each other, but order no memory
  team.sync();
  for (int k = team.rank; k < n * ld; k += team.size)
    if (k % ld < n) m[k] *= inverse;
  // no barrier: the copy that follows reads what the same thread wrote, and ends with one
  return bound;
}

// trace(M^-1) from M = L D L^T: with U = D L^T above and V = L^-1 below the diagonal of one buffer,
// it is the sum of V_ij^2 / d_i. Negative where a pivot is not positive. 1/trace is a lower bound of
// the smallest eigenvalue, at most a factor n too small.
template <class Team>
__device__ __forceinline__ T inverse_trace(const Team &team, T *u, int n, int ld) {
  bool good = true;
  for (int k = 0; k < n; ++k) {
    const T pivot = u[k * ld + k];
    good = good && pivot > 0;
    const T inverse = (T)1 / pivot;
    const int below = n - k - 1;
    for (int t = team.rank; t < below * ld; t += team.size) {
      const int i = k + 1 + t / ld, j = t % ld;
      const T f = -u[k * ld + i] * inverse;
      if (j == k)
        u[i * ld + j] = f;
      else if (j < k || (j >= i && j < n))
        u[i * ld + j] = lk_fma(f, u[k * ld + j], u[i * ld + j]);
    }
    team.sync();
  }
  T total = 0;
  for (int i = team.rank; i < n; i += team.size) {
    T sum = 1;
    for (int j = 0; j < i; ++j) sum = lk_fma(u[i * ld + j], u[i * ld + j], sum);
    total += sum / u[i * ld + i];
  }
  total = team.template reduce<Sum>(total);
  team.sync();
  return good && total > 0 && lk_finite(total) ? total : (T)-1;
}

// Eigenvalues onto the diagonal of m and eigenvectors into the rows of v, by cyclic Jacobi with all
// disjoint rotations of a round at once (Golub and Van Loan, Matrix Computations, section 8.5.5).
template <class Team>
__device__ __forceinline__ void jacobi(const Team &team, T *m, T *v, T *turns, int ld) {
  const T eps = sizeof(T) == 4 ? (T)1.1920929e-7 : (T)2.220446049250313e-16;
  const int pairs = ld / 2;
  for (int k = team.rank; k < ld * ld; k += team.size) v[k] = k / ld == k % ld;
  for (int sweep = 0; sweep < 30; ++sweep) {
    int rotated = 0;
    for (int round = 0; round < ld - 1; ++round) {
      for (int t = team.rank; t < pairs; t += team.size) {
        // a round robin of ld players: the last one stays, the others move up one place
        int p = t == 0 ? ld - 1 : (round + t) % (ld - 1);
        int q = t == 0 ? round : (round + ld - 1 - t) % (ld - 1);
        if (p > q) {
          const int s = p;
          p = q, q = s;
        }
        const T x = m[p * ld + p], y = m[q * ld + q], z = m[p * ld + q];
        T c = 1, s = 0;
        if (lk_abs(z) > eps * lk_sqrt(lk_abs(x)) * lk_sqrt(lk_abs(y)) && lk_abs(z) > eps * eps) {
          const T half = (y - x) / (2 * z);
          const T root = lk_sqrt(lk_fma(half, half, (T)1));
          const T tangent = (half < 0 ? (T)-1 : (T)1) / (lk_abs(half) + root);
          c = (T)1 / lk_sqrt(lk_fma(tangent, tangent, (T)1));
          s = tangent * c;
          rotated = 1;
        }
        turns[2 * t] = c;
        turns[2 * t + 1] = s;
      }
      team.sync();
      // M <- J^T M and V <- J^T V, then M <- M J
      for (int side = 0; side < 2; ++side) {
        for (int k = team.rank; k < pairs * ld; k += team.size) {
          const int t = k / ld, j = k % ld;
          const T c = turns[2 * t], s = turns[2 * t + 1];
          if (s == 0) continue;
          int p = t == 0 ? ld - 1 : (round + t) % (ld - 1);
          int q = t == 0 ? round : (round + ld - 1 - t) % (ld - 1);
          if (p > q) {
            const int o = p;
            p = q, q = o;
          }
          const int ip = side ? j * ld + p : p * ld + j, iq = side ? j * ld + q : q * ld + j;
          const T x = m[ip], y = m[iq];
          T xx = c * x - s * y, yy = s * x + c * y;
          // the rotation is made to annihilate this entry
          if (side && (j == p || j == q)) {
            if (j == p)
              yy = 0;
            else
              xx = 0;
          }
          m[ip] = xx;
          m[iq] = yy;
          if (!side) {
            const T vx = v[ip], vy = v[iq];
            v[ip] = c * vx - s * vy;
            v[iq] = s * vx + c * vy;
          }
        }
        team.sync();
      }
    }
    if (!team.template reduce<Max>(rotated)) break;
  }
}

// X = V^T diag(f) V from the eigenvalues on the diagonal of m; the verdict is returned.
template <class Team>
__device__ __forceinline__ int spectral(const Team &team, T *&x, T *m, T *v, T *t, int order, int n, int ld,
                        int whole, int num, int den, double &low, double &high) {
  const double eps = sizeof(T) == 4 ? 1.1920928955078125e-7 : 2.220446049250313e-16;
  double least = 1e300, most = -1e300, nearest = 1e300;
  for (int i = team.rank; i < ld; i += team.size) {
    // the padding has eigenvectors of its own
    double inside = 0;
    for (int j = 0; j < n; ++j) inside += (double)lk_abs(v[i * ld + j]);
    if (inside == 0) continue;
    const double w = (double)m[i * ld + i];
    least = w < least ? w : least;
    most = w > most ? w : most;
    nearest = fabs(w) < nearest ? fabs(w) : nearest;
  }
  least = -team.template reduce<Max>(-least);
  most = team.template reduce<Max>(most);
  nearest = -team.template reduce<Max>(-nearest);
  const double top = most > -least ? most : -least;
  low = least, high = most;
  const bool fractional = den > 1;
  if (fractional && least < -order * eps * top) return INDEFINITE;
  if (!whole && (nearest <= eps * top || (fractional && least <= eps * top))) return SINGULAR;
  for (int k = team.rank; k < ld * ld; k += team.size) {
    const int i = k / ld;
    double w = (double)m[i * ld + i];
    if (fractional && w < 0) w = 0;
    t[k] = (T)power_of(w, whole, num, den) * v[k];
  }
  team.sync();
  // M is done with
  x = m;
  const int tiles = ld / TILE;
  for (int k = team.rank; k < tiles * (tiles + 1) / 2; k += team.size) {
    int row, col;
    lk_pair(k, row, col);
    T sum[TILE][TILE] = {};
    for (int l = 0; l < ld; ++l) {
      const Piece a = load(v + l * ld + row * TILE), b = load(t + l * ld + col * TILE);
#pragma unroll
      for (int i = 0; i < TILE; ++i)
#pragma unroll
        for (int j = 0; j < TILE; ++j) sum[i][j] = lk_fma(a.v[i], b.v[j], sum[i][j]);
    }
    for (int i = 0; i < TILE; ++i)
      for (int j = 0; j < TILE; ++j) {
        const int p = row * TILE + i, q = col * TILE + j;
        if (p > q) continue;
        x[p * ld + q] = sum[i][j];
        x[q * ld + p] = sum[i][j];
      }
  }
  team.sync();
  return OK;
}

struct Call {
  int half, planes, ld, whole, num, den, rows, width, finish;
  double tol;
};

template <class Team>
__device__ __forceinline__ void solve(const Team &team, const T *a, T *out, double *report, int *bad,
                      const double *table, T *buffers, T *turns, const Call &call) {
  const int n = call.half * call.planes, ld = call.ld, size = ld * ld;
  const double eps = table[1];
  T *m = buffers, *x = m + size, *t = x + size, *q = t + size;
  int exponent, steps = 0;
  int status = inspect(team, a, call.half, call.planes, call.tol, call.den, exponent);
  double low = 0, high = 0;
  T bound = 0;
  if (status == OK || (status == HARD && call.finish)) {
    pack(team, m, a, call.half, call.planes, ld, exponent);
    // a diagonal matrix stays exact to a rounding, as only powers of two are taken out
    bound = status == OK ? normalise(team, m, n, ld) : (T)1;
  }
  int row = call.rows;
  if (status == OK) {
    copy(team, x, m, ld);
    const double trace = (double)inverse_trace(team, x, n, ld);
    // the elimination's backward error n eps can hide that much of the smallest eigenvalue
    const double safe = trace * (1.005 + n * trace * eps);
    if (trace > 0 && trace * eps < 0.1) row = safe > 1 ? ilogb(safe) + 1 : 0;
    if (row < call.rows)
      low = 1 / safe, high = 1;
    else
      status = HARD;
  }
  if (status == OK) {
    const double *plan = table + (offset)row * call.width;
    steps = (int)plan[0];
    for (int step = 0; step < steps; ++step) {
      int rest = step < steps - 1 ? call.den : 0;
      // one place where a product is called, so that it is inlined once
      for (int op = -1; op < call.num || rest; ++op) {
        const T *left = x, *right = t;
        const double *coeffs = nullptr;
        int target = 0;
        if (op < 0) {
          left = right = m, coeffs = plan + 3 + 3 * step, target = 1;
        } else if (op < call.num) {
          if (step + op == 0) left = m;
          if (step + op == 0 && !call.whole) {
            copy(team, x, t, ld);
            continue;
          }
        } else if (rest & 1) {
          left = m, target = 2, rest -= 1;
        } else {
          left = t, target = 1, rest >>= 1;
        }
        product(team, q, left, right, ld, coeffs);
        T *const done = q;
        if (target == 0)
          q = x, x = done;
        else if (target == 1)
          q = t, t = done;
        else
          q = m, m = done;
      }
    }
  } else if (status == HARD && call.finish) {
    jacobi(team, m, x, turns, ld);
    status = spectral(team, x, m, x, t, call.half, n, ld, call.whole, call.num, call.den, low,
                      high);
  }
  // the power of the bound, and of the power of two, that was divided by
  double factor = 0;
  if (status == OK && bound > 0) {
    factor = ldexp(power_of((double)bound, call.whole, call.num, call.den),
                   call.whole * exponent - exponent / call.den * call.num);
  }
  const T scale = (T)factor;
  for (int k = team.rank; k < call.half * n; k += team.size) {
    const int i = k / n, j = k % n / call.planes, p = k % n % call.planes;
    T value = lk_nan(T());
    if (status == OK) {
      value = x[(p * call.half + i) * ld + j];
      if (call.planes == 2) {
        // the two copies of X and Y agree to rounding, or better: where eigenvalues that are pairs
        // come out as two, their mean is a function of the complex matrix and each alone is not
        const T other = x[(call.half - p * call.half + i) * ld + call.half + j];
        value = (T)0.5 * (p ? value - other : value + other);
      }
      // adding zero turns -0 into +0
      value = p && i == j ? (T)0 : lk_fma(value, scale, (T)0);
    }
    out[k] = value;
  }
  if (team.rank == 0) {
    const double unit = ldexp((double)bound, exponent);
    report[0] = status;
    report[1] = steps;
    report[2] = low * unit;
    report[3] = high * unit;
    if (status != OK) atomicAdd(bad, 1);
  }
  team.sync();
}

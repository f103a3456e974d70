#include "advisor/predict/dense_solver.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace sextant::advisor {
namespace {

// Vectors of four doubles, in whatever registers the instruction set has. Under sanitizers there is one version: the
// choice at load time runs before they are ready.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define SEXTANT_VERSIONS __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define SEXTANT_VERSIONS
#endif
using Four = double __attribute__((vector_size(32), aligned(8)));

constexpr size_t kBlock = 64;

// c (4 x 8, leading dimension ldc) -= a b over `depth` terms: element (r, t) of a is a[r * ars + t * ats], b's rows have
// length ldb.
SEXTANT_VERSIONS void subtract_tile(const double* a, size_t ars, size_t ats, const double* b, size_t ldb, double* c,
                                    size_t ldc, size_t depth) {
  Four acc[4][2] = {};
  for (size_t t = 0; t < depth; ++t) {
    const Four b0 = *reinterpret_cast<const Four*>(b + t * ldb);
    const Four b1 = *reinterpret_cast<const Four*>(b + t * ldb + 4);
    for (size_t r = 0; r < 4; ++r) {
      const double value = a[r * ars + t * ats];
      acc[r][0] += value * b0;
      acc[r][1] += value * b1;
    }
  }
  for (size_t r = 0; r < 4; ++r) {
    *reinterpret_cast<Four*>(c + r * ldc) -= acc[r][0];
    *reinterpret_cast<Four*>(c + r * ldc + 4) -= acc[r][1];
  }
}

// c (rows x cols) -= a b.
void subtract_product(const double* a, size_t ars, size_t ats, const double* b, size_t ldb, double* c, size_t ldc,
                      size_t rows, size_t cols, size_t depth) {
  for (size_t i = 0; i < rows; i += 4) {
    for (size_t j = 0; j < cols; j += 8) {
      if (i + 4 <= rows && j + 8 <= cols) {
        subtract_tile(a + i * ars, ars, ats, b + j, ldb, c + i * ldc + j, ldc, depth);
        continue;
      }
      for (size_t r = i; r < std::min(i + 4, rows); ++r) {
        for (size_t k = j; k < std::min(j + 8, cols); ++k) {
          double sum = 0;
          for (size_t t = 0; t < depth; ++t) sum += a[r * ars + t * ats] * b[t * ldb + k];
          c[r * ldc + k] -= sum;
        }
      }
    }
  }
}

}  // namespace

bool cholesky_in_place(SquareMatrix& matrix) {
  const size_t n = matrix.n;
  std::vector<double> panel;  // transposed: kBlock x (rows below the block)
  for (size_t k0 = 0; k0 < n; k0 += kBlock) {
    const size_t k1 = std::min(k0 + kBlock, n);
    for (size_t j = k0; j < k1; ++j) {
      for (size_t i = j; i < k1; ++i) {
        double sum = matrix.row(i)[j];
        for (size_t t = k0; t < j; ++t) sum -= matrix.row(i)[t] * matrix.row(j)[t];
        if (i == j) {
          if (!(sum > 0)) return false;
          matrix.row(j)[j] = std::sqrt(sum);
        } else {
          matrix.row(i)[j] = sum / matrix.row(j)[j];
        }
      }
    }
    const size_t below = n - k1;
    if (below == 0) break;
    panel.assign((k1 - k0) * below, 0.0);
    for (size_t i = 0; i < below; ++i)
      for (size_t j = k0; j < k1; ++j) panel[(j - k0) * below + i] = matrix.row(k1 + i)[j];
    for (size_t j = k0; j < k1; ++j) {
      double* target = panel.data() + (j - k0) * below;
      for (size_t t = k0; t < j; ++t) {
        const double factor = matrix.row(j)[t];
        const double* source = panel.data() + (t - k0) * below;
        for (size_t i = 0; i < below; ++i) target[i] -= factor * source[i];
      }
      const double divisor = matrix.row(j)[j];
      for (size_t i = 0; i < below; ++i) target[i] /= divisor;
    }
    for (size_t i = 0; i < below; ++i)
      for (size_t j = k0; j < k1; ++j) matrix.row(k1 + i)[j] = panel[(j - k0) * below + i];
    for (size_t i = 0; i < below; i += kBlock) {  // the trailing lower triangle, whole blocks of it
      const size_t rows = std::min(kBlock, below - i);
      subtract_product(panel.data() + i, 1, below, panel.data(), below, matrix.row(k1 + i) + k1, n, rows,
                       std::min(i + kBlock, below), k1 - k0);
    }
  }
  return true;
}

SquareMatrix invert_lower(const SquareMatrix& lower) {
  const size_t n = lower.n;
  SquareMatrix inverse(n);
  std::vector<double> product;
  for (size_t k0 = 0; k0 < n; k0 += kBlock) {
    const size_t k1 = std::min(k0 + kBlock, n);
    for (size_t j = k0; j < k1; ++j) {  // the diagonal block
      inverse.row(j)[j] = 1.0 / lower.row(j)[j];
      for (size_t i = j + 1; i < k1; ++i) {
        double sum = 0;
        for (size_t t = j; t < i; ++t) sum -= lower.row(i)[t] * inverse.row(t)[j];
        inverse.row(i)[j] = sum / lower.row(i)[i];
      }
    }
    if (k0 == 0) continue;
    const size_t rows = k1 - k0;
    product.assign(rows * k0, 0.0);  // -L[k0:k1, 0:k0] X[0:k0, 0:k0]
    for (size_t t0 = 0; t0 < k0; t0 += kBlock)
      subtract_product(lower.row(k0) + t0, n, 1, inverse.row(t0), n, product.data(), k0, rows, t0 + kBlock, kBlock);
    for (size_t i = k0; i < k1; ++i) {
      double* target = inverse.row(i);
      for (size_t t = k0; t <= i; ++t) {
        const double factor = inverse.row(i)[t];
        const double* source = product.data() + (t - k0) * k0;
        for (size_t j = 0; j < k0; ++j) target[j] += factor * source[j];
      }
    }
  }
  return inverse;
}

SquareMatrix inverse_block(const SquareMatrix& lower_inverse, const std::vector<size_t>& ids) {
  const size_t n = lower_inverse.n;
  const size_t m = ids.size();
  SquareMatrix block(m);
  if (m == 0) return block;
  const size_t first = ids.front();
  std::vector<double> columns((n - first) * m);
  for (size_t t = first; t < n; ++t)
    for (size_t j = 0; j < m; ++j) columns[(t - first) * m + j] = ids[j] <= t ? lower_inverse.row(t)[ids[j]] : 0.0;
  subtract_product(columns.data(), 1, m, columns.data(), m, block.a.data(), m, m, m, n - first);
  for (double& value : block.a) value = -value;
  return block;
}

std::vector<double> solve(const SquareMatrix& lower_inverse, const std::vector<double>& y) {
  const size_t n = lower_inverse.n;
  std::vector<double> x(n, 0.0);
  for (size_t i = 0; i < n; ++i) {
    double sum = 0;
    const double* row = lower_inverse.row(i);
    for (size_t j = 0; j <= i; ++j) sum += row[j] * y[j];
    for (size_t j = 0; j <= i; ++j) x[j] += row[j] * sum;
  }
  return x;
}

std::vector<double> inverse_diagonal(const SquareMatrix& lower_inverse) {
  const size_t n = lower_inverse.n;
  std::vector<double> diagonal(n, 0.0);
  for (size_t i = 0; i < n; ++i) {
    const double* row = lower_inverse.row(i);
    for (size_t j = 0; j <= i; ++j) diagonal[j] += row[j] * row[j];
  }
  return diagonal;
}

std::vector<double> solve_small(SquareMatrix matrix, std::vector<double> b) {
  if (!cholesky_in_place(matrix)) return b;
  const size_t n = matrix.n;
  for (size_t i = 0; i < n; ++i) {
    for (size_t t = 0; t < i; ++t) b[i] -= matrix.row(i)[t] * b[t];
    b[i] /= matrix.row(i)[i];
  }
  for (size_t i = n; i-- > 0;) {
    for (size_t t = i + 1; t < n; ++t) b[i] -= matrix.row(t)[i] * b[t];
    b[i] /= matrix.row(i)[i];
  }
  return b;
}

}  // namespace sextant::advisor

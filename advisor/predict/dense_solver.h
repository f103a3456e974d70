// Cholesky factor and its inverse for the Gaussian process: row-major doubles, blocked, one thread. Sums run in one order
// whatever the instruction set, so results are the same to the last bit on every x86-64.
#pragma once

#include <cstddef>
#include <vector>

namespace sextant::advisor {

struct SquareMatrix {
  size_t n = 0;
  std::vector<double> a;  // n * n, row-major

  SquareMatrix() = default;
  explicit SquareMatrix(size_t size) : n(size), a(size * size, 0.0) {}
  double* row(size_t i) { return a.data() + i * n; }
  const double* row(size_t i) const { return a.data() + i * n; }
};

// The lower triangle of a symmetric matrix becomes L with L L^T = it; the upper triangle is scratch afterwards.
// False when it is not positive definite; the contents are then unspecified.
[[nodiscard]] bool cholesky_in_place(SquareMatrix& matrix);

// L (lower triangle) -> inverse of L, upper triangle zero.
SquareMatrix invert_lower(const SquareMatrix& lower);

// (L L^T)^-1 restricted to rows and columns `ids` (ascending), from the inverse of L.
SquareMatrix inverse_block(const SquareMatrix& lower_inverse, const std::vector<size_t>& ids);

// (L L^T)^-1 y, from the inverse of L.
std::vector<double> solve(const SquareMatrix& lower_inverse, const std::vector<double>& y);

// Diagonal of (L L^T)^-1, from the inverse of L.
std::vector<double> inverse_diagonal(const SquareMatrix& lower_inverse);

// x with matrix x = b for a small symmetric positive definite matrix; b when it is not positive definite.
std::vector<double> solve_small(SquareMatrix matrix, std::vector<double> b);

}  // namespace sextant::advisor

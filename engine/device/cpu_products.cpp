#include "engine/device/cpu_products.h"

#include <algorithm>

namespace sextant {

using kernels::MatmulInputKind;

namespace {

// Multiplications by a weight, and elements brought in, below which waking the other threads is not worth it.
constexpr int64_t kMinProductsToShare = 32768;
constexpr int64_t kMinElementsToShare = 8192;

}  // namespace

Status CpuProducts::prepare(const CpuMatrix& matrix) {
  for (const CpuMatrix::Run& run : matrix.runs()) {
    const MatmulInputKind kind = input_kind(run.type);
    const auto bytes = static_cast<size_t>(kernels::matmul_input_bytes(kind, matrix.cols(), tokens_per_pass_));
    std::unique_ptr<CpuBuffer>& input = inputs_[static_cast<size_t>(kind)];
    if (input != nullptr && input->size_bytes() >= bytes) continue;
    ASSIGN_OR_RETURN(input, CpuBuffer::create(bytes));
  }
  return ok_status();
}

int64_t CpuProducts::input_bytes() const {
  int64_t bytes = 0;
  for (const std::unique_ptr<CpuBuffer>& input : inputs_)
    bytes += input ? static_cast<int64_t>(input->size_bytes()) : 0;
  return bytes;
}

void CpuProducts::multiply(const CpuMatrix& matrix, const Tensor& x, const Tensor& out) {
  for (int64_t first = 0; first < x.rows; first += tokens_per_pass_) {
    const int64_t count = std::min(x.rows - first, tokens_per_pass_);
    multiply_pass(matrix, x.row_range(first, count), out.row_range(first, count));
  }
}

void CpuProducts::multiply_pass(const CpuMatrix& matrix, const Tensor& x, const Tensor& out) {
  for (const CpuMatrix::Run& run : matrix.runs()) {
    const MatmulInputKind kind = input_kind(run.type);
    if (&run == &matrix.runs().front() || kind != input_kind((&run)[-1].type)) bring_in(kind, x);
  }
  if (pool_.num_threads() == 1 || x.rows * matrix.rows() * matrix.cols() < kMinProductsToShare) {
    multiply_panels(matrix, 0, matrix.panel_begin().back(), x.rows, out);
    return;
  }
  expect_the_product_after(matrix);
  const std::vector<int64_t>& begin = matrix.panel_begin();
  const int64_t num_pieces = static_cast<int64_t>(begin.size()) - 1, threads = pool_.num_threads();
  pool_.share(num_pieces, [&](int, int64_t piece) {
    // A thread's own pieces, every Tth, are panels that follow one another: one stream from memory.
    const int64_t owner = piece % threads;
    const auto i =
        static_cast<size_t>(owner * (num_pieces / threads) + std::min(owner, num_pieces % threads) + piece / threads);
    multiply_panels(matrix, begin[i], begin[i + 1], x.rows, out);
  });
}

// Products follow one another as in the step before: threads that wait for others bring in weights of the next one.
void CpuProducts::expect_the_product_after(const CpuMatrix& matrix) {
  const size_t i = num_products_++;
  if (products_.size() <= i) products_.resize(i + 1);
  products_[i] = {matrix.runs()[0].panels, static_cast<int64_t>(matrix.size_bytes()) / pool_.num_threads()};
  const Weights& next = products_[i + 1 < products_.size() ? i + 1 : 0];
  pool_.expect(next.begin, next.bytes_of_thread);
}

void CpuProducts::bring_in(MatmulInputKind kind, const Tensor& x) {
  constexpr int64_t kTile = kernels::kMatmulTileMultiple;
  auto* const to = static_cast<uint8_t*>(input(kind)->data());
  const auto function = kind == MatmulInputKind::kBf16 ? kernels_.matmul_bf16_input : kernels_.matmul_input;
  const int64_t tiles = (x.rows + kTile - 1) / kTile;
  pool_.parallel_for(
      tiles, std::max<int64_t>(1, kMinElementsToShare / (kTile * x.cols)), [&](int64_t begin, int64_t end) {
        function({kind, x.f32(), x.row_stride, x.cols, x.rows, begin * kTile, std::min(end * kTile, x.rows), to});
      });
}

void CpuProducts::multiply_panels(const CpuMatrix& matrix, int64_t begin, int64_t end, int64_t num_tokens,
                                  const Tensor& out) {
  for (const CpuMatrix::Run& run : matrix.runs()) {
    const int64_t first = std::max<int64_t>(begin - run.first_panel, 0),
                  last = std::min(end - run.first_panel, run.num_panels());
    if (first >= last) continue;
    const MatmulInputKind kind = input_kind(run.type);
    const auto function = kind == MatmulInputKind::kBf16 ? kernels_.matmul_bf16 : kernels_.matmul;
    function({run.type, run.panels, run.rows, matrix.cols(), first, last,
              static_cast<const uint8_t*>(input(kind)->data()), num_tokens, out.f32() + run.first_row, out.row_stride});
  }
}

}  // namespace sextant

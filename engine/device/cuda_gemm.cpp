// Dispatch between kernels and cuBLASLt, and the cache of its algorithms (cuda_gemm.h).
#include "engine/device/cuda_gemm.h"

#include <algorithm>
#include <bit>
#include <string>

#include "engine/device/cuda_status.h"
#include "kernels/cuda/gemm_weight_only.h"
#include "kernels/cuda/gemv.h"
#include "kernels/cuda/quantize_f8.h"

namespace sextant {
namespace {

using kernels::cuda::ElementType;
using kernels::cuda::F8Scaling;
using kernels::cuda::WeightFormat;

ElementType element_type(DType dtype) {
  return dtype == DType::kFloat32   ? ElementType::kFloat32
         : dtype == DType::kFloat16 ? ElementType::kFloat16
                                    : ElementType::kBFloat16;
}
cudaDataType_t library_type(DType dtype) {
  return dtype == DType::kFloat32 ? CUDA_R_32F : dtype == DType::kFloat16 ? CUDA_R_16F : CUDA_R_16BF;
}

constexpr uint32_t kInputAlignment = 16;  // of weights and activations

Status cublas_status(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return ok_status();
  return {StatusCode::kDeviceError, std::string(what) + ": " + cublasLtGetStatusString(status) + " (cuBLAS status " +
                                        std::to_string(static_cast<int>(status)) + ")"};
}

#define RETURN_IF_CUBLAS_ERROR(call, what)                                                     \
  do {                                                                                         \
    if (const cublasStatus_t cublas_status_ = (call); cublas_status_ != CUBLAS_STATUS_SUCCESS) \
      return cublas_status(cublas_status_, what);                                              \
  } while (false)

// Row-major [rows, cols] is column-major cols x rows.
class Layout {
 public:
  static Result<Layout> create(cudaDataType_t type, int64_t rows, int64_t cols, int64_t row_stride) {
    Layout layout;
    RETURN_IF_CUBLAS_ERROR(cublasLtMatrixLayoutCreate(&layout.layout_, type, static_cast<uint64_t>(cols),
                                                      static_cast<uint64_t>(rows), row_stride),
                           "describing a matrix");
    return layout;
  }
  Layout(Layout&& other) noexcept : layout_(std::exchange(other.layout_, nullptr)) {}
  Layout& operator=(Layout&& other) noexcept {
    std::swap(layout_, other.layout_);
    return *this;
  }
  ~Layout() {
    if (layout_ != nullptr) cublasLtMatrixLayoutDestroy(layout_);
  }
  cublasLtMatrixLayout_t get() const { return layout_; }

 private:
  Layout() = default;
  cublasLtMatrixLayout_t layout_ = nullptr;
};

// out^T (N x T) = w (op T of K x N) x^T (K x T): cuBLASLt's "TN".
struct Layouts {
  Layout w, x, out;
};
Result<Layouts> describe(int64_t rows, int64_t cols, int64_t tokens, int64_t x_stride, int64_t out_stride,
                         cudaDataType_t in_type, cudaDataType_t out_type) {
  ASSIGN_OR_RETURN(Layout w, Layout::create(in_type, rows, cols, cols));
  ASSIGN_OR_RETURN(Layout x, Layout::create(in_type, tokens, cols, x_stride));
  ASSIGN_OR_RETURN(Layout out, Layout::create(out_type, tokens, rows, out_stride));
  return Layouts{std::move(w), std::move(x), std::move(out)};
}

int64_t bucket_of(int64_t tokens) {
  return std::max<int64_t>(8, static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(tokens))));
}

// The largest power of two up to 16, the widest access, that divides the address: where in memory an output happens to lie
// should not choose the algorithm.
int64_t alignment_of(const void* p) {
  return int64_t{1} << std::min(4, std::countr_zero(reinterpret_cast<uintptr_t>(p)));
}

// Of x in e4m3 and of its scales, the most that any way of scaling takes.
int64_t aligned(int64_t bytes) { return (bytes + 255) / 256 * 256; }
int64_t f8_bytes(int64_t tokens, int64_t cols) { return aligned(tokens * cols); }
int64_t scale_bytes(int64_t tokens, int64_t cols) { return tokens * ((cols + 127) / 128) * int64_t{sizeof(float)}; }

}  // namespace

int64_t CudaGemm::workspace_bytes(int64_t max_num_tokens, int64_t max_cols, F8Products f8_products) {
  // Behind what cuBLASLt has: x in e4m3, scales, and the largest of each row.
  const int64_t f8 = f8_products == F8Products::kNone
                         ? 0
                         : f8_bytes(max_num_tokens, max_cols) + aligned(scale_bytes(max_num_tokens, max_cols)) +
                               aligned(max_num_tokens * int64_t{sizeof(float)});
  return std::max(kCublasWorkspaceBytes + f8,
                  kernels::cuda::gemm_weight_only_workspace_bytes(WeightFormat::kQ4_1, max_num_tokens, max_cols));
}

Result<std::unique_ptr<CudaGemm>> CudaGemm::create(int64_t max_num_tokens, int64_t max_cols, F8Products f8_products) {
  std::unique_ptr<CudaGemm> gemm(new CudaGemm);
  gemm->f8_products_ = f8_products;
  gemm->f8_tokens_ = max_num_tokens;
  gemm->f8_cols_ = max_cols;
  RETURN_IF_CUBLAS_ERROR(cublasLtCreate(&gemm->handle_), "starting cuBLASLt");
  const int32_t transposed = CUBLAS_OP_T;
  const std::pair<cublasLtMatmulMatrixScale_t, cublasLtMatmulMatrixScale_t> modes[kNumOperations] = {
      {CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F, CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F},
      {CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F, CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F},
      {CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F, CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F},
      {CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F, CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F}};
  for (size_t i = 0; i < kNumOperations; ++i) {
    RETURN_IF_CUBLAS_ERROR(cublasLtMatmulDescCreate(&gemm->operations_[i], CUBLAS_COMPUTE_32F, CUDA_R_32F),
                           "describing a product");
    const auto set = [&](cublasLtMatmulDescAttributes_t attribute, int32_t value) {
      return cublas_status(cublasLtMatmulDescSetAttribute(gemm->operations_[i], attribute, &value, sizeof(value)),
                           "describing a product");
    };
    RETURN_IF_ERROR(set(CUBLASLT_MATMUL_DESC_TRANSA, transposed));
    if (i == kPlain) continue;
    RETURN_IF_ERROR(set(CUBLASLT_MATMUL_DESC_A_SCALE_MODE, modes[i].first));
    RETURN_IF_ERROR(set(CUBLASLT_MATMUL_DESC_B_SCALE_MODE, modes[i].second));
  }
  ASSIGN_OR_RETURN(gemm->workspace_,
                   CudaBuffer::create(static_cast<size_t>(workspace_bytes(max_num_tokens, max_cols, f8_products))));
  return gemm;
}

CudaGemm::~CudaGemm() {
  for (const cublasLtMatmulDesc_t operation : operations_) {
    if (operation != nullptr) cublasLtMatmulDescDestroy(operation);
  }
  if (handle_ != nullptr) cublasLtDestroy(handle_);
}

Result<cublasLtMatmulAlgo_t> CudaGemm::algorithm(const Key& key) {
  if (const auto known = algorithms_.find(key); known != algorithms_.end()) return known->second;
  const auto [operation, rows, cols, tokens, x_stride, out_stride, x_type, out_type, out_alignment] = key;
  ASSIGN_OR_RETURN(const Layouts layouts,
                   describe(rows, cols, tokens, x_stride, out_stride, static_cast<cudaDataType_t>(x_type),
                            static_cast<cudaDataType_t>(out_type)));
  struct Preference {
    cublasLtMatmulPreference_t get = nullptr;
    ~Preference() {
      if (get != nullptr) cublasLtMatmulPreferenceDestroy(get);
    }
  } preference;
  RETURN_IF_CUBLAS_ERROR(cublasLtMatmulPreferenceCreate(&preference.get), "choosing an algorithm");
  const uint64_t workspace = kCublasWorkspaceBytes;
  RETURN_IF_CUBLAS_ERROR(cublasLtMatmulPreferenceSetAttribute(preference.get, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                              &workspace, sizeof(workspace)),
                         "choosing an algorithm");
  const auto out_bytes = static_cast<uint32_t>(out_alignment);
  const std::pair<cublasLtMatmulPreferenceAttributes_t, uint32_t> alignments[] = {
      {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, kInputAlignment},
      {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, kInputAlignment},
      {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, out_bytes},
      {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, out_bytes}};
  for (const auto& [attribute, bytes] : alignments) {
    RETURN_IF_CUBLAS_ERROR(cublasLtMatmulPreferenceSetAttribute(preference.get, attribute, &bytes, sizeof(bytes)),
                           "choosing an algorithm");
  }
  cublasLtMatmulHeuristicResult_t found = {};
  int count = 0;
  RETURN_IF_CUBLAS_ERROR(cublasLtMatmulAlgoGetHeuristic(handle_, operations_[static_cast<size_t>(operation)],
                                                        layouts.w.get(), layouts.x.get(), layouts.out.get(),
                                                        layouts.out.get(), preference.get, 1, &found, &count),
                         "choosing an algorithm");
  if (count < 1) {
    return Status{StatusCode::kDeviceError, "cuBLASLt has no algorithm for " + std::to_string(tokens) +
                                                " tokens and a matrix of " + std::to_string(rows) + " rows and " +
                                                std::to_string(cols) + " columns"};
  }
  algorithms_[key] = found.algo;
  return found.algo;
}

Status CudaGemm::multiply_by_library(const LibraryProduct& p, cudaStream_t stream) {
  ASSIGN_OR_RETURN(const Layouts layouts,
                   describe(p.run->rows, p.cols, p.tokens, p.x_stride, p.out_stride, p.x_type, p.out_type));
  const float one = 1, zero = 0;
  cublasStatus_t status = CUBLAS_STATUS_NOT_SUPPORTED;
  // An algorithm need not fit every T of its bucket; then this T gets its own.
  for (const int64_t tokens : {bucket_of(p.tokens), p.tokens}) {
    const Key key = {p.operation, p.run->rows,        p.cols, tokens, p.x_stride, p.out_stride, p.x_type,
                     p.out_type,  alignment_of(p.out)};
    ASSIGN_OR_RETURN(const cublasLtMatmulAlgo_t algo, algorithm(key));
    status = cublasLtMatmul(handle_, operations_[p.operation], &one, p.run->weights, layouts.w.get(), p.x,
                            layouts.x.get(), &zero, p.out, layouts.out.get(), p.out, layouts.out.get(), &algo,
                            workspace_->data(), kCublasWorkspaceBytes, stream);
    if (status != CUBLAS_STATUS_NOT_SUPPORTED && status != CUBLAS_STATUS_INVALID_VALUE) break;
  }
  return cublas_status(status, "multiplying by cuBLASLt");
}

Status CudaGemm::multiply_few(const CudaMatrix::Run& run, const Tensor& x, void* to, const Tensor& out,
                              cudaStream_t stream) {
  const int64_t step = kernels::cuda::max_gemv_tokens(run.format),
                out_bytes = static_cast<int64_t>(dtype_size(out.dtype));
  for (int64_t first = 0; first < x.rows; first += step) {
    const int64_t tokens = std::min(step, x.rows - first);
    RETURN_IF_CUDA_ERROR(
        static_cast<cudaError_t>(kernels::cuda::gemv(
            {run.format, run.weights, run.scales, run.rows, x.cols, x.row_range(first, tokens).data, x.row_stride,
             element_type(x.dtype), static_cast<int32_t>(tokens),
             static_cast<std::byte*>(to) + first * out.row_stride * out_bytes, out.row_stride, element_type(out.dtype)},
            stream)),
        "multiplying few tokens");
  }
  return ok_status();
}

Status CudaGemm::multiply_f8(const CudaMatrix::Run& run, const Tensor& x, void* to, const Tensor& out,
                             std::optional<Operation>& quantized, cudaStream_t stream) {
  const int64_t cols = x.cols, out_bytes = static_cast<int64_t>(dtype_size(out.dtype));
  // What cuBLASLt asks of e4m3: 16 bytes everywhere.
  if (reinterpret_cast<uintptr_t>(to) % 16 != 0 || out.row_stride * out_bytes % 16 != 0) {
    return multiply_few(run, x, to, out, stream);
  }
  const Operation operation = run.format == WeightFormat::kF8Blocks    ? kF8Blocks
                              : f8_products_ == F8Products::kAllScales ? kF8Rows
                                                                       : kF8Tensor;
  if (f8_products_ == F8Products::kNone || (operation == kF8Tensor && !run.one_scale) || x.rows > f8_tokens_ ||
      cols > f8_cols_) {
    return internal_error("a product of FP8 weights that CudaGemm was not made for");
  }
  const int64_t tokens = operation == kF8Blocks ? x.rows / 4 * 4 : x.rows;
  auto* x_f8 = static_cast<std::byte*>(workspace_->data()) + kCublasWorkspaceBytes;
  auto* scales = reinterpret_cast<float*>(x_f8 + f8_bytes(f8_tokens_, f8_cols_));
  auto* row_maxima =
      reinterpret_cast<float*>(reinterpret_cast<std::byte*>(scales) + aligned(scale_bytes(f8_tokens_, f8_cols_)));
  if (quantized != operation) {
    const F8Scaling scaling = operation == kF8Blocks ? F8Scaling::kPerBlock
                              : operation == kF8Rows ? F8Scaling::kPerRow
                                                     : F8Scaling::kPerTensor;
    RETURN_IF_CUDA_ERROR(static_cast<cudaError_t>(kernels::cuda::quantize_f8(
                             {scaling, x.data, x.row_stride, element_type(x.dtype), static_cast<int32_t>(tokens), cols,
                              x_f8, scales, tokens, row_maxima},
                             stream)),
                         "quantising activations");
    quantized = operation;
  }
  const void* pointers[2] = {run.scales, scales};
  for (const auto& [attribute, pointer] : {std::pair{CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &pointers[0]},
                                           std::pair{CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &pointers[1]}}) {
    RETURN_IF_CUBLAS_ERROR(cublasLtMatmulDescSetAttribute(operations_[operation], attribute, pointer, sizeof(*pointer)),
                           "describing a product");
  }
  RETURN_IF_ERROR(multiply_by_library(
      {operation, &run, cols, x_f8, cols, CUDA_R_8F_E4M3, tokens, to, out.row_stride, library_type(out.dtype)},
      stream));
  if (tokens == x.rows) return ok_status();
  return multiply_few(run, x.row_range(tokens, x.rows - tokens),
                      static_cast<std::byte*>(to) + tokens * out.row_stride * out_bytes, out, stream);
}

Status CudaGemm::multiply(const CudaMatrix& w, const Tensor& x, const Tensor& out, cudaStream_t stream) {
  if ((x.dtype != DType::kBFloat16 && x.dtype != DType::kFloat16) ||
      (out.dtype != x.dtype && out.dtype != DType::kFloat32) || x.cols != w.cols() || out.cols != w.rows() ||
      x.rows != out.rows || x.rows > INT32_MAX || x.row_stride % 8 != 0 ||
      reinterpret_cast<uintptr_t>(x.data) % kInputAlignment != 0) {
    return internal_error("a product of shapes or types that CudaGemm does not take");
  }
  if (x.rows == 0) return ok_status();
  const auto tokens = static_cast<int32_t>(x.rows);
  const WeightFormat plain = x.dtype == DType::kFloat16 ? WeightFormat::kFloat16 : WeightFormat::kBFloat16;
  std::optional<Operation> quantized;
  for (const CudaMatrix::Run& run : w.runs()) {
    void* to = static_cast<std::byte*>(out.data) + run.first_row * static_cast<int64_t>(dtype_size(out.dtype));
    if (kernels::cuda::is_plain(run.format) && run.format != plain) {
      return internal_error("weights and activations of different 16-bit types");
    }
    if (tokens <= kernels::cuda::max_gemv_tokens(run.format)) {
      RETURN_IF_ERROR(multiply_few(run, x, to, out, stream));
    } else if (kernels::cuda::is_plain(run.format)) {
      RETURN_IF_ERROR(multiply_by_library({kPlain, &run, w.cols(), x.data, x.row_stride, library_type(x.dtype), tokens,
                                           to, out.row_stride, library_type(out.dtype)},
                                          stream));
    } else if (kernels::cuda::is_f8_row_major(run.format)) {
      RETURN_IF_ERROR(multiply_f8(run, x, to, out, quantized, stream));
    } else {
      if (kernels::cuda::gemm_weight_only_workspace_bytes(run.format, tokens, w.cols()) >
          static_cast<int64_t>(workspace_->size_bytes())) {
        return internal_error("a product larger than CudaGemm was made for");
      }
      quantized.reset();  // the workspace is one
      RETURN_IF_CUDA_ERROR(
          static_cast<cudaError_t>(kernels::cuda::gemm_weight_only(
              {run.format, run.weights, run.scales, run.rows, w.cols(), x.data, x.row_stride, element_type(x.dtype),
               tokens, to, out.row_stride, element_type(out.dtype), workspace_->data()},
              stream)),
          "multiplying with quantised weights");
    }
  }
  return ok_status();
}

}  // namespace sextant

// Dispatch between kernels and cuBLASLt, and the cache of its algorithms (cuda_gemm.h).
#include "engine/device/cuda_gemm.h"

#include <algorithm>
#include <bit>
#include <string>

#include "engine/device/cuda_status.h"
#include "kernels/cuda/gemm_weight_only.h"
#include "kernels/cuda/gemv.h"

namespace sextant {
namespace {

using kernels::cuda::ElementType;
using kernels::cuda::WeightFormat;

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
                         cudaDataType_t out_type) {
  ASSIGN_OR_RETURN(Layout w, Layout::create(CUDA_R_16BF, rows, cols, cols));
  ASSIGN_OR_RETURN(Layout x, Layout::create(CUDA_R_16BF, tokens, cols, x_stride));
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

}  // namespace

int64_t CudaGemm::workspace_bytes(int64_t max_num_tokens, int64_t max_cols) {
  return std::max(kCublasWorkspaceBytes,
                  kernels::cuda::gemm_weight_only_workspace_bytes(WeightFormat::kQ4_1, max_num_tokens, max_cols));
}

Result<std::unique_ptr<CudaGemm>> CudaGemm::create(int64_t max_num_tokens, int64_t max_cols) {
  std::unique_ptr<CudaGemm> gemm(new CudaGemm);
  RETURN_IF_CUBLAS_ERROR(cublasLtCreate(&gemm->handle_), "starting cuBLASLt");
  RETURN_IF_CUBLAS_ERROR(cublasLtMatmulDescCreate(&gemm->operation_, CUBLAS_COMPUTE_32F, CUDA_R_32F),
                         "describing a product");
  const int32_t transposed = CUBLAS_OP_T;
  RETURN_IF_CUBLAS_ERROR(
      cublasLtMatmulDescSetAttribute(gemm->operation_, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof(transposed)),
      "describing a product");
  ASSIGN_OR_RETURN(gemm->workspace_,
                   CudaBuffer::create(static_cast<size_t>(workspace_bytes(max_num_tokens, max_cols))));
  return gemm;
}

CudaGemm::~CudaGemm() {
  if (operation_ != nullptr) cublasLtMatmulDescDestroy(operation_);
  if (handle_ != nullptr) cublasLtDestroy(handle_);
}

Result<cublasLtMatmulAlgo_t> CudaGemm::algorithm(const Key& key) {
  if (const auto known = algorithms_.find(key); known != algorithms_.end()) return known->second;
  const auto [rows, cols, tokens, x_stride, out_stride, out_type, out_alignment] = key;
  ASSIGN_OR_RETURN(const Layouts layouts,
                   describe(rows, cols, tokens, x_stride, out_stride, static_cast<cudaDataType_t>(out_type)));
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
  RETURN_IF_CUBLAS_ERROR(
      cublasLtMatmulAlgoGetHeuristic(handle_, operation_, layouts.w.get(), layouts.x.get(), layouts.out.get(),
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

Status CudaGemm::multiply_plain(const CudaMatrix::Run& run, int64_t cols, const Tensor& x, void* out,
                                const Tensor& out_tensor, cudaStream_t stream) {
  const cudaDataType_t out_type = out_tensor.dtype == DType::kFloat32 ? CUDA_R_32F : CUDA_R_16BF;
  ASSIGN_OR_RETURN(const Layouts layouts,
                   describe(run.rows, cols, x.rows, x.row_stride, out_tensor.row_stride, out_type));
  const float one = 1, zero = 0;
  cublasStatus_t status = CUBLAS_STATUS_NOT_SUPPORTED;
  // An algorithm need not fit every T of its bucket; then this T gets its own.
  for (const int64_t tokens : {bucket_of(x.rows), x.rows}) {
    const Key key = {run.rows, cols, tokens, x.row_stride, out_tensor.row_stride, out_type, alignment_of(out)};
    ASSIGN_OR_RETURN(const cublasLtMatmulAlgo_t algo, algorithm(key));
    status = cublasLtMatmul(handle_, operation_, &one, run.weights, layouts.w.get(), x.data, layouts.x.get(), &zero,
                            out, layouts.out.get(), out, layouts.out.get(), &algo, workspace_->data(),
                            kCublasWorkspaceBytes, stream);
    if (status != CUBLAS_STATUS_NOT_SUPPORTED && status != CUBLAS_STATUS_INVALID_VALUE) break;
  }
  return cublas_status(status, "multiplying by cuBLASLt");
}

Status CudaGemm::multiply(const CudaMatrix& w, const Tensor& x, const Tensor& out, cudaStream_t stream) {
  if (x.dtype != DType::kBFloat16 || (out.dtype != DType::kBFloat16 && out.dtype != DType::kFloat32) ||
      x.cols != w.cols() || out.cols != w.rows() || x.rows != out.rows || x.rows > INT32_MAX || x.row_stride % 8 != 0 ||
      reinterpret_cast<uintptr_t>(x.data) % kInputAlignment != 0) {
    return internal_error("a product of shapes or types that CudaGemm does not take");
  }
  if (x.rows == 0) return ok_status();
  const auto tokens = static_cast<int32_t>(x.rows);
  const ElementType out_type = out.dtype == DType::kFloat32 ? ElementType::kFloat32 : ElementType::kBFloat16;
  for (const CudaMatrix::Run& run : w.runs()) {
    void* to = static_cast<std::byte*>(out.data) + run.first_row * static_cast<int64_t>(dtype_size(out.dtype));
    if (tokens <= kernels::cuda::max_gemv_tokens(run.format)) {
      RETURN_IF_CUDA_ERROR(
          static_cast<cudaError_t>(kernels::cuda::gemv({run.format, run.weights, run.scales, run.rows, w.cols(), x.data,
                                                        x.row_stride, tokens, to, out.row_stride, out_type},
                                                       stream)),
          "multiplying few tokens");
    } else if (run.format == WeightFormat::kBFloat16) {
      RETURN_IF_ERROR(multiply_plain(run, w.cols(), x, to, out, stream));
    } else {
      if (kernels::cuda::gemm_weight_only_workspace_bytes(run.format, tokens, w.cols()) >
          static_cast<int64_t>(workspace_->size_bytes())) {
        return internal_error("a product larger than CudaGemm was made for");
      }
      RETURN_IF_CUDA_ERROR(static_cast<cudaError_t>(kernels::cuda::gemm_weight_only(
                               {run.format, run.weights, run.scales, run.rows, w.cols(), x.data, x.row_stride, tokens,
                                to, out.row_stride, out_type, workspace_->data()},
                               stream)),
                           "multiplying with quantised weights");
    }
  }
  return ok_status();
}

}  // namespace sextant

// cuBLASLt's matrix products on the CPU: d = alpha op(a) op(b) + beta c, sums in fp32 in the order of k, one rounding at the end.
// An error is at most K 2^-24 of the sum of magnitudes; the library's own order of sums is another. Where the library would ask
// for workspace (few outputs, long sums: split K), so does this, and overwrites it, so that a workspace too small or in use
// shows. Scales of fp8 operands are applied to the sum, those of blocks of 128 to the sum of their block. Sources of what is
// refused: cuBLAS 13.0, "cublasLtMatmul", "cublasLtMatmulPreferenceAttributes_t", "Narrow Precision Data Types Usage".
#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/simt/runtime.h"

struct cublasLtContext {};
struct cublasLtMatmulDescShadow {
  cublasComputeType_t compute;
  cudaDataType_t scale;
  int32_t transposed[2] = {CUBLAS_OP_N, CUBLAS_OP_N};
  int32_t scale_mode[2] = {CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F, CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F};
  const float* scales[2] = {nullptr, nullptr};
};
struct cublasLtMatrixLayoutShadow {
  cudaDataType_t type;
  uint64_t rows;
  uint64_t cols;
  int64_t ld;
};
struct cublasLtMatmulPreferenceShadow {
  uint64_t max_workspace_bytes = 0;
  uint32_t min_alignment[4] = {256, 256, 256, 256};  // of a, b, c, d: the library's default
};

namespace sextant::simt {
namespace {

using Layout = cublasLtMatrixLayoutShadow;

size_t bytes_of(cudaDataType_t type) {
  switch (type) {
    case CUDA_R_32F: return 4;
    case CUDA_R_16F:
    case CUDA_R_16BF: return 2;
    case CUDA_R_8F_E4M3:
    case CUDA_R_8F_E5M2: return 1;
  }
  return 0;
}
bool is_fp8(cudaDataType_t type) { return type == CUDA_R_8F_E4M3 || type == CUDA_R_8F_E5M2; }

// OCP 8-bit Floating Point Specification (OFP8): E4M3 has no infinity and one NaN, E5M2 is the upper half of fp16.
float f32_of_fp8(cudaDataType_t type, uint8_t bits) {
  if (type == CUDA_R_8F_E5M2) return __half2float(__half_raw{static_cast<uint16_t>(bits << 8)});
  const int exponent = bits >> 3 & 15, fraction = bits & 7;
  if (exponent == 15 && fraction == 7) return std::nanf("");
  const float size = exponent == 0 ? std::ldexp(static_cast<float>(fraction), -9)
                                   : std::ldexp(static_cast<float>(8 + fraction), exponent - 10);
  return bits >> 7 != 0 ? -size : size;
}

float load(cudaDataType_t type, const void* p, size_t i) {
  switch (type) {
    case CUDA_R_32F: return static_cast<const float*>(p)[i];
    case CUDA_R_16F: return __half2float(static_cast<const __half*>(p)[i]);
    case CUDA_R_16BF: return __bfloat162float(static_cast<const __nv_bfloat16*>(p)[i]);
    case CUDA_R_8F_E4M3:
    case CUDA_R_8F_E5M2: return f32_of_fp8(type, static_cast<const uint8_t*>(p)[i]);
  }
  return 0;
}
void store(cudaDataType_t type, void* p, size_t i, float value) {
  if (type == CUDA_R_32F) static_cast<float*>(p)[i] = value;
  if (type == CUDA_R_16F) static_cast<__half*>(p)[i] = __float2half(value);
  if (type == CUDA_R_16BF) static_cast<__nv_bfloat16*>(p)[i] = __float2bfloat16(value);
}

struct Product {
  bool a_transposed, b_transposed;
  Layout a, b, c, d;
  const void *a_data, *b_data, *c_data;
  void* d_data;
  float alpha, beta;
  int32_t a_mode, b_mode;
  const float *a_scales, *b_scales;
  void* workspace;
  size_t workspace_bytes;
  bool by_blocks() const { return a_mode >= CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F; }
  size_t m() const { return d.rows; }
  size_t n() const { return d.cols; }
  size_t k() const { return a_transposed ? a.rows : a.cols; }
};

// Scale modes: for the tensor from 8.9 on; vectors and blocks on 9.0 alone, both operands', not both of 128 x 128; M and N multiples
// of 4 for blocks.
bool scales_supported(const cublasLtMatmulDescShadow& desc, uint64_t m, uint64_t n, int capability) {
  const int32_t a = desc.scale_mode[0], b = desc.scale_mode[1];
  if (a == CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F && b == a) return true;
  if (capability != 90) return false;
  if (a == CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F) return b == a;
  const auto is_block = [](int32_t mode) {
    return mode == CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F || mode == CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F;
  };
  return is_block(a) && is_block(b) && (a == CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F || a != b) && m % 4 == 0 &&
         n % 4 == 0;
}

// Whether the library has any algorithm for it.
cublasStatus_t check(const cublasLtMatmulDescShadow& desc, const Layout& a, const Layout& b, const Layout& c,
                     const Layout& d) {
  if (desc.compute != CUBLAS_COMPUTE_32F || desc.scale != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
  const bool ta = desc.transposed[0] != CUBLAS_OP_N, tb = desc.transposed[1] != CUBLAS_OP_N;
  const uint64_t m = ta ? a.cols : a.rows, k = ta ? a.rows : a.cols;
  const uint64_t n = tb ? b.rows : b.cols, kb = tb ? b.cols : b.rows;
  if (k != kb || d.rows != m || d.cols != n || c.rows != m || c.cols != n) return CUBLAS_STATUS_INVALID_VALUE;
  for (const Layout* layout : {&a, &b, &c, &d}) {
    if (layout->rows == 0 || layout->cols == 0 || layout->ld < static_cast<int64_t>(layout->rows)) {
      return CUBLAS_STATUS_INVALID_VALUE;
    }
  }
  const auto is_one_of = [](cudaDataType_t type, std::initializer_list<cudaDataType_t> types) {
    return std::find(types.begin(), types.end(), type) != types.end();
  };
  if (c.type != d.type) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (is_fp8(a.type) || is_fp8(b.type)) {
    // "TN" format, dimensions for 16-byte alignment, not both E5M2, compute capability 8.9.
    int major = 0, minor = 0, device = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
    const bool supported = is_fp8(a.type) && is_fp8(b.type) && !(a.type == CUDA_R_8F_E5M2 && b.type == a.type) && ta &&
                           !tb && m % 16 == 0 && k % 16 == 0 && a.ld % 16 == 0 && b.ld % 16 == 0 &&
                           is_one_of(d.type, {CUDA_R_16BF, CUDA_R_16F, CUDA_R_32F}) && major * 10 + minor >= 89 &&
                           scales_supported(desc, m, n, major * 10 + minor);
    return supported ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
  }
  for (int i = 0; i < 2; ++i) {
    if (desc.scales[i] != nullptr || desc.scale_mode[i] != CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F) {
      return CUBLAS_STATUS_INVALID_VALUE;
    }
  }
  const bool supported = a.type == b.type && (d.type == a.type || d.type == CUDA_R_32F);
  return supported ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

// What an algorithm remembers of what it was chosen for.
enum AlgoWord { kMagicWord, kWorkspaceWord, kTypesWord, kAlignmentWord };
constexpr uint64_t kMagic = 0x53454C54414C474Full;

uint64_t types_of(const cublasLtMatmulDescShadow& desc, const Layout& a, const Layout& b, const Layout& d) {
  return static_cast<uint64_t>(a.type) | static_cast<uint64_t>(b.type) << 8 | static_cast<uint64_t>(d.type) << 16 |
         static_cast<uint64_t>(desc.transposed[0]) << 24 | static_cast<uint64_t>(desc.transposed[1]) << 32 |
         static_cast<uint64_t>(desc.scale_mode[0]) << 40 | static_cast<uint64_t>(desc.scale_mode[1]) << 48;
}

constexpr size_t kLanes = 8;
using Lanes = float __attribute__((vector_size(kLanes * sizeof(float))));

// kLanes rows of d x kColumns columns: one chain of fp32 additions each, in the order of k.
template <size_t kColumns>
void multiply_tile(const Lanes* a, const float* b, size_t b_stride, size_t k_count, Lanes (&sums)[kColumns]) {
  for (Lanes& sum : sums) sum = Lanes{};
  for (size_t k = 0; k < k_count; ++k) {
    for (size_t j = 0; j < kColumns; ++j) sums[j] += a[k] * b[j * b_stride + k];
  }
}

// Of row (or column) i, where scales are the tensor's or the row's.
float outer_scale(int32_t mode, const float* scales, size_t i) {
  if (scales == nullptr) return 1;
  return scales[mode == CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F ? i : 0];
}
// Of row i (of `count`) and the block of 128 along K: VEC128 has rows side by side, BLK128x128 blocks along K, in fours.
float block_scale(int32_t mode, const float* scales, size_t i, size_t count, size_t block, size_t num_blocks) {
  if (mode == CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F) return scales[block * count + i];
  return scales[i / 128 * ((num_blocks + 3) / 4 * 4) + block];
}
template <size_t kColumns>
void multiply_blocks(const Product& p, const Lanes* a, const float* b, size_t first_row, size_t rows,
                     size_t first_column, size_t columns, Lanes (&sums)[kColumns]) {
  for (Lanes& sum : sums) sum = Lanes{};
  const size_t num_blocks = (p.k() + 127) / 128;
  for (size_t block = 0; block < num_blocks; ++block) {
    Lanes of_block[kColumns];
    multiply_tile(a + block * 128, b + block * 128, p.k(), std::min<size_t>(128, p.k() - block * 128), of_block);
    for (size_t j = 0; j < std::min(kColumns, columns); ++j) {
      const float of_b = block_scale(p.b_mode, p.b_scales, first_column + j, p.n(), block, num_blocks);
      for (size_t r = 0; r < rows; ++r) {
        sums[j][r] +=
            of_block[j][r] * (block_scale(p.a_mode, p.a_scales, first_row + r, p.m(), block, num_blocks) * of_b);
      }
    }
  }
}

void run(const Product& p) {
  if (p.workspace_bytes > 0) std::memset(p.workspace, 0xFF, p.workspace_bytes);
  constexpr size_t kColumnsPerPass = 64, kColumns = 4;
  std::array<std::array<float, 256>, 2> fp8{};
  for (size_t i = 0; i < 256; ++i) {
    fp8[0][i] = f32_of_fp8(CUDA_R_8F_E4M3, static_cast<uint8_t>(i));
    fp8[1][i] = f32_of_fp8(CUDA_R_8F_E5M2, static_cast<uint8_t>(i));
  }
  const auto element = [&](const Layout& layout, const void* data, size_t i) {
    if (is_fp8(layout.type)) return fp8[layout.type == CUDA_R_8F_E5M2][static_cast<const uint8_t*>(data)[i]];
    return load(layout.type, data, i);
  };
  const size_t k_count = p.k();
  std::vector<Lanes> a(k_count);  // [k] of kLanes rows
  std::vector<float> b(std::min(kColumnsPerPass, (p.n() + kColumns - 1) / kColumns * kColumns) * k_count);
  for (size_t n0 = 0; n0 < p.n(); n0 += kColumnsPerPass) {
    const size_t columns = std::min(kColumnsPerPass, p.n() - n0);
    std::fill(b.begin(), b.end(), 0.0f);
    for (size_t n = 0; n < columns; ++n) {
      for (size_t k = 0; k < k_count; ++k) {
        const size_t ld = static_cast<size_t>(p.b.ld);
        b[n * k_count + k] = element(p.b, p.b_data, p.b_transposed ? k * ld + n0 + n : (n0 + n) * ld + k);
      }
    }
    for (size_t m0 = 0; m0 < p.m(); m0 += kLanes) {
      const size_t rows = std::min(kLanes, p.m() - m0);
      for (size_t r = 0; r < kLanes; ++r) {
        const size_t ld = static_cast<size_t>(p.a.ld);
        for (size_t k = 0; k < k_count; ++k) {
          a[k][r] = r < rows ? element(p.a, p.a_data, p.a_transposed ? (m0 + r) * ld + k : k * ld + m0 + r) : 0;
        }
      }
      for (size_t n = 0; n < columns; n += kColumns) {
        Lanes sums[kColumns];
        if (p.by_blocks()) {
          multiply_blocks(p, a.data(), b.data() + n * k_count, m0, rows, n0 + n, columns - n, sums);
        } else {
          multiply_tile(a.data(), b.data() + n * k_count, k_count, k_count, sums);
        }
        for (size_t j = 0; j < std::min(kColumns, columns - n); ++j) {
          for (size_t r = 0; r < rows; ++r) {
            float value = sums[j][r];
            if (!p.by_blocks())
              value *= outer_scale(p.a_mode, p.a_scales, m0 + r) * outer_scale(p.b_mode, p.b_scales, n0 + n + j);
            value *= p.alpha;
            if (p.beta != 0) {
              value += p.beta * load(p.c.type, p.c_data, (n0 + n + j) * static_cast<size_t>(p.c.ld) + m0 + r);
            }
            store(p.d.type, p.d_data, (n0 + n + j) * static_cast<size_t>(p.d.ld) + m0 + r, value);
          }
        }
      }
    }
  }
}

template <typename T>
cublasStatus_t destroy(T* object) {
  if (object == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  delete object;
  return CUBLAS_STATUS_SUCCESS;
}

}  // namespace
}  // namespace sextant::simt

using namespace sextant::simt;

const char* cublasLtGetStatusString(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS: return "the operation completed successfully";
    case CUBLAS_STATUS_NOT_INITIALIZED: return "the library was not initialized";
    case CUBLAS_STATUS_ALLOC_FAILED: return "the resource allocation failed";
    case CUBLAS_STATUS_INVALID_VALUE: return "an unsupported value or parameter was passed to the function";
    case CUBLAS_STATUS_ARCH_MISMATCH: return "the function requires a feature absent from the device architecture";
    case CUBLAS_STATUS_MAPPING_ERROR: return "an access to GPU memory space failed";
    case CUBLAS_STATUS_EXECUTION_FAILED: return "the GPU program failed to execute";
    case CUBLAS_STATUS_INTERNAL_ERROR: return "an internal cuBLAS operation failed";
    case CUBLAS_STATUS_NOT_SUPPORTED: return "the functionality requested is not supported";
  }
  return "unknown cuBLAS status";
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  if (handle == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess) return CUBLAS_STATUS_NOT_INITIALIZED;
  *handle = new cublasLtContext;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) { return destroy(handle); }

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* desc, cublasComputeType_t compute, cudaDataType_t scale) {
  *desc = new cublasLtMatmulDescShadow{.compute = compute, .scale = scale};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) { return destroy(desc); }
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, size_t bytes) {
  if (desc == nullptr || value == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  if (attribute == CUBLASLT_MATMUL_DESC_A_SCALE_POINTER || attribute == CUBLASLT_MATMUL_DESC_B_SCALE_POINTER) {
    if (bytes != sizeof(void*)) return CUBLAS_STATUS_INVALID_VALUE;
    std::memcpy(&desc->scales[attribute - CUBLASLT_MATMUL_DESC_A_SCALE_POINTER], value, bytes);
    return CUBLAS_STATUS_SUCCESS;
  }
  if (bytes != sizeof(int32_t)) return CUBLAS_STATUS_INVALID_VALUE;
  if (attribute == CUBLASLT_MATMUL_DESC_A_SCALE_MODE || attribute == CUBLASLT_MATMUL_DESC_B_SCALE_MODE) {
    int32_t& mode = desc->scale_mode[attribute - CUBLASLT_MATMUL_DESC_A_SCALE_MODE];
    std::memcpy(&mode, value, bytes);
    return mode >= 0 && mode <= CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F ? CUBLAS_STATUS_SUCCESS
                                                                            : CUBLAS_STATUS_INVALID_VALUE;
  }
  int32_t operation = 0;
  std::memcpy(&operation, value, sizeof(operation));
  if (operation < CUBLAS_OP_N || operation > CUBLAS_OP_C) return CUBLAS_STATUS_INVALID_VALUE;
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA: desc->transposed[0] = operation; return CUBLAS_STATUS_SUCCESS;
    case CUBLASLT_MATMUL_DESC_TRANSB: desc->transposed[1] = operation; return CUBLAS_STATUS_SUCCESS;
    default: break;
  }
  return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType_t type, uint64_t rows,
                                          uint64_t cols, int64_t ld) {
  *layout = new cublasLtMatrixLayoutShadow{type, rows, cols, ld};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) { return destroy(layout); }

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  *preference = new cublasLtMatmulPreferenceShadow;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) { return destroy(preference); }
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void* value,
                                                    size_t bytes) {
  if (preference == nullptr || value == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  if (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES) {
    if (bytes != sizeof(uint64_t)) return CUBLAS_STATUS_INVALID_VALUE;
    std::memcpy(&preference->max_workspace_bytes, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
  }
  if (bytes != sizeof(uint32_t)) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&preference->min_alignment[attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int requested,
                                              cublasLtMatmulHeuristicResult_t results[], int* returned) {
  if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (desc == nullptr || a == nullptr || b == nullptr || c == nullptr || d == nullptr || preference == nullptr ||
      requested < 1 || results == nullptr || returned == nullptr) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  *returned = 0;
  if (const cublasStatus_t status = check(*desc, *a, *b, *c, *d); status != CUBLAS_STATUS_SUCCESS) return status;
  const uint64_t k = desc->transposed[0] != CUBLAS_OP_N ? a->rows : a->cols;
  size_t workspace = d->rows * d->cols <= 1 << 20 && k >= 256 ? (d->rows * d->cols * 8 + 255) / 256 * 256 : 0;
  if (workspace > preference->max_workspace_bytes) workspace = 0;
  uint64_t alignments = 0;
  for (int i = 0; i < 4; ++i) alignments |= static_cast<uint64_t>(preference->min_alignment[i]) << (16 * i);
  results[0] = {};
  results[0].algo.data[kMagicWord] = kMagic;
  results[0].algo.data[kWorkspaceWord] = workspace;
  results[0].algo.data[kTypesWord] = types_of(*desc, *a, *b, *d);
  results[0].algo.data[kAlignmentWord] = alignments;
  results[0].workspaceSize = workspace;
  results[0].wavesCount = 1;
  *returned = 1;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void* alpha, const void* a,
                              cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
                              const void* beta, const void* c, cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* algo, void* workspace,
                              size_t workspace_bytes, cudaStream_t stream) {
  if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (desc == nullptr || alpha == nullptr || beta == nullptr || a == nullptr || b == nullptr || d == nullptr ||
      a_layout == nullptr || b_layout == nullptr || c_layout == nullptr || d_layout == nullptr || algo == nullptr ||
      algo->data[kMagicWord] != kMagic) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  if (const cublasStatus_t status = check(*desc, *a_layout, *b_layout, *c_layout, *d_layout);
      status != CUBLAS_STATUS_SUCCESS) {
    return status;
  }
  Product product{.a_transposed = desc->transposed[0] != CUBLAS_OP_N,
                  .b_transposed = desc->transposed[1] != CUBLAS_OP_N,
                  .a = *a_layout,
                  .b = *b_layout,
                  .c = *c_layout,
                  .d = *d_layout,
                  .a_data = a,
                  .b_data = b,
                  .c_data = c,
                  .d_data = d,
                  .alpha = *static_cast<const float*>(alpha),
                  .beta = *static_cast<const float*>(beta),
                  .a_mode = desc->scale_mode[0],
                  .b_mode = desc->scale_mode[1],
                  .a_scales = desc->scales[0],
                  .b_scales = desc->scales[1],
                  .workspace = workspace,
                  .workspace_bytes = algo->data[kWorkspaceWord]};
  for (int i = 0; i < 2; ++i) {
    // Vectors and blocks need their scales, those of blocks on 16 bytes.
    const bool is_block = desc->scale_mode[i] >= CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F;
    if ((desc->scale_mode[i] != CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F && desc->scales[i] == nullptr) ||
        reinterpret_cast<uintptr_t>(desc->scales[i]) % (is_block ? 16 : 4) != 0) {
      return CUBLAS_STATUS_INVALID_VALUE;
    }
  }
  if (product.beta != 0 && c == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  if (product.workspace_bytes > workspace_bytes || (product.workspace_bytes > 0 && workspace == nullptr) ||
      reinterpret_cast<uintptr_t>(workspace) % 16 != 0) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  if (algo->data[kTypesWord] != types_of(*desc, *a_layout, *b_layout, *d_layout)) return CUBLAS_STATUS_NOT_SUPPORTED;
  // The pointers keep what the heuristic was promised, and never less than an element (fp8: 16 bytes).
  const void* pointers[4] = {a, b, c == nullptr ? d : c, d};
  const Layout* layouts[4] = {a_layout, b_layout, c_layout, d_layout};
  for (int i = 0; i < 4; ++i) {
    const size_t promised = algo->data[kAlignmentWord] >> (16 * i) & 0xffff;
    const size_t least = is_fp8(a_layout->type) ? 16 : bytes_of(layouts[i]->type);
    if (reinterpret_cast<uintptr_t>(pointers[i]) % std::max(promised, least) != 0) return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  const int error = enqueue_host_work(stream, "cublasLtMatmul", [product] { run(product); });
  return error == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

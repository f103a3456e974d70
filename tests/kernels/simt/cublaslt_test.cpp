// The cuBLASLt shadow: products in every layout against fp64, stream order, workspace, and what the library refuses.
#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "kernels/simt/runtime.h"

namespace sextant::simt {
namespace {

// One product with everything it needs; d = op(a) op(b).
struct Call {
  cudaDataType_t type = CUDA_R_16BF;
  cudaDataType_t out_type = CUDA_R_32F;
  bool ta = true, tb = false;
  uint64_t m = 24, n = 5, k = 40;
  int64_t lda = 40, ldb = 40, ldd = 24;
  uint32_t alignment = 16;
  uint64_t max_workspace = 0;

  cublasLtHandle_t handle = nullptr;
  cublasLtMatmulDesc_t desc = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, d = nullptr;
  cublasLtMatmulPreference_t preference = nullptr;
  cublasLtMatmulHeuristicResult_t found = {};

  cublasStatus_t choose() {
    destroy();
    EXPECT_EQ(cublasLtCreate(&handle), CUBLAS_STATUS_SUCCESS);
    cublasLtMatmulDescCreate(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    const int32_t operations[2] = {ta ? CUBLAS_OP_T : CUBLAS_OP_N, tb ? CUBLAS_OP_T : CUBLAS_OP_N};
    cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_TRANSA, &operations[0], sizeof(int32_t));
    cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_TRANSB, &operations[1], sizeof(int32_t));
    cublasLtMatrixLayoutCreate(&a, type, ta ? k : m, ta ? m : k, lda);
    cublasLtMatrixLayoutCreate(&b, type, tb ? n : k, tb ? k : n, ldb);
    cublasLtMatrixLayoutCreate(&d, out_type, m, n, ldd);
    cublasLtMatmulPreferenceCreate(&preference);
    cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &max_workspace, 8);
    for (const auto which : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                             CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
      cublasLtMatmulPreferenceSetAttribute(preference, which, &alignment, sizeof(alignment));
    }
    int count = 0;
    return cublasLtMatmulAlgoGetHeuristic(handle, desc, a, b, d, d, preference, 1, &found, &count);
  }
  cublasStatus_t multiply(const void* a_data, const void* b_data, void* d_data, void* workspace, size_t workspace_bytes,
                          cudaStream_t stream) const {
    const float one = 1, zero = 0;
    return cublasLtMatmul(handle, desc, &one, a_data, a, b_data, b, &zero, d_data, d, d_data, d, &found.algo, workspace,
                          workspace_bytes, stream);
  }
  void destroy() {
    if (handle == nullptr) return;
    cublasLtMatmulPreferenceDestroy(preference);
    cublasLtMatrixLayoutDestroy(a);
    cublasLtMatrixLayoutDestroy(b);
    cublasLtMatrixLayoutDestroy(d);
    cublasLtMatmulDescDestroy(desc);
    cublasLtDestroy(handle);
    handle = nullptr;
  }
  ~Call() { destroy(); }
};

// Device memory of 16-bit numbers; +8 elements, so that tests can shift a pointer.
struct Array {
  void* data = nullptr;
  std::vector<uint16_t> host;
  explicit Array(std::vector<uint16_t> values) : host(std::move(values)) {
    EXPECT_EQ(cudaMalloc(&data, host.size() * 2), cudaSuccess);
    EXPECT_EQ(cudaMemcpy(data, host.data(), host.size() * 2, cudaMemcpyHostToDevice), cudaSuccess);
  }
  ~Array() { cudaFree(data); }
  double at(size_t i) const { return __bfloat162float({host[i]}); }
};
std::vector<uint16_t> random_bf16(size_t count, std::mt19937_64& random) {
  std::vector<uint16_t> out(count);
  for (uint16_t& x : out) x = __float2bfloat16(std::normal_distribution<float>()(random)).bits;
  return out;
}

// Products of e4m3 on a machine of this compute capability with these scale modes.
cublasStatus_t choose_f8(const DeviceProfile& profile, int32_t a_mode, int32_t b_mode, uint64_t m, uint64_t n,
                         bool with_pointers = true, const char* scales = reinterpret_cast<const char*>(4096)) {
  Machine machine;
  machine.profile = profile;
  set_machine(machine);
  cublasLtHandle_t handle = nullptr;
  cublasLtMatmulDesc_t desc = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, d = nullptr;
  cublasLtMatmulPreference_t preference = nullptr;
  cublasLtCreate(&handle);
  cublasLtMatmulDescCreate(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F);
  const int32_t transposed = CUBLAS_OP_T;
  cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, 4);
  cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, &a_mode, 4);
  cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, &b_mode, 4);
  if (with_pointers) {
    cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &scales, 8);
    cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &scales, 8);
  }
  cublasLtMatrixLayoutCreate(&a, CUDA_R_8F_E4M3, 64, m, 64);
  cublasLtMatrixLayoutCreate(&b, CUDA_R_8F_E4M3, 64, n, 64);
  cublasLtMatrixLayoutCreate(&d, CUDA_R_16BF, m, n, static_cast<int64_t>(m));
  cublasLtMatmulPreferenceCreate(&preference);
  cublasLtMatmulHeuristicResult_t found = {};
  int count = 0;
  cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(handle, desc, a, b, d, d, preference, 1, &found, &count);
  if (status == CUBLAS_STATUS_SUCCESS) {
    const float one = 1, zero = 0;
    void* memory = nullptr;
    cudaMalloc(&memory, 1 << 16);
    status = cublasLtMatmul(handle, desc, &one, memory, a, memory, b, &zero, memory, d, memory, d, &found.algo, nullptr,
                            0, nullptr);
  }
  cublasLtMatmulPreferenceDestroy(preference);
  cublasLtMatrixLayoutDestroy(a);
  cublasLtMatrixLayoutDestroy(b);
  cublasLtMatrixLayoutDestroy(d);
  cublasLtMatmulDescDestroy(desc);
  cublasLtDestroy(handle);
  set_machine(machine_from_environment());
  return status;
}

TEST(CublasLt, ScalesAreTakenWhereTheLibraryTakesThem) {
  constexpr auto kScalar = CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F, kOuter = CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F,
                 kVec = CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F, kBlock = CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F;
  constexpr auto kOk = CUBLAS_STATUS_SUCCESS, kNo = CUBLAS_STATUS_NOT_SUPPORTED, kBad = CUBLAS_STATUS_INVALID_VALUE;
  EXPECT_EQ(choose_f8(profile_sm_80(), kScalar, kScalar, 32, 8), kNo);
  EXPECT_EQ(choose_f8(profile_sm_89(), kScalar, kScalar, 32, 7), kOk);
  EXPECT_EQ(choose_f8(profile_sm_89(), kScalar, kScalar, 32, 7, false), kOk);
  EXPECT_EQ(choose_f8(profile_sm_89(), kOuter, kOuter, 32, 8), kNo);
  EXPECT_EQ(choose_f8(profile_sm_89(), kBlock, kVec, 32, 8), kNo);
  EXPECT_EQ(choose_f8(profile_sm_90(), kOuter, kOuter, 32, 7), kOk);
  EXPECT_EQ(choose_f8(profile_sm_90(), kOuter, kScalar, 32, 8), kNo);
  EXPECT_EQ(choose_f8(profile_sm_90(), kOuter, kOuter, 32, 8, false), kBad);
  EXPECT_EQ(choose_f8(profile_sm_90(), kBlock, kVec, 32, 8), kOk);
  EXPECT_EQ(choose_f8(profile_sm_90(), kVec, kVec, 32, 8), kOk);
  EXPECT_EQ(choose_f8(profile_sm_90(), kBlock, kBlock, 32, 8), kNo);
  EXPECT_EQ(choose_f8(profile_sm_90(), kBlock, kVec, 32, 7), kNo) << "tokens in fours";
  EXPECT_EQ(choose_f8(profile_sm_90(), kBlock, kVec, 32, 8, true, reinterpret_cast<const char*>(4104)), kBad);
  EXPECT_EQ(choose_f8(profile_sm_90(), kScalar, kScalar, 24, 8), kNo) << "rows of 16 bytes";
}

TEST(CublasLt, MultipliesInEveryLayout) {
  std::mt19937_64 random(7);
  for (const bool ta : {false, true}) {
    for (const bool tb : {false, true}) {
      for (const uint64_t n : {1, 5, 67}) {
        Call call{.ta = ta, .tb = tb, .m = 21, .n = n, .k = 50, .lda = 53, .ldb = 71, .ldd = 23};
        ASSERT_EQ(call.choose(), CUBLAS_STATUS_SUCCESS);
        const Array a(random_bf16(53 * 53, random)), b(random_bf16(71 * 71, random));
        void* d = nullptr;
        cudaMalloc(&d, 23 * n * 4);
        ASSERT_EQ(call.multiply(a.data, b.data, d, nullptr, 0, nullptr), CUBLAS_STATUS_SUCCESS);
        std::vector<float> out(23 * n);
        ASSERT_EQ(cudaMemcpy(out.data(), d, out.size() * 4, cudaMemcpyDeviceToHost), cudaSuccess);
        cudaFree(d);
        for (uint64_t j = 0; j < n; ++j) {
          for (uint64_t i = 0; i < 23; ++i) {
            if (i >= 21) {
              ASSERT_TRUE(std::isnan(out[j * 23 + i])) << "wrote between columns";
              continue;
            }
            double want = 0, magnitude = 0;
            for (uint64_t k = 0; k < 50; ++k) {
              const double product = a.at(ta ? i * 53 + k : k * 53 + i) * b.at(tb ? k * 71 + j : j * 71 + k);
              want += product;
              magnitude += std::fabs(product);
            }
            ASSERT_NEAR(out[j * 23 + i], want, 50 * 0x1p-24 * magnitude) << ta << tb << " " << i << " " << j;
          }
        }
      }
    }
  }
}

TEST(CublasLt, RunsInStreamOrderAndMayBeCaptured) {
  std::mt19937_64 random(8);
  Call call;
  ASSERT_EQ(call.choose(), CUBLAS_STATUS_SUCCESS);
  const Array a(random_bf16(40 * 24, random)), b(random_bf16(40 * 5, random));
  void* d = nullptr;
  cudaMalloc(&d, 24 * 5 * 4);
  cudaStream_t stream = nullptr;
  ASSERT_EQ(cudaStreamCreate(&stream), cudaSuccess);
  // Zeros before it in the stream are what it multiplies.
  ASSERT_EQ(cudaMemsetAsync(b.data, 0, 40 * 5 * 2, stream), cudaSuccess);
  ASSERT_EQ(call.multiply(a.data, b.data, d, nullptr, 0, stream), CUBLAS_STATUS_SUCCESS);
  std::vector<float> out(24 * 5);
  ASSERT_EQ(cudaMemcpyAsync(out.data(), d, out.size() * 4, cudaMemcpyDeviceToHost, stream), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  for (const float x : out) ASSERT_EQ(x, 0);

  cudaGraph_t graph = nullptr;
  cudaGraphExec_t replay = nullptr;
  ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  ASSERT_EQ(call.multiply(a.data, b.data, d, nullptr, 0, stream), CUBLAS_STATUS_SUCCESS);
  ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
  ASSERT_EQ(cudaGraphInstantiate(&replay, graph, 0), cudaSuccess);
  ASSERT_EQ(cudaMemcpy(b.data, b.host.data(), b.host.size() * 2, cudaMemcpyHostToDevice), cudaSuccess);
  ASSERT_EQ(cudaGraphLaunch(replay, stream), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  ASSERT_EQ(cudaMemcpy(out.data(), d, out.size() * 4, cudaMemcpyDeviceToHost), cudaSuccess);
  EXPECT_NE(out[0], 0);
  cudaGraphExecDestroy(replay);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
  cudaFree(d);
}

TEST(CublasLt, WorkspaceIsAskedForWithinTheLimitAndOverwritten) {
  Call call{.m = 16, .n = 4, .k = 512, .lda = 512, .ldb = 512, .ldd = 16};
  ASSERT_EQ(call.choose(), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(call.found.workspaceSize, 0u);
  call.max_workspace = 1 << 20;
  ASSERT_EQ(call.choose(), CUBLAS_STATUS_SUCCESS);
  ASSERT_GT(call.found.workspaceSize, 0u);
  std::mt19937_64 random(9);
  const Array a(random_bf16(512 * 16, random)), b(random_bf16(512 * 4, random));
  const Array workspace(std::vector<uint16_t>(call.found.workspaceSize / 2 + 1, 0));
  void* d = nullptr;
  cudaMalloc(&d, 16 * 4 * 4);
  EXPECT_EQ(call.multiply(a.data, b.data, d, workspace.data, call.found.workspaceSize - 1, nullptr),
            CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(call.multiply(a.data, b.data, d, nullptr, 1 << 20, nullptr), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(call.multiply(a.data, b.data, d, workspace.data, call.found.workspaceSize, nullptr), CUBLAS_STATUS_SUCCESS);
  std::vector<uint16_t> left(workspace.host.size());
  ASSERT_EQ(cudaMemcpy(left.data(), workspace.data, left.size() * 2, cudaMemcpyDeviceToHost), cudaSuccess);
  EXPECT_EQ(left[0], 0xffff);
  EXPECT_EQ(left[left.size() - 2], 0xffff);
  EXPECT_EQ(left.back(), 0);
  cudaFree(d);
}

TEST(CublasLt, RefusesWhatTheLibraryRefuses) {
  Call call;
  call.lda = 39;
  EXPECT_EQ(call.choose(), CUBLAS_STATUS_INVALID_VALUE) << "a leading dimension below the rows";
  call.lda = 40;
  call.out_type = CUDA_R_16F;
  EXPECT_EQ(call.choose(), CUBLAS_STATUS_NOT_SUPPORTED) << "bf16 to fp16";
  call.out_type = CUDA_R_32F;

  std::mt19937_64 random(10);
  const Array a(random_bf16(40 * 24 + 8, random)), b(random_bf16(40 * 5, random));
  void* d = nullptr;
  cudaMalloc(&d, 24 * 5 * 4);
  ASSERT_EQ(call.choose(), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(call.multiply(static_cast<uint16_t*>(a.data) + 1, b.data, d, nullptr, 0, nullptr),
            CUBLAS_STATUS_NOT_SUPPORTED)
      << "less alignment than promised";
  call.alignment = 2;
  ASSERT_EQ(call.choose(), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(call.multiply(static_cast<uint16_t*>(a.data) + 1, b.data, d, nullptr, 0, nullptr), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);

  Call other{.out_type = CUDA_R_16BF};
  ASSERT_EQ(other.choose(), CUBLAS_STATUS_SUCCESS);
  other.found = call.found;
  EXPECT_EQ(other.multiply(a.data, b.data, d, nullptr, 0, nullptr), CUBLAS_STATUS_NOT_SUPPORTED)
      << "an algorithm chosen for other types";
  cudaFree(d);
}

TEST(CublasLt, Fp8NeedsHopperTnAndSixteens) {
  Machine machine;
  machine.profile = profile_sm_80();
  set_machine(machine);
  Call call{.type = CUDA_R_8F_E4M3, .out_type = CUDA_R_16BF, .m = 32, .n = 3, .k = 48, .lda = 48, .ldb = 48, .ldd = 32};
  EXPECT_EQ(call.choose(), CUBLAS_STATUS_NOT_SUPPORTED) << "compute capability 8.0";
  machine.profile = profile_sm_90();
  set_machine(machine);
  EXPECT_EQ(call.choose(), CUBLAS_STATUS_SUCCESS);
  // 1.5, -2 and the least subnormal 2^-9, in a product of 48 columns.
  std::vector<uint8_t> a(48 * 32, 0x3C), b(48 * 3, 0xC0);
  a[0] = 0x01;
  void *on_device[2] = {}, *d = nullptr;
  cudaMalloc(&on_device[0], a.size());
  cudaMalloc(&on_device[1], b.size());
  cudaMalloc(&d, 32 * 3 * 2);
  cudaMemcpy(on_device[0], a.data(), a.size(), cudaMemcpyHostToDevice);
  cudaMemcpy(on_device[1], b.data(), b.size(), cudaMemcpyHostToDevice);
  ASSERT_EQ(call.multiply(on_device[0], on_device[1], d, nullptr, 0, nullptr), CUBLAS_STATUS_SUCCESS);
  std::vector<uint16_t> out(32 * 3);
  ASSERT_EQ(cudaMemcpy(out.data(), d, out.size() * 2, cudaMemcpyDeviceToHost), cudaSuccess);
  EXPECT_EQ(out[0], __float2bfloat16(-2 * (47 * 1.5f + 0x1p-9f)).bits);
  EXPECT_EQ(out[1], __float2bfloat16(-2 * 48 * 1.5f).bits);
  call.ta = false;
  call.lda = 32;
  EXPECT_EQ(call.choose(), CUBLAS_STATUS_NOT_SUPPORTED) << "not TN";
  call.ta = true;
  call.k = call.lda = call.ldb = 40;
  EXPECT_EQ(call.choose(), CUBLAS_STATUS_NOT_SUPPORTED) << "K is not a multiple of 16";
  set_machine(machine_from_environment());
}

}  // namespace
}  // namespace sextant::simt

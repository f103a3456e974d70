// What libxsmm's matrix product reaches on one thread, for the shapes that kernels/README.md compares. Not part of the build:
//   apt-get install libxsmm-dev
//   g++ -std=c++20 -O2 bench/peers/libxsmm_matmul.cpp -lxsmm -lxsmmnoblas -ldl -lpthread -o /tmp/libxsmm_matmul && /tmp/libxsmm_matmul
// K = 576 is a whole row of SmolLM2-135M; K = 32 is one block, the longest run over which our recipe may sum integers. Weights stand in
// blocks of 64 outputs, packed as libxsmm asks for 8 and 16 bits (the product's speed does not depend on their values).
#include <libxsmm.h>

#include <cstdint>
#include <cstdio>
#include <ctime>
#include <vector>

namespace {

constexpr libxsmm_blasint kOutputs = 1536, kBlock = 64;

double cpu_seconds() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

// kernel: column-major C [64, tokens] = A [64, k] B [k, tokens], C's columns kOutputs apart: rows of activations are B's columns.
template <typename Kernel, typename Weight, typename Input, typename Output>
void measure(const char* name, Kernel kernel, libxsmm_blasint tokens, libxsmm_blasint k, Weight, Input, Output) {
  if (kernel == nullptr) {
    std::printf("%-5s T %3d K %3d N %d: no kernel for this CPU\n", name, tokens, k, kOutputs);
    return;
  }
  std::vector<Weight> weights(static_cast<size_t>(kOutputs) * static_cast<size_t>(k));
  std::vector<Input> x(static_cast<size_t>(tokens) * static_cast<size_t>(k));
  std::vector<Output> y(static_cast<size_t>(tokens) * kOutputs);
  double best = 1e9;
  for (int round = 0; round < 60; ++round) {
    const double begin = cpu_seconds();
    for (int i = 0; i < 10; ++i) {
      for (libxsmm_blasint n = 0; n < kOutputs; n += kBlock) kernel(weights.data() + n * k, x.data(), y.data() + n);
    }
    const double seconds = (cpu_seconds() - begin) / 10;
    best = seconds < best ? seconds : best;
  }
  std::printf("%-5s T %3d K %3d N %d: %8.1f us, %6.1f G multiplications/s\n", name, tokens, k, kOutputs, best * 1e6,
              static_cast<double>(tokens) * k * kOutputs / best * 1e-9);
}

}  // namespace

int main() {
  libxsmm_init();
  std::printf("libxsmm %s, kernels for %s\n", LIBXSMM_VERSION, libxsmm_get_target_arch());
  const libxsmm_blasint ldc = kOutputs;
  const float one = 1, zero = 0;
  const int int_one = 1, int_zero = 0, packed = LIBXSMM_GEMM_FLAG_VNNI_A, plain = 0;
  for (const libxsmm_blasint tokens : {1, 8, 192}) {
    for (const libxsmm_blasint k : {576, 32}) {
      measure("int8",
              libxsmm_usbimmdispatch(kBlock, tokens, k, &kBlock, &k, &ldc, &int_one, &int_zero, &packed, nullptr),
              tokens, k, uint8_t{}, char{}, int{});
      measure("bf16", libxsmm_bsmmdispatch(kBlock, tokens, k, &kBlock, &k, &ldc, &one, &zero, &packed, nullptr), tokens,
              k, libxsmm_bfloat16{}, libxsmm_bfloat16{}, float{});
      measure("fp32", libxsmm_smmdispatch(kBlock, tokens, k, &kBlock, &k, &ldc, &one, &zero, &plain, nullptr), tokens,
              k, float{}, float{}, float{});
    }
  }
  libxsmm_finalize();
  return 0;
}

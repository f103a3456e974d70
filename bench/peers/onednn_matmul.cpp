// What oneDNN's matrix product reaches on one thread, for the shapes that kernels/README.md compares. Not part of the build:
//   apt-get install libdnnl-dev
//   g++ -std=c++20 -O2 bench/peers/onednn_matmul.cpp -ldnnl -o /tmp/onednn_matmul && OMP_NUM_THREADS=1 /tmp/onednn_matmul
// K = 576 is a whole row of SmolLM2-135M; K = 32 is one block, the longest run over which our recipe may sum integers.
#include <ctime>

#include <cstdio>
#include <dnnl.hpp>

namespace {

double cpu_seconds() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

void measure(const char* name, dnnl::memory::data_type in, dnnl::memory::data_type out, int64_t m, int64_t k) {
  using Tag = dnnl::memory::format_tag;
  constexpr int64_t kColumns = 1536;
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  const dnnl::memory::desc a({m, k}, in, Tag::ab), b({k, kColumns}, in, Tag::any), c({m, kColumns}, out, Tag::ab);
  const dnnl::matmul::primitive_desc primitive(dnnl::matmul::desc(a, b, c), engine);
  const dnnl::matmul matmul(primitive);
  dnnl::memory x(a, engine), w(primitive.weights_desc(), engine), y(c, engine);
  double best = 1e9;
  for (int round = 0; round < 60; ++round) {
    const double begin = cpu_seconds();
    for (int i = 0; i < 10; ++i) {
      matmul.execute(stream, {{DNNL_ARG_SRC, x}, {DNNL_ARG_WEIGHTS, w}, {DNNL_ARG_DST, y}});
      stream.wait();
    }
    const double seconds = (cpu_seconds() - begin) / 10;
    best = seconds < best ? seconds : best;
  }
  std::printf("%-5s T %3lld K %3lld N %lld: %8.1f us, %6.1f G multiplications/s (%s)\n", name,
              static_cast<long long>(m), static_cast<long long>(k), static_cast<long long>(kColumns), best * 1e6,
              static_cast<double>(m * k * kColumns) / best * 1e-9, primitive.impl_info_str());
}

}  // namespace

int main() {
  using Type = dnnl::memory::data_type;
  for (const int64_t m : {1, 8, 192}) {
    for (const int64_t k : {576, 32}) {
      measure("int8", Type::s8, Type::s32, m, k);
      measure("bf16", Type::bf16, Type::f32, m, k);
      measure("fp32", Type::f32, Type::f32, m, k);
    }
  }
  return 0;
}

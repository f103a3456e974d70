#include "bench/gpu/kernel_cases.h"

#include <set>

namespace sextant::bench {

ModelShape llama_8b_shape() {
  return {.name = "Llama-3.1-8B",
          .hidden = 4096,
          .num_heads = 32,
          .num_kv_heads = 8,
          .head_dim = 128,
          .intermediate = 14336,
          .vocab = 128256,
          .decode_batch = 128,
          .decode_context = 1024,
          .long_context = 8192,
          .prefill_tokens = 8192};
}

ModelShape tiny_shape() {
  return {.name = "tiny",
          .hidden = 64,
          .num_heads = 4,
          .num_kv_heads = 2,
          .head_dim = 16,
          .intermediate = 96,
          .vocab = 1000,
          .decode_batch = 2,
          .decode_context = 32,
          .long_context = 128,
          .prefill_tokens = 32};
}

std::vector<KernelCase> kernel_cases(const ModelShape& shape) {
  std::vector<KernelCase> cases;
  append_matrix_cases(shape, cases);
  append_attention_cases(shape, cases);
  append_row_cases(shape, cases);
  append_token_cases(shape, cases);
  // A name is a launch: where a small shape's own launch is also an instance that is listed for its own sake, the first stands.
  std::set<std::string> names;
  std::erase_if(cases, [&](const KernelCase& each) { return !names.insert(each.name()).second; });
  return cases;
}

}  // namespace sextant::bench

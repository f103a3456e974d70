// Operations on rows: norms, the gate, sums, gathers, block copies. All bound by memory, or at few rows by their launch.
#include "bench/gpu/kernel_cases.h"
#include "kernels/cuda/activation.h"
#include "kernels/cuda/block_copy.h"
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/gather.h"
#include "kernels/cuda/norm.h"
#include "kernels/cuda/reduce_norm.h"

namespace sextant::bench {
namespace {

using namespace kernels::cuda;

constexpr ElementType kAllTypes[] = {ElementType::kBFloat16, ElementType::kFloat16, ElementType::kFloat32};

struct Rows {
  int32_t rows;
  int32_t cols;
  ElementType type;

  double elements() const { return 1.0 * rows * cols; }
  int64_t bytes() const { return int64_t{rows} * cols * type_bytes(type); }
  std::string name() const {
    return type_name(type) + " rows=" + std::to_string(rows) + " cols=" + std::to_string(cols);
  }
};

// The operands that an op has, filled in and of r's size: each field by its name, which has one meaning in all these launchers.
template <typename Args>
Args row_args(CaseMemory& memory, const Rows& r) {
  Args args = {};
  args.rows = r.rows;
  args.cols = r.cols;
  args.type = r.type;
  if constexpr (requires { args.residual; }) {
    args.residual = static_cast<float*>(memory.allocate(int64_t{r.rows} * r.cols * 4, Content::kFloat32));
    args.residual_stride = r.cols;
  }
  if constexpr (requires { args.x; }) {
    args.x = memory.allocate(r.bytes(), content_of(r.type));
    args.x_stride = r.cols;
  }
  if constexpr (requires { args.row_indices; }) {
    std::vector<int32_t> backwards;
    for (int32_t i = 0; i < r.rows; ++i) backwards.push_back(r.rows - 1 - i);
    args.row_indices = memory.upload(backwards);
  }
  if constexpr (requires { args.weight; }) {
    args.weight = static_cast<float*>(memory.allocate(int64_t{r.cols} * 4, Content::kFloat32));
    args.eps = 1e-5f;
  }
  if constexpr (requires { args.out; }) {
    args.out = memory.allocate(r.bytes(), Content::kZeros);
    args.out_stride = r.cols;
  }
  return args;
}

KernelCase add_norm_case(const Rows& r, bool is_measured) {
  return {.op = "add_rms_norm",
          .shape = r.name(),
          .bytes = r.elements() * (8 + 2 * static_cast<double>(type_bytes(r.type))) + 4.0 * r.cols,
          .flops = r.elements() * 5,
          .is_measured = is_measured,
          .prepare = [=](CaseMemory& memory) -> Launch {
            auto args = row_args<AddRmsNormArgs>(memory, r);
            return [=](Stream stream) { return add_rms_norm(args, stream); };
          }};
}

// The end of a decode step's all-reduce: parts of four ranks.
KernelCase reduce_norm_case(const Rows& r, bool is_measured) {
  constexpr int32_t kParts = 4;
  return {.op = "reduce_add_rms_norm",
          .shape = r.name() + " parts=" + std::to_string(kParts),
          .bytes = r.elements() * (8 + (kParts + 1) * static_cast<double>(type_bytes(r.type))) + 4.0 * r.cols,
          .flops = r.elements() * (4 + kParts),
          .is_measured = is_measured,
          .prepare = [=](CaseMemory& memory) -> Launch {
            auto args = row_args<ReduceAddRmsNormArgs>(memory, r);
            const void* parts = memory.allocate(kParts * r.bytes(), content_of(r.type));
            for (int32_t i = 0; i < kParts; ++i) args.parts[i] = static_cast<const char*>(parts) + i * r.bytes();
            args.num_parts = kParts;
            args.part_stride = r.cols;
            return [=](Stream stream) { return reduce_add_rms_norm(args, stream); };
          }};
}

KernelCase norm_rows_case(const Rows& r, bool is_measured) {
  return {.op = "rms_norm_rows",
          .shape = r.name(),
          .bytes = r.elements() * (4 + 2 * static_cast<double>(type_bytes(r.type))) + 4.0 * (r.cols + r.rows),
          .flops = r.elements() * 5,
          .is_measured = is_measured,
          .prepare = [=](CaseMemory& memory) -> Launch {
            auto args = row_args<RmsNormRowsArgs>(memory, r);
            return [=](Stream stream) { return rms_norm_rows(args, stream); };
          }};
}

KernelCase heads_case(const Rows& r, int32_t head_dim, bool is_measured) {
  return {.op = "rms_norm_heads",
          .shape = r.name() + ", heads of " + std::to_string(head_dim),
          .bytes = r.elements() * 2 * static_cast<double>(type_bytes(r.type)) + 4.0 * head_dim,
          .flops = r.elements() * 4,
          .is_measured = is_measured,
          .prepare = [=](CaseMemory& memory) -> Launch {
            RmsNormHeadsArgs args = {};
            args.x = memory.allocate(r.bytes(), content_of(r.type));
            args.x_stride = r.cols;
            args.weight = static_cast<float*>(memory.allocate(int64_t{head_dim} * 4, Content::kFloat32));
            args.eps = 1e-5f;
            args.rows = r.rows;
            args.num_heads = r.cols / head_dim;
            args.head_dim = head_dim;
            args.type = r.type;
            return [=](Stream stream) { return rms_norm_heads(args, stream); };
          }};
}

KernelCase activation_case(const Rows& r, Activation activation, bool is_measured) {
  const char* names[] = {"silu", "gelu_tanh", "gelu_erf"};
  return {.op = "activation_mul",
          .shape = std::string(names[static_cast<int>(activation)]) + " " + r.name(),
          .bytes = r.elements() * 3 * static_cast<double>(type_bytes(r.type)),
          .flops = r.elements() * 20,
          .is_measured = is_measured,
          .prepare = [=](CaseMemory& memory) -> Launch {
            auto args = row_args<ActivationMulArgs>(memory, r);
            args.gate_up = memory.allocate(2 * r.bytes(), content_of(r.type));
            args.gate_up_stride = int64_t{2} * r.cols;
            args.activation = activation;
            return [=](Stream stream) { return activation_mul(args, stream); };
          }};
}

KernelCase add_case(const Rows& r, bool is_measured) {
  return {.op = "add",
          .shape = r.name(),
          .bytes = r.elements() * (8 + static_cast<double>(type_bytes(r.type))),
          .flops = r.elements(),
          .is_measured = is_measured,
          .prepare = [=](CaseMemory& memory) -> Launch {
            auto args = row_args<AddArgs>(memory, r);
            return [=](Stream stream) { return add(args, stream); };
          }};
}

KernelCase bias_case(const Rows& r, bool is_measured) {
  return {.op = "add_bias",
          .shape = r.name(),
          .bytes = r.elements() * 2 * static_cast<double>(type_bytes(r.type)) + 4.0 * r.cols,
          .flops = r.elements(),
          .is_measured = is_measured,
          .prepare = [=](CaseMemory& memory) -> Launch {
            auto args = row_args<AddBiasArgs>(memory, r);
            args.bias = static_cast<float*>(memory.allocate(int64_t{r.cols} * 4, Content::kFloat32));
            return [=](Stream stream) { return add_bias(args, stream); };
          }};
}

KernelCase round_case(const Rows& r, bool is_measured) {
  return {.op = "round",
          .shape = r.name(),
          .bytes = r.elements() * (4 + static_cast<double>(type_bytes(r.type))),
          .flops = 0,
          .is_measured = is_measured,
          .prepare = [=](CaseMemory& memory) -> Launch {
            auto args = row_args<RoundArgs>(memory, r);
            return [=](Stream stream) { return round(args, stream); };
          }};
}

KernelCase softcap_case(int32_t rows, int32_t cols, bool is_measured) {
  const Rows r = {rows, cols, ElementType::kFloat32};
  return {.op = "softcap",
          .shape = r.name(),
          .bytes = r.elements() * 8,
          .flops = r.elements() * 20,
          .is_measured = is_measured,
          .prepare = [=](CaseMemory& memory) -> Launch {
            SoftcapArgs args = {};
            args.logits = static_cast<float*>(memory.allocate(r.bytes(), Content::kFloat32));
            args.stride = cols;
            args.rows = rows;
            args.cols = cols;
            args.cap = 30;
            return [=](Stream stream) { return softcap(args, stream); };
          }};
}

KernelCase gather_case(const Rows& r, bool is_measured) {
  return {.op = "gather_rows",
          .shape = r.name(),
          .bytes = 2.0 * static_cast<double>(r.bytes()) + 4.0 * r.rows,
          .flops = 0,
          .is_measured = is_measured,
          .prepare = [=](CaseMemory& memory) -> Launch {
            auto args = row_args<GatherRowsArgs>(memory, r);
            return [=](Stream stream) { return gather_rows(args, stream); };
          }};
}

KernelCase block_copy_case(int32_t arrays, int64_t block_bytes, int32_t pairs) {
  return {.op = "block_copy",
          .shape = "arrays=" + std::to_string(arrays) + " block_bytes=" + std::to_string(block_bytes) +
                   " pairs=" + std::to_string(pairs),
          .bytes = 2.0 * static_cast<double>(block_bytes) * arrays * pairs,
          .flops = 0,
          .is_measured = true,
          .prepare = [=](CaseMemory& memory) -> Launch {
            std::vector<void*> bases;
            for (int32_t a = 0; a < arrays; ++a) {
              bases.push_back(memory.allocate(2 * pairs * block_bytes, Content::kBFloat16));
            }
            std::vector<int32_t> from_and_to;
            for (int32_t p = 0; p < pairs; ++p) {
              from_and_to.push_back(p);
              from_and_to.push_back(2 * pairs - 1 - p);
            }
            BlockCopyArgs args = {};
            args.arrays = memory.upload(bases);
            args.num_arrays = arrays;
            args.block_bytes = block_bytes;
            args.pairs = memory.upload(from_and_to);
            args.num_pairs = pairs;
            return [=](Stream stream) { return block_copy(args, stream); };
          }};
}

}  // namespace

void append_row_cases(const ModelShape& shape, std::vector<KernelCase>& cases) {
  constexpr ElementType kBf16 = ElementType::kBFloat16;
  for (const int32_t rows : {1, shape.decode_batch, shape.prefill_tokens}) {
    cases.push_back(add_norm_case({rows, shape.hidden, kBf16}, true));
    cases.push_back(reduce_norm_case({rows, shape.hidden, kBf16}, true));
    cases.push_back(activation_case({rows, shape.intermediate, kBf16}, Activation::kSilu, true));
  }
  cases.push_back(norm_rows_case({shape.decode_batch, shape.hidden, kBf16}, true));
  cases.push_back(add_case({shape.decode_batch, shape.hidden, kBf16}, true));
  cases.push_back(bias_case({shape.decode_batch, shape.hidden, kBf16}, true));
  cases.push_back(round_case({shape.decode_batch, shape.hidden, kBf16}, true));
  cases.push_back(softcap_case(shape.decode_batch, shape.vocab, true));
  cases.push_back(heads_case({shape.decode_batch, shape.hidden, kBf16}, shape.hidden % 128 == 0 ? 128 : 64, true));
  cases.push_back(gather_case({shape.decode_batch, shape.hidden, kBf16}, true));
  const int64_t block_bytes = int64_t{16} * shape.num_kv_heads * shape.head_dim * 2;
  cases.push_back(block_copy_case(64, block_bytes, 16));

  // Every other instance: types, kinds, and 9 columns, which no 128-bit access divides.
  for (const ElementType type : kAllTypes) {
    cases.push_back(norm_rows_case({2, 64, type}, false));
    if (type != kBf16) cases.push_back(add_norm_case({2, 64, type}, false));
    if (type != kBf16) cases.push_back(heads_case({2, 192, type}, 64, false));
    if (type != kBf16) cases.push_back(reduce_norm_case({2, 64, type}, false));
    for (const int32_t cols : {9, 64}) {
      for (const Activation kind : {Activation::kSilu, Activation::kGeluTanh, Activation::kGeluErf}) {
        cases.push_back(activation_case({2, cols, type}, kind, false));
      }
      cases.push_back(add_case({2, cols, type}, false));
      cases.push_back(bias_case({2, cols, type}, false));
      cases.push_back(round_case({2, cols, type}, false));
      cases.push_back(gather_case({2, cols, type}, false));
    }
  }
  cases.push_back(softcap_case(2, 9, false));
}

}  // namespace sextant::bench

// gemv, gemm_weight_only and embed: one token times the matrices of a layer, and blocks of quantised weights times more.
#include "bench/gpu/kernel_cases.h"
#include "kernels/cuda/embed.h"
#include "kernels/cuda/gemm_weight_only.h"
#include "kernels/cuda/gemv.h"
#include "kernels/cuda/quantize_f8.h"

namespace sextant::bench {
namespace {

using namespace kernels::cuda;

struct Matrix {
  std::string name;
  int64_t rows;
  int64_t cols;
};

std::string format_name(WeightFormat format) {
  switch (format) {
    case WeightFormat::kBFloat16: return "bf16";
    case WeightFormat::kFloat16: return "fp16";
    case WeightFormat::kQ8_0: return "q8_0";
    case WeightFormat::kQ4_0: return "q4_0";
    case WeightFormat::kQ4_1: return "q4_1";
    case WeightFormat::kF8Tiles: return "f8_tiles";
    case WeightFormat::kF8Rows: return "f8_rows";
    case WeightFormat::kF8Blocks: return "f8_blocks";
  }
  return "unknown";
}

double matrix_bytes(WeightFormat format, const Matrix& m) {
  return static_cast<double>(weight_bytes(format, m.rows, m.cols) + scale_bytes(format, m.rows, m.cols));
}

// A product of `tokens` rows of activations of `type` with a matrix.
struct ProductShape {
  WeightFormat format;
  Matrix matrix;
  int32_t tokens;
  ElementType type = ElementType::kBFloat16;

  std::string name() const {
    const bool says_type = type == ElementType::kFloat16 && !is_plain(format);
    return format_name(format) + (says_type ? " x fp16 " : " ") + matrix.name + " N=" + std::to_string(matrix.rows) +
           " K=" + std::to_string(matrix.cols) + " T=" + std::to_string(tokens);
  }
  double bytes() const {
    return matrix_bytes(format, matrix) + 2.0 * tokens * static_cast<double>(matrix.rows + matrix.cols);
  }
  double flops() const { return 2.0 * tokens * static_cast<double>(matrix.rows * matrix.cols); }
};

void* scales_of(CaseMemory& memory, WeightFormat format, const Matrix& m) {
  const int64_t bytes = scale_bytes(format, m.rows, m.cols);
  return bytes > 0 ? memory.allocate(bytes, Content::kBFloat16) : nullptr;
}

// Both launchers' arguments have these fields, so that one function fills them in.
template <typename Args>
Args product_args(CaseMemory& memory, const ProductShape& p) {
  Args args = {};
  args.format = p.format;
  args.rows = p.matrix.rows;
  args.cols = p.matrix.cols;
  args.scales = scales_of(memory, p.format, p.matrix);
  args.x = memory.allocate(p.tokens * p.matrix.cols * 2, Content::kBFloat16);
  args.x_stride = p.matrix.cols;
  args.x_type = p.type;
  args.num_tokens = p.tokens;
  args.out = memory.allocate(p.tokens * p.matrix.rows * 2, Content::kZeros);
  args.out_stride = p.matrix.rows;
  args.out_type = p.type;
  return args;
}

KernelCase gemv_case(const ProductShape& p, bool is_measured) {
  return {.op = "gemv",
          .shape = p.name(),
          .bytes = p.bytes(),
          .flops = p.flops(),
          .is_measured = is_measured,
          .prepare = [=](CaseMemory& memory) -> Launch {
            auto args = product_args<GemvArgs>(memory, p);
            args.weights = memory.allocate(weight_bytes(p.format, p.matrix.rows, p.matrix.cols), Content::kBFloat16);
            return [=](Stream stream) { return gemv(args, stream); };
          }};
}

KernelCase gemm_case(const ProductShape& p, bool is_measured) {
  return {.op = "gemm_weight_only",
          .shape = p.name(),
          .bytes = p.bytes(),
          .flops = p.flops(),
          .is_measured = is_measured,
          .prepare = [=](CaseMemory& memory) -> Launch {
            auto args = product_args<GemmWeightOnlyArgs>(memory, p);
            args.quants = memory.allocate(weight_bytes(p.format, p.matrix.rows, p.matrix.cols), Content::kBFloat16);
            const int64_t workspace = gemm_weight_only_workspace_bytes(p.format, p.tokens, p.matrix.cols);
            args.workspace = workspace == 0 ? nullptr : memory.allocate(workspace, Content::kZeros);
            return [=](Stream stream) { return gemm_weight_only(args, stream); };
          }};
}

KernelCase embed_case(WeightFormat format, const Matrix& m, int32_t tokens, bool is_measured) {
  const double row_bytes = matrix_bytes(format, m) / static_cast<double>(m.rows);
  return {.op = "embed",
          .shape = ProductShape{format, m, tokens}.name(),
          .bytes = tokens * (row_bytes + 4.0 * static_cast<double>(m.cols) + 4),
          .flops = 0,
          .is_measured = is_measured,
          .prepare = [=](CaseMemory& memory) -> Launch {
            EmbedArgs args = {};
            args.format = format;
            args.weights = memory.allocate(weight_bytes(format, m.rows, m.cols), Content::kBFloat16);
            args.scales = scales_of(memory, format, m);
            args.rows = m.rows;
            args.cols = m.cols;
            std::vector<int32_t> ids;
            for (int64_t t = 0; t < tokens; ++t) ids.push_back(static_cast<int32_t>(t * 7919 % m.rows));
            args.ids = memory.upload(ids);
            args.num_tokens = tokens;
            args.out = static_cast<float*>(memory.allocate(tokens * m.cols * 4, Content::kZeros));
            args.out_stride = m.cols;
            return [=](Stream stream) { return embed(args, stream); };
          }};
}

KernelCase quantize_case(F8Scaling scaling, int64_t tokens, int64_t cols, ElementType type) {
  constexpr const char* kNames[] = {"rows", "blocks", "tensor"};
  return {.op = "quantize_f8",
          .shape = std::string(kNames[static_cast<int>(scaling)]) + (type == ElementType::kFloat16 ? " x fp16" : "") +
                   " K=" + std::to_string(cols) + " T=" + std::to_string(tokens),
          .bytes = 3.0 * static_cast<double>(tokens * cols),
          .flops = 0,
          .is_measured = type == ElementType::kBFloat16,
          .prepare = [=](CaseMemory& memory) -> Launch {
            QuantizeF8Args args = {};
            args.scaling = scaling;
            args.x = memory.allocate(tokens * cols * 2, Content::kBFloat16);
            args.x_stride = cols;
            args.x_type = type;
            args.num_tokens = static_cast<int32_t>(tokens);
            args.cols = cols;
            args.out = memory.allocate(tokens * cols, Content::kZeros);
            args.scales = static_cast<float*>(memory.allocate(tokens * ((cols + 127) / 128) * 4, Content::kZeros));
            args.scale_stride = tokens;
            args.row_maxima = static_cast<float*>(memory.allocate(tokens * 4, Content::kZeros));
            return [=](Stream stream) { return quantize_f8(args, stream); };
          }};
}

}  // namespace

void append_matrix_cases(const ModelShape& shape, std::vector<KernelCase>& cases) {
  const int64_t qkv = int64_t{shape.num_heads + 2 * shape.num_kv_heads} * shape.head_dim;
  const int64_t heads = int64_t{shape.num_heads} * shape.head_dim;
  const Matrix of_qkv{"qkv", qkv, shape.hidden}, of_out{"o", shape.hidden, heads};
  const Matrix of_gate_up{"gate_up", int64_t{2} * shape.intermediate, shape.hidden};
  const Matrix of_down{"down", shape.hidden, shape.intermediate}, of_head{"lm_head", shape.vocab, shape.hidden};
  const Matrix short_rows{"short", 512, 512};  // the groups of 8 lanes
  const WeightFormat quantised[] = {WeightFormat::kQ8_0, WeightFormat::kQ4_0, WeightFormat::kQ4_1,
                                    WeightFormat::kF8Tiles};

  for (const Matrix& m : {of_qkv, of_out, of_gate_up, of_down, of_head}) {
    cases.push_back(gemv_case({WeightFormat::kBFloat16, m, 1}, true));
  }
  // Every instance in bf16, which is what is measured but for one, and in fp16.
  for (const ElementType type : {ElementType::kBFloat16, ElementType::kFloat16}) {
    const bool is_bf16 = type == ElementType::kBFloat16;
    const WeightFormat plain = is_bf16 ? WeightFormat::kBFloat16 : WeightFormat::kFloat16;
    if (!is_bf16) cases.push_back(gemv_case({plain, of_gate_up, 1, type}, true));
    for (int32_t tokens = 2; tokens <= 4; ++tokens) {
      cases.push_back(gemv_case({plain, of_gate_up, tokens, type}, is_bf16));
    }
    for (int32_t tokens = 1; tokens <= 4; ++tokens) {
      cases.push_back(gemv_case({plain, short_rows, tokens, type}, false));
    }
    for (const WeightFormat format : quantised) {
      for (int32_t tokens = 1; tokens <= 2; ++tokens) {
        cases.push_back(gemv_case({format, of_gate_up, tokens, type}, is_bf16));
      }
      if (is_bf16) cases.push_back(gemv_case({format, of_down, 1, type}, true));
      for (const int32_t tokens : {8, 16, 32, 64, shape.prefill_tokens / 4}) {
        cases.push_back(gemm_case({format, of_gate_up, tokens, type}, is_bf16));
      }
      cases.push_back(gemm_case({format, of_out, 64, type}, is_bf16));  // few rows: the warps share K
    }
    for (const WeightFormat format : {WeightFormat::kF8Rows, WeightFormat::kF8Blocks}) {
      for (int32_t tokens = 1; tokens <= 4; ++tokens) {
        cases.push_back(gemv_case({format, of_gate_up, tokens, type}, is_bf16));
      }
    }
    for (const F8Scaling scaling : {F8Scaling::kPerRow, F8Scaling::kPerBlock, F8Scaling::kPerTensor}) {
      cases.push_back(quantize_case(scaling, shape.prefill_tokens / 4, shape.hidden, type));
    }
  }
  for (const WeightFormat format :
       {WeightFormat::kBFloat16, WeightFormat::kFloat16, quantised[0], quantised[1], quantised[2],
        WeightFormat::kF8Tiles, WeightFormat::kF8Rows, WeightFormat::kF8Blocks}) {
    cases.push_back(embed_case(format, {"table", shape.vocab, shape.hidden}, shape.decode_batch,
                               format == WeightFormat::kBFloat16));
  }
}

}  // namespace sextant::bench

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

std::string product_name(WeightFormat format, const Matrix& m, int64_t tokens) {
  return format_name(format) + " " + m.name + " N=" + std::to_string(m.rows) + " K=" + std::to_string(m.cols) +
         " T=" + std::to_string(tokens);
}

// Both launchers' arguments have these fields, so that one function fills them in.
template <typename Args>
Args product_args(CaseMemory& memory, WeightFormat format, const Matrix& m, int32_t tokens) {
  Args args = {};
  args.format = format;
  args.rows = m.rows;
  args.cols = m.cols;
  args.scales = scale_bytes(format, m.rows, m.cols) > 0
                    ? memory.allocate(scale_bytes(format, m.rows, m.cols), Content::kBFloat16)
                    : nullptr;
  args.x = memory.allocate(tokens * m.cols * 2, Content::kBFloat16);
  args.x_stride = m.cols;
  args.num_tokens = tokens;
  args.out = memory.allocate(tokens * m.rows * 2, Content::kZeros);
  args.out_stride = m.rows;
  args.out_type = ElementType::kBFloat16;
  return args;
}

KernelCase gemv_case(WeightFormat format, const Matrix& m, int32_t tokens, bool is_measured) {
  return {.op = "gemv",
          .shape = product_name(format, m, tokens),
          .bytes = matrix_bytes(format, m) + 2.0 * tokens * static_cast<double>(m.rows + m.cols),
          .flops = 2.0 * tokens * static_cast<double>(m.rows * m.cols),
          .is_measured = is_measured,
          .prepare = [=](CaseMemory& memory) -> Launch {
            auto args = product_args<GemvArgs>(memory, format, m, tokens);
            args.weights = memory.allocate(weight_bytes(format, m.rows, m.cols), Content::kBFloat16);
            return [=](Stream stream) { return gemv(args, stream); };
          }};
}

KernelCase gemm_case(WeightFormat format, const Matrix& m, int32_t tokens, bool is_measured) {
  return {.op = "gemm_weight_only",
          .shape = product_name(format, m, tokens),
          .bytes = matrix_bytes(format, m) + 2.0 * tokens * static_cast<double>(m.rows + m.cols),
          .flops = 2.0 * tokens * static_cast<double>(m.rows * m.cols),
          .is_measured = is_measured,
          .prepare = [=](CaseMemory& memory) -> Launch {
            auto args = product_args<GemmWeightOnlyArgs>(memory, format, m, tokens);
            args.quants = memory.allocate(weight_bytes(format, m.rows, m.cols), Content::kBFloat16);
            const int64_t workspace = gemm_weight_only_workspace_bytes(format, tokens, m.cols);
            args.workspace = workspace == 0 ? nullptr : memory.allocate(workspace, Content::kZeros);
            return [=](Stream stream) { return gemm_weight_only(args, stream); };
          }};
}

KernelCase embed_case(WeightFormat format, const Matrix& m, int32_t tokens, bool is_measured) {
  const double row_bytes = matrix_bytes(format, m) / static_cast<double>(m.rows);
  return {.op = "embed",
          .shape = product_name(format, m, tokens),
          .bytes = tokens * (row_bytes + 4.0 * static_cast<double>(m.cols) + 4),
          .flops = 0,
          .is_measured = is_measured,
          .prepare = [=](CaseMemory& memory) -> Launch {
            EmbedArgs args = {};
            args.format = format;
            args.weights = memory.allocate(weight_bytes(format, m.rows, m.cols), Content::kBFloat16);
            args.scales = scale_bytes(format, m.rows, m.cols) > 0
                              ? memory.allocate(scale_bytes(format, m.rows, m.cols), Content::kBFloat16)
                              : nullptr;
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

KernelCase quantize_case(F8Scaling scaling, int64_t tokens, int64_t cols) {
  constexpr const char* kNames[] = {"rows", "blocks", "tensor"};
  return {.op = "quantize_f8",
          .shape = std::string(kNames[static_cast<int>(scaling)]) + " K=" + std::to_string(cols) +
                   " T=" + std::to_string(tokens),
          .bytes = 3.0 * static_cast<double>(tokens * cols),
          .flops = 0,
          .is_measured = true,
          .prepare = [=](CaseMemory& memory) -> Launch {
            QuantizeF8Args args = {};
            args.scaling = scaling;
            args.x = memory.allocate(tokens * cols * 2, Content::kBFloat16);
            args.x_stride = cols;
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
    cases.push_back(gemv_case(WeightFormat::kBFloat16, m, 1, true));
  }
  for (int32_t tokens = 2; tokens <= 4; ++tokens) {
    cases.push_back(gemv_case(WeightFormat::kBFloat16, of_gate_up, tokens, true));
  }
  for (int32_t tokens = 1; tokens <= 4; ++tokens) {
    cases.push_back(gemv_case(WeightFormat::kBFloat16, short_rows, tokens, false));
  }
  for (const WeightFormat format : quantised) {
    for (int32_t tokens = 1; tokens <= 2; ++tokens) cases.push_back(gemv_case(format, of_gate_up, tokens, true));
    cases.push_back(gemv_case(format, of_down, 1, true));
    for (const int32_t tokens : {8, 16, 32, 64, shape.prefill_tokens / 4}) {
      cases.push_back(gemm_case(format, of_gate_up, tokens, true));
    }
    cases.push_back(gemm_case(format, of_out, 64, true));  // few rows: the warps share K
  }
  for (const WeightFormat format : {WeightFormat::kF8Rows, WeightFormat::kF8Blocks}) {
    for (int32_t tokens = 1; tokens <= 4; ++tokens) cases.push_back(gemv_case(format, of_gate_up, tokens, true));
  }
  for (const F8Scaling scaling : {F8Scaling::kPerRow, F8Scaling::kPerBlock, F8Scaling::kPerTensor}) {
    cases.push_back(quantize_case(scaling, shape.prefill_tokens / 4, shape.hidden));
  }
  for (const WeightFormat format : {WeightFormat::kBFloat16, quantised[0], quantised[1], quantised[2],
                                    WeightFormat::kF8Tiles, WeightFormat::kF8Rows, WeightFormat::kF8Blocks}) {
    cases.push_back(embed_case(format, {"table", shape.vocab, shape.hidden}, shape.decode_batch,
                               format == WeightFormat::kBFloat16));
  }
}

}  // namespace sextant::bench

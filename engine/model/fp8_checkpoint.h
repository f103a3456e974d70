// What Hugging Face checkpoints of F8_E4M3 weights say beside the weights: the quantization_config of config.json, and the tensors
// of scales. Two forms are read, both with w = e4m3 * scale:
//   quant_method "fp8"                 X.weight with X.weight_scale or X.weight_scale_inv: one for the tensor, or one for each
//                                      block of weight_block_size, which must be [128, 128]
//   quant_method "compressed-tensors"  X.weight with X.weight_scale, format float-quantized, strategy tensor, channel or block
// Scales of activations and of the KV cache (input_scale, k_scale, v_scale) are not read: activations are scaled by what they
// are, each step, and the cache is not FP8. Which matrices are quantised, their types say; lists of names are not needed.
// Sources: transformers' FineGrainedFP8Config and FbgemmFp8Config; compressed-tensors' QuantizationConfig.
// Thread: any.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string_view>
#include <vector>

#include "engine/base/result.h"
#include "engine/format/tensor_source.h"
#include "engine/model/model_config.h"

namespace sextant {

// Fills config.quantization, unread_quantization and fp8_scale_block. kDataLoss for values that are not what the key means.
Status read_quantization_config(const nlohmann::json& quantization, ModelConfig& config);

struct Fp8Scales {
  std::vector<float> values;  // as in HostMatrix
  int64_t block_rows = 0;
  int64_t block_cols = 0;
};

// The scales of `weight`, an F8_E4M3 matrix of `source`, cut to rows [row_begin, row_end) and columns [col_begin, col_end). Adds
// the bytes it read to num_bytes. scale_block: ModelConfig::fp8_scale_block. Errors name the tensor: scales missing, of
// another shape or type, not finite, or a cut through a block.
Result<Fp8Scales> read_fp8_scales(const TensorSource& source, const TensorInfo& weight, int64_t scale_block,
                                  int64_t row_begin, int64_t row_end, int64_t col_begin, int64_t col_end,
                                  uint64_t& num_bytes);

// Whether a tensor of this name holds scales, not weights.
bool is_scale_name(std::string_view name);
// Whether `source` has scales for the tensor of this name.
bool has_scales(const TensorSource& source, std::string_view name);

}  // namespace sextant

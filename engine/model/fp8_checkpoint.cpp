#include "engine/model/fp8_checkpoint.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>

#include "engine/format/printable.h"

namespace sextant {
namespace {

using Json = nlohmann::json;

constexpr int64_t kScaleBlock = 128;
constexpr std::string_view kSuffixes[] = {"_scale", "_scale_inv"};

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

std::string shown(const Json& value) { return printable(value.dump(), 60); }

// Null when absent or null.
const Json* find(const Json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto it = object.find(key);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

bool is_128_by_128(const Json& value) { return value == Json::array({kScaleBlock, kScaleBlock}) || value == "128x128"; }

// What of quant_method "fp8" is not read; empty when all is.
std::string read_fp8(const Json& quantization, ModelConfig& config) {
  if (const Json* format = find(quantization, "fmt"); format && *format != "e4m3" && *format != "float8_e4m3fn")
    return "fmt is " + shown(*format) + "; known: e4m3";
  const Json* block = find(quantization, "weight_block_size");
  if (!block) return "";
  if (!is_128_by_128(*block)) return "weight_block_size is " + shown(*block) + "; known: [128, 128]";
  config.fp8_scale_block = kScaleBlock;
  return "";
}

std::string read_compressed_tensors(const Json& quantization, ModelConfig& config) {
  if (const Json* format = find(quantization, "format");
      format && *format != "float-quantized" && *format != "naive-quantized") {
    return "format is " + shown(*format) + "; known: float-quantized";
  }
  if (const Json* sparsity = find(quantization, "sparsity_config")) {
    const Json* format = find(*sparsity, "format");
    if (format && *format != "dense") return "sparsity_config.format is " + shown(*format) + "; known: dense";
  }
  const Json* groups = find(quantization, "config_groups");
  if (!groups || !groups->is_object() || groups->empty()) return "config_groups is missing";
  for (const auto& [name, group] : groups->items()) {
    const std::string where = "config_groups." + printable(name, 40) + ".weights";
    const Json* weights = find(group, "weights");
    if (!weights) return where + " is missing";
    const Json* bits = find(*weights, "num_bits");
    const Json* type = find(*weights, "type");
    if (!bits || *bits != 8 || !type || *type != "float")
      return where + " is " + shown(*weights) + "; known: num_bits 8 of type float";
    const Json* strategy = find(*weights, "strategy");
    if (!strategy || *strategy == "tensor" || *strategy == "channel") continue;
    const Json* block = find(*weights, "block_structure");
    if (*strategy != "block" || !block || !is_128_by_128(*block)) {
      return where + ".strategy is " + shown(*strategy) + (block ? " of " + shown(*block) : std::string()) +
             "; known: tensor, channel, block of [128, 128]";
    }
    config.fp8_scale_block = kScaleBlock;
  }
  return "";
}

float value_at(WeightType type, const std::vector<std::byte>& bytes, size_t i) {
  if (type == WeightType::kF32) {
    float value = 0;
    std::memcpy(&value, bytes.data() + i * 4, 4);
    return value;
  }
  uint16_t half = 0;
  std::memcpy(&half, bytes.data() + i * 2, 2);
  if (type == WeightType::kBF16) return std::bit_cast<float>(static_cast<uint32_t>(half) << 16);
  const int exponent = half >> 10 & 31, fraction = half & 1023;
  if (exponent == 31) return NAN;  // infinite or not a number: refused alike
  const float size = exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24)
                                   : std::ldexp(static_cast<float>(1024 + fraction), exponent - 25);
  return half >> 15 != 0 ? -size : size;
}

}  // namespace

Status read_quantization_config(const Json& quantization, ModelConfig& config) {
  config.quantization = "unnamed";
  config.unread_quantization = "quant_method is missing";
  const Json* method = find(quantization, "quant_method");
  if (!method) return ok_status();
  if (!method->is_string()) {
    return data_loss(config.source + ": quantization_config.quant_method is " + shown(*method) + ", expected a string");
  }
  config.quantization = method->get<std::string>();
  if (config.quantization == "fp8") {
    config.unread_quantization = read_fp8(quantization, config);
  } else if (config.quantization == "compressed-tensors") {
    config.unread_quantization = read_compressed_tensors(quantization, config);
  } else {
    config.unread_quantization = "known: fp8, compressed-tensors of 8-bit floats";
  }
  return ok_status();
}

bool is_scale_name(std::string_view name) {
  for (const std::string_view suffix : {"weight_scale", "weight_scale_inv", ".input_scale", ".k_scale", ".v_scale"}) {
    if (name.ends_with(suffix)) return true;
  }
  return false;
}

bool has_scales(const TensorSource& source, std::string_view name) {
  for (const std::string_view suffix : kSuffixes) {
    if (source.find(std::string(name) + std::string(suffix)) != nullptr) return true;
  }
  return false;
}

Result<Fp8Scales> read_fp8_scales(const TensorSource& source, const TensorInfo& weight, int64_t scale_block,
                                  int64_t row_begin, int64_t row_end, int64_t col_begin, int64_t col_end,
                                  uint64_t& num_bytes) {
  const std::string where = source.path() + ": the tensor ";
  const TensorInfo* info = nullptr;
  for (const std::string_view suffix : kSuffixes) {
    const TensorInfo* found = source.find(weight.name + std::string(suffix));
    if (found != nullptr && info != nullptr)
      return data_loss(where + weight.name + " has both " + info->name + " and " + found->name);
    if (found != nullptr) info = found;
  }
  if (info == nullptr) {
    return data_loss(where + weight.name + " is " + TensorSource::describe(weight) +
                     ", but its scale is missing: " + weight.name + "_scale or " + weight.name + "_scale_inv");
  }
  const int64_t rows = weight.shape[0], cols = weight.shape[1];
  Fp8Scales whole;
  const std::vector<int64_t>& shape = info->shape;
  if (scale_block > 0) {
    whole.block_rows = whole.block_cols = scale_block;
    if (shape != std::vector<int64_t>{ceil_div(rows, scale_block), ceil_div(cols, scale_block)}) whole.block_rows = 0;
  } else if (info->num_elements() == 1) {
    whole.block_rows = rows;
    whole.block_cols = cols;
  } else if (shape == std::vector<int64_t>{rows} || shape == std::vector<int64_t>{rows, 1}) {
    whole.block_rows = 1;
    whole.block_cols = cols;
  }
  const bool is_float =
      info->type == WeightType::kF32 || info->type == WeightType::kF16 || info->type == WeightType::kBF16;
  if (whole.block_rows == 0 || !is_float) {
    const std::string wanted = scale_block > 0 ? "[" + std::to_string(ceil_div(rows, scale_block)) + ", " +
                                                     std::to_string(ceil_div(cols, scale_block)) + "]"
                                               : "[1] or [" + std::to_string(rows) + ", 1]";
    return data_loss(
        where + info->name + " is " + TensorSource::describe(*info) + ", but the scales of " +
        TensorSource::describe(weight) + " are " + wanted + " in F32, F16 or BF16" +
        (scale_block == 0 && shape.size() == 2 ? " unless quantization_config gives weight_block_size" : ""));
  }
  std::vector<std::byte> bytes(info->num_bytes);
  RETURN_IF_ERROR(source.read(*info, bytes));
  num_bytes += info->num_bytes;

  // A cut keeps whole blocks, but for those that the matrix itself ends in.
  const bool cuts_rows = row_begin > 0 || row_end<rows, cuts_cols = col_begin> 0 || col_end < cols;
  const auto is_cut_at = [](int64_t at, int64_t block, int64_t end) { return at % block == 0 || at == end; };
  const bool one_row = whole.block_rows >= rows, one_col = whole.block_cols >= cols;
  if ((cuts_rows && !one_row &&
       !(is_cut_at(row_begin, whole.block_rows, rows) && is_cut_at(row_end, whole.block_rows, rows))) ||
      (cuts_cols && !one_col &&
       !(is_cut_at(col_begin, whole.block_cols, cols) && is_cut_at(col_end, whole.block_cols, cols)))) {
    return unsupported(where + weight.name + " cannot be cut to rows " + std::to_string(row_begin) + " to " +
                       std::to_string(row_end) + ", columns " + std::to_string(col_begin) + " to " +
                       std::to_string(col_end) + ": its scales are of blocks of " + std::to_string(whole.block_rows) +
                       " x " + std::to_string(whole.block_cols) + "; take fewer tensor-parallel ranks");
  }
  Fp8Scales part;
  part.block_rows = one_row ? row_end - row_begin : whole.block_rows;
  part.block_cols = one_col ? col_end - col_begin : whole.block_cols;
  const int64_t scales_per_row = ceil_div(cols, whole.block_cols);
  for (int64_t r = row_begin / whole.block_rows; r < ceil_div(row_end, whole.block_rows); ++r) {
    for (int64_t c = col_begin / whole.block_cols; c < ceil_div(col_end, whole.block_cols); ++c) {
      const float value = value_at(info->type, bytes, static_cast<size_t>(r * scales_per_row + c));
      if (!std::isfinite(value)) return data_loss(where + info->name + " holds a scale that is no finite number");
      part.values.push_back(value);
    }
  }
  return part;
}

}  // namespace sextant

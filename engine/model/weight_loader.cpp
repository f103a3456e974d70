#include "engine/model/weight_loader.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "engine/base/check.h"

namespace sextant {
namespace {

struct NamePair {
  std::string_view hugging_face;
  std::string_view gguf;
};
constexpr std::array kTopNames = {
    NamePair{"model.embed_tokens.weight", "token_embd.weight"},
    NamePair{"model.norm.weight", "output_norm.weight"},
    NamePair{"lm_head.weight", "output.weight"},
};
// Of several with one name the first that the file has, else the last: GGUF calls a norm after what it stands behind where the sum
// comes after it (Gemma, OLMo-2), else after what it stands before.
constexpr std::array kLayerNames = {
    NamePair{"post_attention_layernorm.", "post_attention_norm."},
    NamePair{"pre_feedforward_layernorm.", "ffn_norm."},
    NamePair{"post_feedforward_layernorm.", "post_ffw_norm."},
    NamePair{"input_layernorm.", "attn_norm."},
    NamePair{"post_attention_layernorm.", "ffn_norm."},
    NamePair{"self_attn.q_proj.", "attn_q."},
    NamePair{"self_attn.k_proj.", "attn_k."},
    NamePair{"self_attn.v_proj.", "attn_v."},
    NamePair{"self_attn.o_proj.", "attn_output."},
    NamePair{"mlp.gate_proj.", "ffn_gate."},
    NamePair{"mlp.up_proj.", "ffn_up."},
    NamePair{"mlp.down_proj.", "ffn_down."},
    NamePair{"self_attn.qkv_proj.", "attn_qkv."},
    NamePair{"mlp.gate_up_proj.", "ffn_up."},
    NamePair{"self_attn.q_norm.", "attn_q_norm."},
    NamePair{"self_attn.k_norm.", "attn_k_norm."},
};
constexpr std::string_view kLayerPrefix = "model.layers.";

std::string gguf_name(std::string_view name, const TensorSource& source) {
  for (const NamePair& pair : kTopNames) {
    if (name == pair.hugging_face) return std::string(pair.gguf);
  }
  if (!name.starts_with(kLayerPrefix)) return std::string(name);
  name.remove_prefix(kLayerPrefix.size());
  const size_t dot = name.find('.');
  const std::string_view layer = name.substr(0, dot);
  const std::string_view rest = name.substr(dot + 1);
  std::string stored(name);
  for (const NamePair& pair : kLayerNames) {
    if (!rest.starts_with(pair.hugging_face)) continue;
    stored =
        "blk." + std::string(layer) + "." + std::string(pair.gguf) + std::string(rest.substr(pair.hugging_face.size()));
    if (source.find(stored) != nullptr) break;
  }
  return stored;
}

float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 0x1Fu;
  const uint32_t mantissa = half & 0x3FFu;
  if (exponent == 0) {
    const float magnitude = std::ldexp(static_cast<float>(mantissa), -24);
    return sign ? -magnitude : magnitude;
  }
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7F800000u | (mantissa << 13));
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

uint16_t round_to_bfloat16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if (std::isnan(value)) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

template <typename T>
T load(const std::byte* from, size_t idx) {
  T value;
  std::memcpy(&value, from + idx * sizeof(T), sizeof(T));
  return value;
}

bool is_plain_float(WeightType type) {
  return type == WeightType::kF32 || type == WeightType::kF16 || type == WeightType::kBF16;
}

float element(WeightType type, const std::byte* data, size_t idx) {
  switch (type) {
    case WeightType::kF16: return half_to_float(load<uint16_t>(data, idx));
    case WeightType::kBF16: return std::bit_cast<float>(static_cast<uint32_t>(load<uint16_t>(data, idx)) << 16);
    default: return load<float>(data, idx);
  }
}

HostTensor to_bfloat16(const HostTensor& matrix) {
  HostTensor rounded{WeightType::kBF16, matrix.rows, matrix.cols, {}, {}};
  const size_t count = static_cast<size_t>(matrix.rows * matrix.cols);
  rounded.data.resize(count * 2);
  for (size_t i = 0; i < count; ++i) {
    const uint16_t value = round_to_bfloat16(element(matrix.type, matrix.data.data(), i));
    std::memcpy(rounded.data.data() + i * 2, &value, 2);
  }
  return rounded;
}

// SplitMix64 (Steele, Lea, Flood 2014).
constexpr uint64_t kSplitMixStep = 0x9E3779B97F4A7C15u;
uint64_t split_mix(uint64_t& state) {
  state += kSplitMixStep;
  uint64_t z = state;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

}  // namespace

WeightLoader::WeightLoader(const TensorSource& source, Options options)
    : source_(&source), options_(options), bytes_total_(source.total_bytes()) {}

WeightLoader::WeightLoader(WeightType dummy_type, int64_t seed) : dummy_type_(dummy_type), seed_(seed) {
  CHECK(dummy_type == WeightType::kF32 || dummy_type == WeightType::kBF16);
}

WeightLoader WeightLoader::dummy(WeightType type, int64_t seed) { return WeightLoader(type, seed); }

std::string WeightLoader::file_name(std::string_view name) const {
  return options_.gguf_names ? gguf_name(name, *source_) : std::string(name);
}

Result<const TensorInfo*> WeightLoader::find(std::string_view name) const {
  const std::string stored_name = file_name(name);
  const TensorInfo* info = source_->find(stored_name);
  if (info == nullptr) return data_loss(source_->path() + ": the tensor " + stored_name + " is missing");
  return info;
}

Result<HostTensor> WeightLoader::read_matrix(std::string_view name, int64_t rows, int64_t cols,
                                             const MatrixPart& wanted) {
  MatrixPart part = wanted;
  if (part.row_end < 0) part.row_end = rows;
  if (part.col_end < 0) part.col_end = cols;
  CHECK(0 <= part.row_begin && part.row_begin <= part.row_end && part.row_end <= rows && 0 <= part.col_begin &&
        part.col_begin <= part.col_end && part.col_end <= cols)
      << "a part of " << name << " outside [" << rows << ", " << cols << "]";
  if (source_ == nullptr) return random_matrix(name, cols, part);
  ASSIGN_OR_RETURN(const TensorInfo* info, find(name));
  if (info->shape.size() != 2 || info->shape[0] != rows || info->shape[1] != cols) {
    return data_loss(source_->path() + ": the tensor " + info->name + " is " + TensorSource::describe(*info) +
                     ", but the configuration asks for [" + std::to_string(rows) + ", " + std::to_string(cols) + "]");
  }
  ASSIGN_OR_RETURN(HostTensor matrix, read_part(*info, part));
  if (matrix.type == WeightType::kF8E4M3) {
    uint64_t num_bytes = 0;
    ASSIGN_OR_RETURN(matrix.scales, read_fp8_scales(*source_, *info, options_.fp8_scale_block, part.row_begin,
                                                    part.row_end, part.col_begin, part.col_end, num_bytes));
    report(num_bytes);
  } else if (has_scales(*source_, info->name)) {
    return data_loss(source_->path() + ": the tensor " + info->name + " is " + TensorSource::describe(*info) +
                     ", which takes no scale, but the file has one for it");
  }
  if (options_.as_bfloat16 && (matrix.type == WeightType::kF32 || matrix.type == WeightType::kF16))
    return to_bfloat16(matrix);
  return matrix;
}

Result<HostTensor> WeightLoader::read_part(const TensorInfo& info, const MatrixPart& part) {
  const BlockGeometry block = block_geometry(info.type);
  const int64_t elements = block.elements;
  CHECK(part.col_begin % elements == 0 && part.col_end % elements == 0)
      << "columns " << part.col_begin << " to " << part.col_end << " of " << info.name << " cut its blocks of "
      << elements;
  HostTensor matrix{info.type, part.row_end - part.row_begin, part.col_end - part.col_begin, {}, {}};
  const uint64_t stored_row_bytes = info.num_bytes / static_cast<uint64_t>(info.shape[0]);
  const auto row_bytes = static_cast<uint64_t>(matrix.cols / elements) * block.bytes;
  matrix.data.resize(static_cast<size_t>(matrix.rows) * row_bytes);
  const uint64_t begin = static_cast<uint64_t>(part.row_begin) * stored_row_bytes +
                         static_cast<uint64_t>(part.col_begin / elements) * block.bytes;
  if (row_bytes == stored_row_bytes) {
    RETURN_IF_ERROR(source_->read_range(info, begin, matrix.data));
  } else {
    for (uint64_t row = 0; row < static_cast<uint64_t>(matrix.rows); ++row) {
      RETURN_IF_ERROR(source_->read_range(info, begin + row * stored_row_bytes,
                                          std::span(matrix.data).subspan(row * row_bytes, row_bytes)));
    }
  }
  report(matrix.data.size());
  return matrix;
}

Result<std::vector<float>> WeightLoader::read_vector(std::string_view name, int64_t size) {
  if (source_ == nullptr) return std::vector<float>(static_cast<size_t>(size), name.ends_with(".bias") ? 0.0f : 1.0f);
  ASSIGN_OR_RETURN(const TensorInfo* info, find(name));
  if (info->shape.size() != 1 || info->shape[0] != size || !is_plain_float(info->type)) {
    return data_loss(source_->path() + ": the tensor " + info->name + " is " + TensorSource::describe(*info) +
                     ", but the configuration asks for [" + std::to_string(size) + "] in F32, F16 or BF16");
  }
  std::vector<std::byte> bytes(info->num_bytes);
  RETURN_IF_ERROR(source_->read(*info, bytes));
  report(info->num_bytes);
  std::vector<float> values(static_cast<size_t>(size));
  for (size_t i = 0; i < values.size(); ++i) values[i] = element(info->type, bytes.data(), i);
  return values;
}

std::vector<WeightType> WeightLoader::matrix_types() const {
  if (source_ == nullptr) return {dummy_type_};
  std::vector<WeightType> types;
  for (const TensorInfo& info : source_->tensors()) {
    if (info.shape.size() != 2 || is_scale_name(info.name)) continue;
    const bool rounds = options_.as_bfloat16 && (info.type == WeightType::kF32 || info.type == WeightType::kF16);
    const WeightType type = rounds ? WeightType::kBF16 : info.type;
    if (std::find(types.begin(), types.end(), type) == types.end()) types.push_back(type);
  }
  return types;
}

void WeightLoader::report(uint64_t num_bytes) {
  bytes_done_ += num_bytes;
  if (progress_) progress_(bytes_done_, bytes_total_);
}

HostTensor WeightLoader::random_matrix(std::string_view name, int64_t cols, const MatrixPart& part) const {
  // FNV-1a of the name: each tensor has its own stream, whatever the order of loading.
  uint64_t begin = 0xCBF29CE484222325u ^ static_cast<uint64_t>(seed_);
  for (const char c : name) begin = (begin ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
  uint64_t state = begin;
  const int64_t part_rows = part.row_end - part.row_begin, part_cols = part.col_end - part.col_begin;
  HostTensor matrix{dummy_type_, part_rows, part_cols, {}, {}};
  const size_t count = static_cast<size_t>(part_rows * part_cols);
  const size_t element_bytes = dummy_type_ == WeightType::kF32 ? 4 : 2;
  matrix.data.resize(count * element_bytes);
  // The sum of the eight bytes of a random word is close to normal: mean 1020, variance 8 * (256^2 - 1) / 12.
  const float scale = 0.02f / std::sqrt(8.0f * 65535.0f / 12.0f);
  for (size_t i = 0; i < count; ++i) {
    // Element n of the whole matrix is the stream's n-th word, whatever part it is read with.
    if (i % static_cast<size_t>(part_cols) == 0) {
      const int64_t row = part.row_begin + static_cast<int64_t>(i) / part_cols;
      state = begin + static_cast<uint64_t>(row * cols + part.col_begin) * kSplitMixStep;
    }
    const uint64_t word = split_mix(state);
    int32_t sum = -1020;
    for (int shift = 0; shift < 64; shift += 8) sum += static_cast<int32_t>((word >> shift) & 0xFF);
    const float value = static_cast<float>(sum) * scale;
    if (element_bytes == 4) {
      std::memcpy(matrix.data.data() + i * 4, &value, 4);
    } else {
      const uint16_t rounded = round_to_bfloat16(value);
      std::memcpy(matrix.data.data() + i * 2, &rounded, 2);
    }
  }
  return matrix;
}

void uninterleave_rope_rows(HostTensor& matrix, int64_t num_heads, int64_t head_dim) {
  CHECK(matrix.rows == num_heads * head_dim && matrix.scales.values.empty()) << matrix.rows << " rows";
  const size_t row_bytes = matrix.data.size() / static_cast<size_t>(matrix.rows);
  std::vector<std::byte> reordered(matrix.data.size());
  const int64_t half = head_dim / 2;
  for (int64_t head = 0; head < num_heads; ++head) {
    for (int64_t i = 0; i < head_dim; ++i) {
      // Stored row 2i holds the pair's first element, 2i + 1 its second.
      const int64_t stored = i < half ? 2 * i : 2 * (i - half) + 1;
      std::memcpy(reordered.data() + static_cast<size_t>(head * head_dim + i) * row_bytes,
                  matrix.data.data() + static_cast<size_t>(head * head_dim + stored) * row_bytes, row_bytes);
    }
  }
  matrix.data = std::move(reordered);
}

}  // namespace sextant

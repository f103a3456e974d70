// The gate of a feed-forward layer. Formulas: kernels/elementwise.h.
#pragma once

#include <optional>
#include <string_view>

namespace sextant {

enum class Activation { kSilu, kGeluTanh };

// Hugging Face's names; gelu alone is another formula (erf).
inline std::optional<Activation> activation_of_name(std::string_view name) {
  if (name == "silu" || name == "swish") return Activation::kSilu;
  if (name == "gelu_pytorch_tanh" || name == "gelu_new") return Activation::kGeluTanh;
  return std::nullopt;
}

}  // namespace sextant

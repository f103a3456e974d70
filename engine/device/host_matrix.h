// What every backend asks of a weight matrix as a file holds it, before it packs it.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "engine/device/backend.h"
#include "kernels/panel.h"

namespace sextant {

// The kernels' name for an encoding that they compute with as the file has it; F8_E4M3 has none: it needs its scales.
std::optional<kernels::PanelType> panel_type_of(WeightType type);

enum class HeldBy : uint8_t { kCpu, kCuda };

// The encoding that a backend holds weights of `type` in: `type` itself where its kernels read it, nothing where it does not take
// it. Another one is made once, at load: Q8_0 without any change of a value, the 16-bit types by one rounding of each. On CUDA kF16
// stands for every plain type: what is held is the activations' type.
std::optional<WeightType> held_type(WeightType type, HeldBy backend);

// Whether both backends take matrices of this type.
bool is_computable(WeightType type);

// Whether `part` has a type that kernels know, whole blocks along its rows, a size in bounds, the bytes that it says, `cols`
// columns, and the scales that its type needs: finite ones, one for the tensor, for each row or for each block of 128 x 128.
// `backend` is for the message: "CPU", "CUDA".
Status check_host_matrix(const HostMatrix& part, int64_t cols, std::string_view backend);

// out[0..cols) = row `row` of a checked part, F8_E4M3 or a type of block_values.h, in fp32. False where a value is no finite number.
[[nodiscard]] bool decode_row(const HostMatrix& part, int64_t row, float* out);

// The same row in the encoding `held` (Q8_0, F16 or BF16), which is the part's held_type() and another than its own. `values` is room
// for cols floats. False where a value is no finite number that `held` can hold; an exact copy of scales and quants is not looked at.
[[nodiscard]] bool recode_row(const HostMatrix& part, int64_t row, WeightType held, float* values, uint8_t* out);

// What is said when one of the above is false.
Status does_not_hold(WeightType type, WeightType held);

}  // namespace sextant

// What every backend asks of a weight matrix as a file holds it, before it packs it.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "engine/device/backend.h"
#include "engine/device/thread_pool.h"
#include "kernels/panel.h"

namespace sextant {

// The kernels' name for an encoding that they compute with as the file has it; F8_E4M3 has none: it needs its scales.
std::optional<kernels::PanelType> panel_type_of(WeightType type);

// Whether both backends take matrices of this type.
bool is_computable(WeightType type);

// Whether `part` has a type that kernels know, whole blocks along its rows, a size in bounds, the bytes that it says, `cols`
// columns, and the scales that its type needs: finite ones, one for the tensor, for each row or for each block of 128 x 128.
// `backend` is for the message: "CPU", "CUDA".
Status check_host_matrix(const HostMatrix& part, int64_t cols, std::string_view backend);

// Of a checked F8_E4M3 part: the bf16 bits of e4m3 * scale, each rounded once to nearest even, row-major.
std::vector<uint16_t> dequantize_f8(const HostMatrix& part, ThreadPool& pool);

}  // namespace sextant

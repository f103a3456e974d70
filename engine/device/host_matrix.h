// What every backend asks of a weight matrix as a file holds it, before it packs it.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "engine/device/backend.h"
#include "kernels/panel.h"

namespace sextant {

// The kernels' name for an encoding that they compute with.
std::optional<kernels::PanelType> panel_type_of(WeightType type);

// Whether `part` has a type that kernels know, whole blocks along its rows, a size in bounds, the bytes that it says and `cols`
// columns. `backend` is for the message: "CPU", "CUDA".
Status check_host_matrix(const HostMatrix& part, int64_t cols, std::string_view backend);

}  // namespace sextant

#include "engine/device/host_matrix.h"

#include <string>

namespace sextant {
namespace {

using kernels::PanelType;

constexpr int64_t kMaxCols = int64_t{1} << 24;
constexpr int64_t kMaxRows = int64_t{1} << 40;

}  // namespace

std::optional<PanelType> panel_type_of(WeightType type) {
  switch (type) {
    case WeightType::kF32: return PanelType::kF32;
    case WeightType::kF16: return PanelType::kF16;
    case WeightType::kBF16: return PanelType::kBF16;
    case WeightType::kQ8_0: return PanelType::kQ8_0;
    case WeightType::kQ4_0: return PanelType::kQ4_0;
    case WeightType::kQ4_1: return PanelType::kQ4_1;
    default: return std::nullopt;
  }
}

Status check_host_matrix(const HostMatrix& part, int64_t cols, std::string_view backend) {
  const std::string type(weight_type_name(part.type));
  if (!panel_type_of(part.type))
    return unsupported("the " + std::string(backend) + " backend does not compute with weights of type " + type);
  const std::string shape =
      "a " + type + " matrix of " + std::to_string(part.rows) + " rows and " + std::to_string(part.cols) + " columns";
  if (part.rows < 1 || part.rows > kMaxRows || part.cols < 1 || part.cols > kMaxCols)
    return unsupported("no room for " + shape);
  if (part.cols != cols)
    return invalid_argument(shape + " cannot be stacked with one of " + std::to_string(cols) + " columns");
  if (part.cols % block_geometry(part.type).elements != 0) {
    return unsupported(shape + " does not have whole blocks: the columns must be a multiple of " +
                       std::to_string(block_geometry(part.type).elements));
  }
  const auto bytes = encoded_bytes(part.type, static_cast<uint64_t>(part.rows), static_cast<uint64_t>(part.cols));
  if (!bytes || *bytes != part.data.size()) {
    return data_loss(shape + " takes " + (bytes ? std::to_string(*bytes) : "too many") + " bytes, not " +
                     std::to_string(part.data.size()));
  }
  return ok_status();
}

}  // namespace sextant

#include "advisor/gpu_profile.h"

#include <algorithm>
#include <cctype>

namespace sextant::advisor {
namespace {

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

}  // namespace

double GpuProfile::peak_flops(std::string_view q) const {
  const double half = bf16_tflops.value_or(fp16_tflops.value_or(0));
  if (q == "nvfp4" || q == "mxfp4") return fp4_tflops.value_or(half) * 1e12;
  if (q == "fp8" || q == "fp8_block") return fp8_tflops.value_or(half) * 1e12;
  if (q == "int8") return int8_tops.value_or(half) * 1e12;
  return half * 1e12;
}

double GpuProfile::link_gb_per_s() const {
  return nvlink_gb_per_s > 0 ? nvlink_gb_per_s / 2 : std::max(pcie_gb_per_s, 16.0);
}

Result<GpuTable> GpuTable::from_csv(const CsvTable& profiles, const CsvTable& aliases) {
  GpuTable table;
  const auto column = [&](size_t row, const char* name) -> std::string {
    const int index = profiles.column(name);
    return index < 0 ? std::string() : profiles.rows[row][static_cast<size_t>(index)];
  };
  for (size_t i = 0; i < profiles.rows.size(); ++i) {
    GpuProfile g;
    g.name = column(i, "gpu");
    g.vendor = column(i, "vendor");
    g.architecture = column(i, "arch");
    g.confidence = column(i, "confidence");
    g.source = column(i, "source");
    if (g.name.empty())
      return invalid_argument(profiles.source + ", line " + std::to_string(profiles.lines[i]) + ": no gpu name", "gpu");
    std::string memory = column(i, "memory_gib");
    // "16/32": one name for two cards; the smaller is what a plan may count on.
    if (const size_t slash = memory.find('/'); slash != std::string::npos) memory.resize(slash);
    const auto read = [&](const char* name, const std::string& field, double low,
                          double high) -> Result<std::optional<double>> {
      if (field.empty()) return std::optional<double>();
      auto value = parse_number(field, name, low, high);
      if (!value.ok())
        return invalid_argument(
            profiles.source + ", line " + std::to_string(profiles.lines[i]) + ": " + value.status().message(), name);
      return std::optional<double>(*value);
    };
    struct Column {
      const char* name;
      double high;
      std::optional<double>* optional;
      double* value;
    };
    const Column columns[] = {{"mem_bw_gbs", 1e6, nullptr, &g.memory_gb_per_s},
                              {"bf16_dense_tflops", 1e6, &g.bf16_tflops, nullptr},
                              {"fp16_dense_tflops", 1e6, &g.fp16_tflops, nullptr},
                              {"fp8_dense_tflops", 1e6, &g.fp8_tflops, nullptr},
                              {"int8_dense_tops", 1e6, &g.int8_tops, nullptr},
                              {"fp4_dense_tflops", 1e6, &g.fp4_tflops, nullptr},
                              {"nvlink_gbs_bidir", 1e6, nullptr, &g.nvlink_gb_per_s},
                              {"pcie_gbs_unidir", 1e5, nullptr, &g.pcie_gb_per_s},
                              {"tdp_w", 1e5, nullptr, &g.power_w}};
    auto gib = read("memory_gib", memory, 1, 1e5);
    if (!gib.ok()) return gib.status();
    g.memory_gib = gib->value_or(0);
    for (const Column& c : columns) {
      auto value = read(c.name, column(i, c.name), 0, c.high);
      if (!value.ok()) return value.status();
      if (c.optional != nullptr) *c.optional = *value;
      if (c.value != nullptr) *c.value = value->value_or(0);
    }
    if (g.memory_gib == 0 || g.memory_gb_per_s == 0)
      return invalid_argument(profiles.source + ": " + g.name + " has no memory size or bandwidth", "memory_gib");
    table.put(std::move(g));
  }
  for (const auto& row : aliases.rows) {
    if (row.size() < 2) continue;
    if (Status status = table.add_alias(row[0], row[1]); !status.ok()) return status;
  }
  return table;
}

const GpuProfile* GpuTable::find(std::string_view name) const {
  const auto alias = aliases_.find(lower(name));
  if (alias == aliases_.end()) return nullptr;
  const auto found = profiles_.find(alias->second);
  return found == profiles_.end() ? nullptr : &found->second;
}

void GpuTable::put(GpuProfile profile) {
  aliases_[lower(profile.name)] = profile.name;
  std::string name = profile.name;
  profiles_.insert_or_assign(std::move(name), std::move(profile));
}

Status GpuTable::add_alias(const std::string& alias, const std::string& name) {
  if (profiles_.count(name) == 0) return not_found("alias '" + alias + "' names the unknown GPU '" + name + "'", "gpu");
  aliases_[lower(alias)] = name;
  return ok_status();
}

std::vector<std::string> GpuTable::names() const {
  std::vector<std::string> names;
  for (const auto& [name, profile] : profiles_) names.push_back(name);
  for (const auto& [alias, name] : aliases_)
    if (alias != lower(name)) names.push_back(alias);
  return names;
}

}  // namespace sextant::advisor

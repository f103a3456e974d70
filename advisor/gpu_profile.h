// GPU profiles (one row of gpu_profiles.csv each) and the other names that clouds, engines and people use. Pure; any thread.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "advisor/csv.h"
#include "engine/base/result.h"

namespace sextant::advisor {

struct GpuProfile {
  std::string name;
  std::string vendor;
  std::string architecture;
  std::string confidence;  // A system file, B cited secondary, C not verified
  std::string source;
  double memory_gib = 0;
  double memory_gb_per_s = 0;
  // Dense, without sparsity; nothing where the GPU has no such units.
  std::optional<double> bf16_tflops, fp16_tflops, fp8_tflops, int8_tops, fp4_tflops;
  double nvlink_gb_per_s = 0;  // both directions; 0: none
  double pcie_gb_per_s = 0;    // one direction
  double power_w = 0;

  // Of the units that run matrices of such weights; formats without units of their own are expanded to 16 bits first.
  double peak_flops(std::string_view quantization) const;
  // One direction, between GPUs of one host.
  double link_gb_per_s() const;
};

class GpuTable {
 public:
  static Result<GpuTable> from_csv(const CsvTable& profiles, const CsvTable& aliases);

  // By name or alias, letters of either case; nullptr when unknown.
  const GpuProfile* find(std::string_view name) const;
  void put(GpuProfile profile);
  Status add_alias(const std::string& alias, const std::string& name);
  const std::map<std::string, GpuProfile>& all() const { return profiles_; }
  const std::map<std::string, std::string>& aliases() const { return aliases_; }  // lower case -> name
  std::vector<std::string> names() const;                                         // with aliases

 private:
  std::map<std::string, GpuProfile> profiles_;
  std::map<std::string, std::string> aliases_;
};

}  // namespace sextant::advisor

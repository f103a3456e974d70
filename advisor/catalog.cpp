#include "advisor/catalog.h"

#include "advisor/embedded.h"
#include "engine/base/check.h"

namespace sextant::advisor {
namespace {

CsvTable table(const char* name) {
  Result<CsvTable> parsed = parse_csv(embedded_file(name), name);
  CHECK(parsed.ok()) << parsed.status().message();
  return std::move(parsed).value();
}

template <typename T>
T checked(Result<T> result) {
  CHECK(result.ok()) << result.status().message();
  return std::move(result).value();
}

}  // namespace

const FactsTable& shipped_facts() {
  static const FactsTable facts = checked(FactsTable::from_csv(table("model_facts.csv")));
  return facts;
}

const GpuTable& shipped_gpus() {
  static const GpuTable gpus = checked(GpuTable::from_csv(table("gpu_profiles.csv"), table("gpu_aliases.csv")));
  return gpus;
}

const std::vector<ServingPoint>& shipped_points() {
  static const std::vector<ServingPoint> points = checked(read_serving_points(table("measured_serving.csv")));
  return points;
}

}  // namespace sextant::advisor

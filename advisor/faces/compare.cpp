// Any number of plans side by side.
#include <cstdio>

#include "advisor/faces/faces.h"
#include "advisor/report/plan_json.h"

namespace sextant::advisor {
namespace {

using nlohmann::ordered_json;

// Of the first option: what is compared, and where it stands.
struct Row {
  const char* name;
  const char* pointer;
};
constexpr Row kRows[] = {{"model", "/model_id"},
                         {"weights", "/quantization"},
                         {"gpu", "/gpu"},
                         {"gpus", "/gpus"},
                         {"replicas", "/replicas"},
                         {"tensor_parallel", "/tensor_parallel"},
                         {"usd_per_month", "/cost/usd_per_month"},
                         {"usd_per_month_autoscaled", "/cost/usd_per_month_autoscaled"},
                         {"usd_per_1m_output_tokens", "/cost/usd_per_1m_output_tokens"},
                         {"ttft_p90_ms", "/at_peak_per_replica/ttft_ms/p90"},
                         {"tpot_p90_ms", "/at_peak_per_replica/tpot_ms/p90"},
                         {"e2e_p95_ms", "/at_peak_per_replica/e2e_ms/p95"},
                         {"utilization_at_peak", "/utilization_at_peak"},
                         {"quality", "/quality"},
                         {"verdict", "/verdict"}};

}  // namespace

ordered_json compare_plans(const std::vector<std::pair<std::string, ordered_json>>& plans) {
  ordered_json scenarios = ordered_json::array();
  for (const auto& [name, plan] : plans) {
    scenarios.push_back(
        {{"name", name},
         {"plan_id", plan["plan_id"]},
         {"kb_revision", plan["kb_revision"]},
         {"verdict", plan["verdict"]},
         {"nearest_change", plan["options"].empty() && !plan.value("rejected", ordered_json::array()).empty()
                                ? plan["rejected"][0]["nearest_change"]
                                : ordered_json(nullptr)}});
  }
  ordered_json rows = ordered_json::array();
  for (const Row& row : kRows) {
    ordered_json values = ordered_json::array();
    ordered_json differences = ordered_json::array();
    for (const auto& [name, plan] : plans) {
      const ordered_json::json_pointer pointer(row.pointer);
      const bool there = !plan["options"].empty() && plan["options"][0].contains(pointer);
      values.push_back(there ? plan["options"][0][pointer] : ordered_json(nullptr));
      const ordered_json& first = values[0];
      const ordered_json& last = values.back();
      differences.push_back(first.is_number() && last.is_number()
                                ? ordered_json(shown(last.get<double>() - first.get<double>()))
                                : ordered_json(nullptr));
    }
    rows.push_back({{"figure", row.name}, {"values", values}, {"differences_to_first", differences}});
  }
  return {{"schema", "sextant.comparison/1"}, {"scenarios", scenarios}, {"rows", rows}};
}

std::string comparison_text(const ordered_json& comparison) {
  const auto cell = [](const ordered_json& value) {
    std::string text = value.is_null() ? "-" : value.is_string() ? value.get<std::string>() : value.dump();
    return text.size() > 34 ? text.substr(0, 31) + "..." : text;
  };
  std::string out;
  const auto add = [&](const std::string& text, size_t width) {
    out += text + std::string(text.size() < width ? width - text.size() : 1, ' ');
  };
  add("", 26);
  for (const ordered_json& s : comparison["scenarios"]) add(cell(s["name"]), 36);
  out += "\n";
  add("plan", 26);
  for (const ordered_json& s : comparison["scenarios"]) add(cell(s["verdict"]), 36);
  out += "\n";
  for (const ordered_json& row : comparison["rows"]) {
    add(row["figure"].get<std::string>(), 26);
    for (size_t i = 0; i < row["values"].size(); ++i) {
      std::string text = cell(row["values"][i]);
      if (const ordered_json& d = row["differences_to_first"][i]; i > 0 && d.is_number() && d != 0.0)
        text += std::string(" (") + (d.get<double>() > 0 ? "+" : "") + d.dump() + ")";
      add(text, 36);
    }
    out += "\n";
  }
  return out;
}

}  // namespace sextant::advisor

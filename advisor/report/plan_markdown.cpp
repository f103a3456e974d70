// A plan as markdown, for terminals and repositories: the same document as the HTML, without its charts.
#include <cmath>
#include <cstdio>

#include "advisor/report/plan_json.h"

namespace sextant::advisor {
namespace {

using nlohmann::ordered_json;

std::string number(const ordered_json& value, int decimals = 0) {
  if (!value.is_number()) return "-";
  char text[48];
  const double x = value.get<double>();
  std::snprintf(text, sizeof text, "%.*f", decimals, x);
  std::string digits = text;
  // Thousands apart.
  const size_t end = digits.find('.') == std::string::npos ? digits.size() : digits.find('.');
  for (size_t i = end; i > 3 && i - 3 > (digits[0] == '-' ? 1u : 0u); i -= 3) digits.insert(i - 3, ",");
  return digits;
}

// What users and catalogues wrote must not become markup of ours.
std::string cell(const ordered_json& value) {
  if (!value.is_string()) return value.is_null() ? "-" : value.dump();
  std::string out;
  for (const char c : value.get_ref<const std::string&>()) {
    if (c == '\n' || c == '\r' || c == '\t')
      out += ' ';
    else if (c == '|' || c == '<' || c == '>' || c == '*' || c == '`' || c == '[' || c == ']' || c == '\\')
      (out += '\\') += c;
    else
      out += c;
  }
  return out;
}

void list(std::string& out, const char* title, const ordered_json& items, size_t most = 40) {
  if (!items.is_array() || items.empty()) return;
  out += std::string("\n## ") + title + "\n\n";
  for (size_t i = 0; i < items.size() && i < most; ++i) out += "- " + cell(items[i]) + "\n";
  if (items.size() > most) out += "- and " + std::to_string(items.size() - most) + " more\n";
}

void options(std::string& out, const ordered_json& plan) {
  out +=
      "\n## Options\n\n| # | model | weights | GPUs | replicas | $/month | autoscaled | TTFT p90 ms | TPOT p90 ms | "
      "answer p95 ms | "
      "verdict |\n|---|---|---|---|---|---|---|---|---|---|---|\n";
  int rank = 0;
  for (const ordered_json& o : plan["options"]) {
    const ordered_json& peak = o["at_peak_per_replica"];
    out += "| " + std::to_string(++rank) + " | " + cell(o["model_id"]) + " | " + cell(o["quantization"]) + " | " +
           number(o["gpus"]) + " x " + cell(o["gpu"]) + " | " + number(o["replicas"]) + " (of " +
           number(o["tensor_parallel"]) + ") | " + number(o["cost"]["usd_per_month"]) + " | " +
           number(o["cost"]["usd_per_month_autoscaled"]) + " | " + number(peak["ttft_ms"]["p90"]) + " | " +
           number(peak["tpot_ms"]["p90"], 1) + " | " + number(peak["e2e_ms"]["p95"]) + " | " + cell(o["verdict"]) +
           " |\n";
  }
}

void first_option(std::string& out, const ordered_json& o) {
  out += "\n## First option\n\n" + cell(o["rationale"]) +
         "\n\n| target | limit ms | predicted ms (90% interval) | probability | verdict |\n"
         "|---|---|---|---|---|\n";
  for (const ordered_json& t : o["targets"])
    out += "| " + cell(t["target"]) + " | " + number(t["limit_ms"]) + " | " + number(t["predicted_ms"], 1) + " (" +
           number(t["low90_ms"], 1) + " to " + number(t["high90_ms"], 1) + "), " + cell(t["provenance"]) + " | " +
           number(t["probability"], 2) + " | " + cell(t["verdict"]) + " |\n";
  out +=
      "\n| where | replicas | spares | instances | price of one, $/h | price of | $/h "
      "|\n|---|---|---|---|---|---|---|\n";
  for (const ordered_json& s : o["sites"])
    out += "| " + cell(s["region"]) + " | " + number(s["replicas_needed"]) + " | " + number(s["spares"]) + " | " +
           number(s["instances"]) + " x " + cell(s["provider"]) + " " + cell(s["instance"]) + " | " +
           number(s["usd_per_instance_hour"], 2) + (s["price_assumed"] == true ? " (assumed)" : "") + " | " +
           cell(s["price_date"]) + " | " + number(s["usd_per_hour"], 2) + " |\n";
  const ordered_json& cost = o["cost"];
  out += "\n| cost line | $/month |\n|---|---|\n";
  for (const auto& [line, usd] : cost["lines_usd_per_month"].items())
    out += "| " + line + " | " + number(usd, 2) + " |\n";
  out += "| **all** | " + number(cost["usd_per_month"], 2) + " |\n";
  for (const auto& [key, label] : {std::pair{"usd_per_request", "per request"},
                                   {"usd_per_1m_input_tokens", "per 1M input tokens"},
                                   {"usd_per_1m_output_tokens", "per 1M output tokens"},
                                   {"budget_used_pct", "budget used, %"},
                                   {"revenue_usd_per_month", "revenue"},
                                   {"margin_usd_per_month", "margin"}})
    if (cost.contains(key)) out += std::string("| ") + label + " | " + number(cost[key], 4) + " |\n";
  out += "\n" + cell(cost["definition"]) + "\n";
  const ordered_json& m = o["memory_per_gpu_gib"];
  out += "\nMemory of each GPU, GiB: " + number(m["total"], 1) + " = weights " + number(m["weights"], 1) +
         " + KV cache " + number(m["kv_cache"], 1) + " + activations " + number(m["activations"], 1) + " + overhead " +
         number(m["overhead"], 2) + " + free " + number(m["free"], 1) + "; KV cache used at the peak " +
         number(m["kv_used_at_peak_pct"]) + "%\n";
  const ordered_json& l = o["latency_budget_ms"];
  out += "\nMean latency, ms: network " + number(l["network"]) + ", gateway " + number(l["gateway"]) + ", queue " +
         number(l["queue"]) + ", prefill " + number(l["prefill"]) + ", decode " + number(l["decode"]) + "\n";
  out += "\nHost of each replica: " + number(o["host_per_replica"]["cpus"]) + " CPUs, " +
         number(o["host_per_replica"]["memory_gib"]) + " GiB (" + cell(o["host_per_replica"]["rule"]) + ")\n";
  out += "\n```\n";
  for (const ordered_json& flag : o["engine_flags"]) out += flag.get<std::string>() + "\n";
  out += "```\n";
  if (o.contains("ownership")) {
    out += "\n## Owning\n\n| | |\n|---|---|\n";
    for (const auto& [key, value] : o["ownership"].items())
      out += "| " + key + " | " + (value.is_number() ? number(value, 2) : cell(value)) + " |\n";
  }
  const ordered_json& day = o["day"];
  out += "\n## The day\n\n" + number(ordered_json(100 * day["attainment"].get<double>()), 2) +
         "% of the requests within capacity; $" + number(day["usd_per_month"]) +
         " a month when replicas follow the load\n\n| hour | requests/s | replicas | utilisation % | $ "
         "|\n|---|---|---|---|---|\n";
  int hour = 0;
  for (const ordered_json& h : day["hours"])
    out += "| " + std::to_string(hour++) + " | " + number(h["requests_per_s"], 2) + " | " + number(h["replicas"]) +
           " | " + number(ordered_json(100 * h["utilization"].get<double>())) + " | " + number(h["usd"], 2) + " |\n";
}

std::string joined(const ordered_json& items) {
  std::string out;
  for (const ordered_json& item : items) out += (out.empty() ? "" : ", ") + cell(item);
  return out.empty() ? "-" : out;
}

// Rows of what was chosen, why, and what instead.
void choices(std::string& out, const char* title, const char* key, const ordered_json& rows) {
  out += std::string("\n## ") + title + "\n\n| " + key + " | choice | because | instead |\n|---|---|---|---|\n";
  for (const ordered_json& row : rows)
    out += "| " + cell(row[key]) + " | " + cell(row["choice"]) + " | " + cell(row["because"]) + " | " +
           joined(row["alternatives"]) + " |\n";
}

void ways(std::string& out, const ordered_json& plan) {
  if (plan.contains("architecture")) {
    out += "\n## Architecture\n\n| pattern | suitable | why |\n|---|---|---|\n";
    for (const ordered_json& a : plan["architecture"])
      out += "| " + cell(a["pattern"]) + " | " + (a["suitable"] == true ? "suitable" : "no") + " | " + cell(a["why"]) +
             " |\n";
  }
  if (plan.contains("stack")) choices(out, "Stack", "layer", plan["stack"]);
  if (plan.contains("decisions")) choices(out, "Decisions", "decision", plan["decisions"]);
  if (plan.contains("purchase_mixes") && !plan["purchase_mixes"].empty()) {
    out +=
        "\n## Other ways to pay\n\n| mix | $/month | change, % | interruptions a day | time with too few replicas, % "
        "|\n|---|---|---|---|---|\n";
    for (const ordered_json& m : plan["purchase_mixes"])
      out += "| " + cell(m["mix"]) + " | " +
             (m.contains("left_out")
                  ? cell(m["left_out"]) + " | - | - | -"
                  : number(m["usd_per_month"]) + " | " + number(m["change_pct"], 1) + " | " +
                        number(m["interruptions_per_day"], 1) + " | " + number(m["too_few_replicas_pct"], 3)) +
             " |\n";
  }
  if (plan.contains("mixed_gpus") && plan["mixed_gpus"].is_object()) {
    const ordered_json& mixed = plan["mixed_gpus"];
    out += "\n## One model on two types of GPU\n\n";
    if (!mixed.contains("pools")) {
      out += cell(mixed["why"]) + "\n";
    } else {
      out += cell(mixed["model_id"]) + " for $" + number(mixed["usd_per_month"]) + " a month, " +
             (mixed["cheaper"] == true ? "cheaper than" : "no cheaper than") + " $" +
             number(mixed["one_type_usd_per_month"]) + " on one type:\n\n";
      for (const ordered_json& pool : mixed["pools"])
        out += "- " + number(pool["instances"]) + " x " + cell(pool["instance"]) + " (" + cell(pool["gpu"]) +
               ") with " + number(ordered_json(100 * pool["share_of_traffic"].get<double>())) + "% of the requests\n";
    }
  }
  const ordered_json compliance = plan.value("compliance", ordered_json());
  if (compliance.is_object() && !compliance["regulations"].empty()) {
    out += "\n## Compliance\n\nRegions: " + cell(compliance["regions"]) + ". Audit log for " +
           number(compliance["audit_retention_days"]) + " days; prompts and answers kept for " +
           (compliance["content_retention_days_max"].is_null()
                ? "any time"
                : "at most " + number(compliance["content_retention_days_max"]) + " days") +
           "; encrypted in transit and at rest.\n\n";
    for (const ordered_json& rule : compliance["rules"])
      out += "- " + cell(rule["regulation"]) + ": " + cell(rule["setting"]) + " (" + cell(rule["why"]) + ")\n";
  }
}

void rest(std::string& out, const ordered_json& plan) {
  if (plan.contains("sensitivity")) {
    out += "\n## Sensitivity\n\nChange of " + cell(plan["sensitivity"]["measure"]) +
           " in % when an input changes; - where the configuration then cannot serve.\n\n| input | now | at -20% | at "
           "+25% |\n"
           "|---|---|---|---|\n";
    for (const ordered_json& row : plan["sensitivity"]["inputs"])
      out += "| " + cell(row["input"]) + " | " + cell(row["now"]) + " | " + number(row["change_at_minus_20_pct"], 1) +
             " | " + number(row["change_at_plus_25_pct"], 1) + " |\n";
    if (const ordered_json& flip = plan["sensitivity"]["flips_the_verdict"]; !flip.is_null())
      out +=
          "\nThe verdict flips at " + cell(flip["input"]) + " = " + cell(flip["at"]) + ": " + cell(flip["what"]) + "\n";
  }
  ways(out, plan);
  if (plan.contains("answers") && !plan["answers"].empty()) {
    out += "\n## Answers\n\n";
    for (const auto& [question, answer] : plan["answers"].items())
      out += "- " + question + ": " +
             cell(answer["value"].is_null() && answer.contains("why") ? answer["why"] : answer["value"]) +
             (answer.contains("unit") ? " " + cell(answer["unit"]) : "") + "\n";
  }
  if (plan.contains("frontier") && plan["frontier"].size() > 1) {
    out += "\n## Frontier of cost, latency and size\n\n| model | GPUs | $/month | answer p95 ms |\n|---|---|---|---|\n";
    for (const ordered_json& o : plan["frontier"])
      out += "| " + cell(o["model_id"]) + " (" + cell(o["quantization"]) + ") | " + number(o["gpus"]) + " x " +
             cell(o["gpu"]) + " | " + number(o["usd_per_month"]) + " | " + number(o["e2e_p95_ms"]) + " |\n";
  }
  if (plan.contains("rejected") && !plan["rejected"].empty()) {
    out += "\n## Left out, and what would let it in\n\n| model | GPU | reason | nearest change |\n|---|---|---|---|\n";
    size_t shown = 0;
    for (const ordered_json& r : plan["rejected"]) {
      if (++shown > 20) break;
      out += "| " + cell(r["model_id"]) + " | " + cell(r["gpu"]) + " | " + cell(r["reason"]) + " | " +
             cell(r["nearest_change"]) + " |\n";
    }
    out += "\n" + number(plan["num_rejected"]) + " in all.\n";
  }
  list(out, "Prices and regions that could not be used", plan.value("left_out", ordered_json()), 15);
  list(out, "Assumptions", plan.value("assumptions", ordered_json()));
  list(out, "Not considered", plan.value("not_considered", ordered_json()));
}

void specification(std::string& out, const ordered_json& spec, const std::string& prefix = "") {
  for (const auto& [key, field] : spec.items()) {
    if (!field.is_object()) continue;
    if (!field.contains("source")) {
      specification(out, field, prefix + key + ".");
      continue;
    }
    const std::string value =
        field["value"].is_string() ? cell(field["value"]) : cell(ordered_json(field["value"].dump()));
    out += "| " + prefix + key + " | " + (value.size() > 120 ? value.substr(0, 60) + "..." : value) + " | " +
           cell(field["source"]) + " | " + cell(field["rule"]) + " |\n";
  }
}

}  // namespace

std::string plan_markdown(const ordered_json& plan) {
  std::string out = "# " + cell(plan["title"]) + ": " + cell(plan["verdict"]) + "\n\n";
  if (plan.contains("summary")) out += cell(plan["summary"]) + "\n\n";
  out += "Plan " + cell(plan["plan_id"]) + ", prices as of " + cell(plan["as_of"]) + ", knowledge base " +
         cell(plan["kb_revision"]) + ", sextant " + cell(plan["version"]) + "\n";
  if (plan.contains("parts")) {
    out += "\nAll models together: " + number(plan["total"]["gpus"]) + " GPUs, $" +
           number(plan["total"]["usd_per_month"]) + " a month\n";
    list(out, "Not considered", plan["not_considered"]);
    for (const ordered_json& part : plan["parts"]) out += "\n---\n\n" + plan_markdown(part["plan"]);
    return out;
  }
  if (!plan["options"].empty()) {
    options(out, plan);
    first_option(out, plan["options"][0]);
  }
  rest(out, plan);
  out += "\n## Specification\n\n| field | value | source | rule |\n|---|---|---|---|\n";
  specification(out, plan["specification"]);
  return out;
}

}  // namespace sextant::advisor

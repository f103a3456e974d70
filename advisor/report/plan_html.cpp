// A plan as one HTML file: no script, nothing fetched, light and dark, readable on a telephone. Charts are SVG of our own.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "advisor/report/plan_json.h"

namespace sextant::advisor {
namespace {

using nlohmann::ordered_json;

constexpr const char* kStyle = R"css(
:root{--bg:#fbfbfa;--card:#fff;--ink:#1c1f23;--soft:#5d6570;--line:#e3e5e8;--a:#2f6fde;--b:#0f9d8a;--warn:#b7791f;--bad:#c53030;--ok:#2f855a;--fill:#eaf1fd}
@media (prefers-color-scheme:dark){:root{--bg:#14171a;--card:#1c2024;--ink:#e8eaed;--soft:#9aa3ad;--line:#30363c;--a:#6ea2ff;--b:#4fd1bd;--warn:#ecc267;--bad:#fc8181;--ok:#68d391;--fill:#22304a}}
*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1080px;margin:0 auto;padding:28px 20px 60px}h1{font-size:26px;margin:0 0 6px;line-height:1.2}h2{font-size:17px;margin:30px 0 10px}
.soft{color:var(--soft);font-size:13px;overflow-wrap:anywhere}.tag{display:inline-block;border-radius:999px;padding:2px 10px;font-size:13px;font-weight:600;border:1px solid currentColor}
.pass,.feasible{color:var(--ok)}.fail,.infeasible{color:var(--bad)}.uncertain{color:var(--warn)}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(160px,1fr));gap:12px;margin:18px 0}.card{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px 14px}
.card b{display:block;font-size:21px;line-height:1.25;overflow-wrap:anywhere}.scroll{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:10px}
table{border-collapse:collapse;width:100%;font-size:14px}th,td{text-align:left;padding:7px 12px;border-bottom:1px solid var(--line);vertical-align:top}tr:last-child td{border-bottom:0}
th{font-weight:600;color:var(--soft);font-size:12.5px;white-space:nowrap}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
svg{display:block;width:100%;height:auto}.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(320px,1fr));gap:14px}pre{margin:0;padding:12px 14px;overflow-x:auto;font:13px/1.5 ui-monospace,Menlo,Consolas,monospace}
details{margin-top:14px}summary{cursor:pointer;font-weight:600}li{margin:3px 0;overflow-wrap:anywhere}tr.best td{background:var(--fill)}text{fill:var(--soft);font:12px system-ui,sans-serif}h3{font-size:14px;margin:0 0 6px}
.flow{display:flex;align-items:center}.sites{display:grid;gap:10px}.box{background:var(--fill);border:1px solid var(--a);border-radius:9px;padding:9px 13px}.box b,.box span{display:block;overflow-wrap:anywhere}.card .box b{font-size:15px}.box span{color:var(--soft);font-size:13px}
.arrow{flex:1 1 30px;max-width:110px;min-width:26px;border-top:2px solid var(--soft);position:relative}.arrow::after{content:"";position:absolute;right:-1px;top:-6px;border:5px solid transparent;border-left:8px solid var(--soft);border-right:0}
@media(max-width:640px){main{padding:18px 12px 40px}.two{grid-template-columns:1fr}svg text{font-size:19px}th,td{padding:6px 8px}.wide{min-width:230px}.flow{flex-direction:column;align-items:stretch}
.arrow{flex:none;width:0;min-width:0;height:22px;align-self:center;border-top:0;border-left:2px solid var(--soft)}.arrow::after{right:auto;left:-6px;top:auto;bottom:-1px;border:5px solid transparent;border-top:8px solid var(--soft);border-bottom:0}}
)css";

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&quot;";
    else if (c == '\'')
      out += "&#39;";
    else
      out += c;
  }
  return out;
}

std::string text(const ordered_json& value) {
  if (value.is_null()) return "–";
  return escaped(value.is_string() ? value.get<std::string>() : value.dump());
}

std::string number(const ordered_json& value, int decimals = 0) {
  if (!value.is_number()) return "–";
  char digits[48];
  std::snprintf(digits, sizeof digits, "%.*f", decimals, value.get<double>());
  std::string out = digits;
  const size_t end = out.find('.') == std::string::npos ? out.size() : out.find('.');
  for (size_t i = end; i > 3 && i - 3 > (out[0] == '-' ? 1u : 0u); i -= 3) out.insert(i - 3, ",");
  return out;
}

std::string fixed(double value, int decimals = 1) { return number(ordered_json(value), decimals); }
std::string at(double value) {
  char out[32];
  std::snprintf(out, sizeof out, "%.1f", value);
  return out;
}

std::string td(const std::string& content) { return "<td>" + content + "</td>"; }
std::string tdn(const std::string& content) { return "<td class=n>" + content + "</td>"; }
std::string tag(const ordered_json& verdict) {
  return "<span class=\"tag " + text(verdict) + "\">" + text(verdict) + "</span>";
}

// Columns of load with a line of what the replicas can carry.
std::string load_chart(const ordered_json& hours, double rate) {
  double most = 1e-9;
  for (const ordered_json& h : hours)
    most = std::max({most, h["requests_per_s"].get<double>(), h["replicas"].get<double>() * rate});
  std::string out = "<svg viewBox=\"0 0 520 210\" role=\"img\" aria-label=\"load and capacity by hour\">";
  std::string line;
  for (size_t i = 0; i < hours.size(); ++i) {
    const double x = 40 + 19.6 * static_cast<double>(i);
    const double height = 160 * hours[i]["requests_per_s"].get<double>() / most;
    out += "<rect x=\"" + at(x) + "\" y=\"" + at(180 - height) + "\" width=\"15\" height=\"" + at(height) +
           "\" rx=\"2\" fill=\"var(--a)\" opacity=\".75\"/>";
    const double y = 180 - 160 * hours[i]["replicas"].get<double>() * rate / most;
    line += (i == 0 ? "M" : "L") + at(x - 2) + " " + at(y) + "L" + at(x + 17.6) + " " + at(y);
    if (i % 6 == 0 || i == 23) out += "<text x=\"" + at(x) + "\" y=\"197\">" + std::to_string(i) + "</text>";
  }
  out += "<path d=\"" + line +
         "\" fill=\"none\" stroke=\"var(--b)\" stroke-width=\"2\"/><path d=\"M38 180H512\" stroke=\"var(--line)\"/>";
  return out + "<text x=\"0\" y=\"26\">" + fixed(most, most < 10 ? 1 : 0) +
         "</text><text x=\"20\" y=\"184\">0</text></svg>";
}

std::string utilization_chart(const ordered_json& hours) {
  std::string out = "<svg viewBox=\"0 0 520 210\" role=\"img\" aria-label=\"utilisation by hour\">";
  for (const int percent : {0, 50, 100})
    out += "<path d=\"M38 " + at(180 - 1.6 * percent) + "H512\" stroke=\"var(--line)\"/><text x=\"0\" y=\"" +
           at(184 - 1.6 * percent) + "\">" + std::to_string(percent) + "%</text>";
  std::string line;
  for (size_t i = 0; i < hours.size(); ++i) {
    const double x = 46 + 19.6 * static_cast<double>(i);
    const double y = 180 - 160 * std::min(1.0, hours[i]["utilization"].get<double>());
    line += (i == 0 ? "M" : "L") + at(x) + " " + at(y);
    if (i % 6 == 0 || i == 23) out += "<text x=\"" + at(x - 6) + "\" y=\"197\">" + std::to_string(i) + "</text>";
  }
  return out + "<path d=\"" + line + "L" + at(46 + 19.6 * 23) +
         " 180L46 180Z\" fill=\"var(--b)\" opacity=\".18\"/><path d=\"" + line +
         "\" fill=\"none\" stroke=\"var(--b)\" stroke-width=\"2\"/></svg>";
}

std::string stacked_bar(const ordered_json& parts, const std::vector<std::string>& names, const char* unit) {
  static const char* const colours[] = {"#2f6fde", "#0f9d8a", "#d69e2e", "#9f7aea", "#a0aec0", "#e06c75"};
  double sum = 0;
  for (const std::string& name : names) sum += parts.value(name, 0.0);
  std::string out = "<svg viewBox=\"0 0 520 34\"><g>";
  std::string legend = "<p class=soft>";
  double x = 0;
  for (size_t i = 0; i < names.size(); ++i) {
    const double width = sum > 0 ? 520 * parts.value(names[i], 0.0) / sum : 0;
    out += "<rect x=\"" + at(x) + "\" y=\"4\" height=\"26\" width=\"" + at(width) + "\" fill=\"" + colours[i] + "\"/>";
    x += width;
    legend += std::string("<span style=\"color:") + colours[i] + "\">&#9632;</span> " + escaped(names[i]) + " " +
              fixed(parts.value(names[i], 0.0), 1) + "&nbsp;" + unit + " &nbsp; ";
  }
  return out + "</g></svg>" + legend + "</p>";
}

// Boxes in a row, or in a column where the screen is narrow.
std::string diagram(const ordered_json& o) {
  const auto box = [](const std::string& head, const std::string& sub) {
    return "<div class=box><b>" + head + "</b><span>" + sub + "</span></div>";
  };
  const std::string arrow = "<div class=arrow></div>";
  std::string out = "<div class=flow>" + box("Clients", "HTTPS") + arrow + box("Gateway", "keys, limits, routing") +
                    arrow + "<div class=sites>";
  for (const ordered_json& s : o["sites"]) {
    const int replicas = s["replicas_needed"].get<int>() + s["spares"].get<int>();
    const int gpus = o["tensor_parallel"].get<int>() * o["pipeline_parallel"].get<int>();
    out += box(std::to_string(replicas) + (replicas == 1 ? " replica of " : " replicas of ") + std::to_string(gpus) +
                   " &times; " + text(o["gpu"]),
               text(s["region"]) + ": " + number(s["instances"]) + " &times; " + text(s["provider"]) + " " +
                   text(s["instance"]));
  }
  return out + "</div></div>";
}

std::string joined(const ordered_json& items) {
  std::string out;
  for (const ordered_json& item : items) out += (out.empty() ? "" : ", ") + text(item);
  return out.empty() ? "–" : out;
}

std::string answer_text(const ordered_json& answer) {
  std::string out = answer["value"].is_null() && answer.contains("why") ? text(answer["why"]) : text(answer["value"]);
  if (answer.contains("unit")) out += " " + text(answer["unit"]);
  return out;
}

std::string mixed_gpus(const ordered_json& mixed) {
  if (!mixed.is_object()) return "";
  std::string out = "<h2>One model on two types of GPU</h2><div class=card>";
  if (!mixed.contains("pools")) return out + "<p>" + text(mixed["why"]) + "</p></div>";
  out += "<p>" + text(mixed["model_id"]) + " for $" + number(mixed["usd_per_month"]) + " a month, " +
         (mixed["cheaper"] == true ? "cheaper than" : "no cheaper than") + " $" +
         number(mixed["one_type_usd_per_month"]) + " on one type:</p><ul>";
  for (const ordered_json& pool : mixed["pools"])
    out += "<li>" + number(pool["instances"]) + " &times; " + text(pool["instance"]) + " (" + text(pool["gpu"]) +
           ") with " + fixed(100 * pool["share_of_traffic"].get<double>(), 0) + "% of the requests</li>";
  return out + "</ul></div>";
}

std::string compliance_list(const ordered_json& c) {
  if (!c.is_object() || c["regulations"].empty()) return "";
  std::string out =
      "<h2>Compliance</h2><div class=card><p>Regions: " + text(c["regions"]) + ". Audit log for " +
      number(c["audit_retention_days"]) + " days; prompts and answers kept for " +
      (c["content_retention_days_max"].is_null() ? "any time"
                                                 : "at most " + number(c["content_retention_days_max"]) + " days") +
      "; encrypted in transit and at rest.</p><ul>";
  for (const ordered_json& rule : c["rules"])
    out += "<li>" + text(rule["regulation"]) + ": " + text(rule["setting"]) + " <span class=soft>" + text(rule["why"]) +
           "</span></li>";
  return out + "</ul></div>";
}

std::string list(const char* title, const ordered_json& items, bool open) {
  if (!items.is_array() || items.empty()) return "";
  std::string out = std::string("<details") + (open ? " open" : "") + "><summary>" + title + " (" +
                    std::to_string(items.size()) + ")</summary><ul>";
  for (const ordered_json& item : items) out += "<li>" + text(item) + "</li>";
  return out + "</ul></details>";
}

std::string table(const std::vector<std::string>& heads, const std::string& rows) {
  std::string out = "<div class=scroll><table><thead><tr>";
  for (const std::string& head : heads)
    out += head.starts_with("#") ? "<th class=n>" + head.substr(1) + "</th>" : "<th>" + head + "</th>";
  return out + "</tr></thead><tbody>" + rows + "</tbody></table></div>";
}

std::string first_option(const ordered_json& o) {
  const ordered_json& cost = o["cost"];
  std::string out =
      "<div class=cards><div class=card>model<b>" + text(o["model_id"]) + "</b><span class=soft>" +
      text(o["quantization"]) + ", " + text(o["quality"]) + "</span></div><div class=card>GPUs<b>" + number(o["gpus"]) +
      " &times; " + text(o["gpu"]) + "</b><span class=soft>" + number(o["replicas"]) + " replicas of " +
      number(o["tensor_parallel"]) + "</span></div><div class=card>a month<b>$" + number(cost["usd_per_month"]) +
      "</b><span class=soft>$" + number(cost["usd_per_month_autoscaled"]) +
      " autoscaled</span></div><div class=card>1M output tokens<b>$" + number(cost["usd_per_1m_output_tokens"], 2) +
      "</b><span class=soft>input $" + number(cost["usd_per_1m_input_tokens"], 2) +
      "</span></div><div class=card>utilisation at the peak<b>" +
      fixed(100 * o["utilization_at_peak"].get<double>(), 0) +
      "%</b><span class=soft>of the rate within targets</span></div></div>";
  out += "<h2>Where it runs</h2><div class=card>" + diagram(o) + "</div>";
  std::string rows;
  for (const ordered_json& t : o["targets"])
    rows += "<tr>" + td(tag(t["verdict"])) + td(text(t["target"])) + tdn(number(t["limit_ms"], 0)) +
            tdn(number(t["predicted_ms"], 1)) + tdn(number(t["low90_ms"], 1) + " – " + number(t["high90_ms"], 1)) +
            tdn(fixed(100 * t["probability"].get<double>(), 0) + "%") + td(text(t["provenance"])) + "</tr>";
  out += "<h2>Targets at the peak</h2>" +
         table({"verdict", "target", "#limit ms", "#predicted ms", "#90% interval", "#probability", "from"}, rows);
  rows.clear();
  for (const auto& [line, usd] : cost["lines_usd_per_month"].items())
    rows += "<tr>" + td(escaped(line)) + tdn("$" + number(usd, 2)) + "</tr>";
  rows += "<tr>" + td("<b>all</b>") + tdn("<b>$" + number(cost["usd_per_month"], 2) + "</b>") + "</tr>";
  rows += "<tr>" + td("per request") + tdn("$" + number(cost["usd_per_request"], 6)) + "</tr>";
  for (const auto& [key, label] : {std::pair{"revenue_usd_per_month", "revenue"}, {"margin_usd_per_month", "margin"}})
    if (cost.contains(key)) rows += "<tr>" + td(label) + tdn("$" + number(cost[key], 2)) + "</tr>";
  if (cost.contains("budget_used_pct"))
    rows += "<tr>" + td("budget used") + tdn(number(cost["budget_used_pct"], 1) + "%") + "</tr>";
  std::string sites;
  for (const ordered_json& s : o["sites"])
    sites += "<li>" + number(s["instances"]) + " &times; " + text(s["provider"]) + " " + text(s["instance"]) + " in " +
             text(s["region"]) + " at $" + number(s["usd_per_instance_hour"], 2) + "/h, price of date " +
             text(s["price_date"]) + (s["price_assumed"] == true ? " <span class=uncertain>(assumed)</span>" : "") +
             "</li>";
  out += "<h2>Cost</h2><div class=two>" + table({"line", "#a month"}, rows) + "<div class=card><ul>" + sites +
         "</ul><p class=soft>" + text(cost["definition"]) + "</p></div></div>";
  const double rate = o["limit_per_replica"]["requests_per_s"].get<double>();
  out +=
      "<h2>Twenty-four hours</h2><div class=two><div class=card><h3>Requests per second, and "
      "what the "
      "replicas can carry</h3>" +
      load_chart(o["day"]["hours"], rate) + "</div><div class=card><h3>Utilisation</h3>" +
      utilization_chart(o["day"]["hours"]) + "</div></div><p class=soft>" +
      fixed(100 * o["day"]["attainment"].get<double>(), 2) +
      "% of the day's requests within every latency target, from " + number(o["day"]["replicas_min"]) + " to " +
      number(o["day"]["replicas_max"]) +
      " replicas; the line is what they can carry. Below the charts: the hour of the day.</p>";
  out += "<h2>Memory of each GPU and mean latency</h2><div class=two><div class=card>" +
         stacked_bar(o["memory_per_gpu_gib"], {"weights", "kv_cache", "activations", "overhead", "free"}, "GiB") +
         "</div><div class=card>" +
         stacked_bar(o["latency_budget_ms"], {"network", "gateway", "queue", "prefill", "decode"}, "ms") +
         "</div></div>";
  std::string flags;
  for (const ordered_json& flag : o["engine_flags"]) flags += text(flag) + "\n";
  out += "<h2>Engine flags</h2><div class=scroll><pre>" + flags + "</pre></div>";
  if (o.contains("ownership")) {
    rows.clear();
    for (const auto& [key, value] : o["ownership"].items())
      rows += "<tr>" + td(escaped(key)) + tdn(value.is_number() ? number(value, 2) : text(value)) + "</tr>";
    out += "<h2>Owning</h2>" + table({"figure", "#value"}, rows);
  }
  return out;
}

std::string specification(const ordered_json& spec, const std::string& prefix = "") {
  std::string out;
  for (const auto& [key, field] : spec.items()) {
    if (!field.is_object()) continue;
    if (!field.contains("source")) {
      out += specification(field, prefix + key + ".");
      continue;
    }
    std::string value = field["value"].is_string() ? field["value"].get<std::string>() : field["value"].dump();
    if (key == "hourly_multipliers") value = "24 multipliers";
    out += "<tr>" + td(escaped(prefix + key)) + td(escaped(value)) + td(text(field["source"])) +
           td(text(field["rule"])) + "</tr>";
  }
  return out;
}

std::string body(const ordered_json& plan) {
  std::string out = "<h1>" + text(plan["title"]) + " " + tag(plan["verdict"]) + "</h1>";
  if (plan.contains("summary")) out += "<p>" + text(plan["summary"]) + "</p>";
  out += "<p class=soft>plan " + text(plan["plan_id"]) + " &middot; prices as of " + text(plan["as_of"]) +
         " &middot; knowledge base " + text(plan["kb_revision"]) + " &middot; sextant " + text(plan["version"]) +
         "</p>";
  if (plan.contains("parts")) {
    out += "<div class=cards><div class=card>GPUs<b>" + number(plan["total"]["gpus"]) +
           "</b></div><div class=card>a month<b>$" + number(plan["total"]["usd_per_month"]) + "</b></div></div>" +
           list("Not considered", plan["not_considered"], true);
    for (const ordered_json& part : plan["parts"]) out += "<hr>" + body(part["plan"]);
    return out;
  }
  const ordered_json& options = plan["options"];
  if (!options.empty()) {
    out += first_option(options[0]);
    std::string rows;
    for (size_t i = 0; i < options.size(); ++i) {
      const ordered_json& o = options[i];
      rows += std::string("<tr") + (i == 0 ? " class=best" : "") + ">" + tdn(std::to_string(i + 1)) +
              td(tag(o["verdict"])) + "<td class=wide>" + text(o["model_id"]) + "<br><span class=soft>" +
              text(o["rationale"]) + "</span></td>" + td(text(o["quantization"])) +
              td(number(o["gpus"]) + " &times; " + text(o["gpu"])) + tdn("$" + number(o["cost"]["usd_per_month"])) +
              tdn(number(o["at_peak_per_replica"]["ttft_ms"]["p90"])) +
              tdn(number(o["at_peak_per_replica"]["tpot_ms"]["p90"], 1)) +
              tdn(number(o["at_peak_per_replica"]["e2e_ms"]["p95"])) + "</tr>";
    }
    out += "<h2>Options by " + text(plan["specification"]["priority"]["value"]) + "</h2>" +
           table({"#rank", "verdict", "model", "weights", "GPUs", "#a month", "#TTFT p90 ms", "#TPOT p90 ms",
                  "#answer p95 ms"},
                 rows);
    rows.clear();
    for (const ordered_json& o : plan["frontier"])
      rows += "<tr>" + td(text(o["model_id"]) + " (" + text(o["quantization"]) + ")") +
              td(number(o["gpus"]) + " &times; " + text(o["gpu"])) + tdn("$" + number(o["usd_per_month"])) +
              tdn(number(o["e2e_p95_ms"])) + "</tr>";
    if (plan["frontier"].size() > 1)
      out +=
          "<h2>Frontier of cost, latency and size</h2>" + table({"model", "GPUs", "#a month", "#answer p95 ms"}, rows);
    rows.clear();
    for (const ordered_json& row : plan["sensitivity"]["inputs"])
      rows += "<tr>" + td(text(row["input"])) + tdn(text(row["now"])) + tdn(number(row["change_at_minus_20_pct"], 1)) +
              tdn(number(row["change_at_plus_25_pct"], 1)) + "</tr>";
    out += "<h2>What it is most sensitive to</h2>" +
           table({"input", "#now", "#" + text(plan["sensitivity"]["measure"]) + " % at &minus;20%", "#at +25%"}, rows);
    if (const ordered_json& flip = plan["sensitivity"]["flips_the_verdict"]; !flip.is_null())
      out += "<p>The verdict flips at " + text(flip["input"]) + " = " + text(flip["at"]) + ": " + text(flip["what"]) +
             ".</p>";
    rows.clear();
    for (const ordered_json& a : plan["architecture"])
      rows += "<tr>" + td(text(a["pattern"])) + td(a["suitable"] == true ? "suitable" : "no") + td(text(a["why"])) +
              "</tr>";
    out += "<h2>Architecture</h2>" + table({"pattern", "suitable", "why"}, rows);
    rows.clear();
    for (const ordered_json& layer : plan["stack"])
      rows += "<tr>" + td(text(layer["layer"])) + td(text(layer["choice"])) + td(text(layer["because"])) +
              td(joined(layer["alternatives"])) + "</tr>";
    out += "<h2>Stack</h2>" + table({"layer", "choice", "because", "instead"}, rows);
    rows.clear();
    for (const ordered_json& d : plan["decisions"])
      rows += "<tr>" + td(text(d["decision"])) + td(text(d["choice"])) + td(text(d["because"])) +
              td(joined(d["alternatives"])) + "</tr>";
    out += "<h2>Decisions</h2>" + table({"decision", "choice", "because", "instead"}, rows);
    rows.clear();
    for (const ordered_json& m : plan["purchase_mixes"]) {
      rows += "<tr>" + td(text(m["mix"]));
      if (m.contains("left_out"))
        rows += "<td colspan=4 class=soft>" + text(m["left_out"]) + "</td></tr>";
      else
        rows += tdn("$" + number(m["usd_per_month"])) + tdn(number(m["change_pct"], 1) + "%") +
                tdn(number(m["interruptions_per_day"], 1)) + tdn(number(m["too_few_replicas_pct"], 3) + "%") + "</tr>";
    }
    if (!rows.empty())
      out += "<h2>Other ways to pay</h2>" +
             table({"mix", "#a month", "#change", "#interruptions a day", "#time with too few replicas"}, rows);
  }
  out += mixed_gpus(plan.value("mixed_gpus", ordered_json()));
  out += compliance_list(plan.value("compliance", ordered_json()));
  std::string answers;
  const ordered_json questions = plan.value("answers", ordered_json::object());
  for (const auto& [question, answer] : questions.items())
    answers += "<tr>" + td(escaped(question)) + td(answer_text(answer)) + "</tr>";
  if (!answers.empty()) out += "<h2>Answers</h2>" + table({"question", "answer"}, answers);
  std::string rows;
  for (const ordered_json& r : plan.value("rejected", ordered_json::array())) {
    if (rows.size() > 12000) break;
    rows += "<tr>" + td(text(r["model_id"])) + td(text(r["gpu"])) + td(text(r["reason"])) +
            td(text(r["nearest_change"])) + "</tr>";
  }
  if (!rows.empty())
    out += std::string("<details") + (options.empty() ? " open" : "") +
           "><summary>Left out, and what would let it in (" + number(plan["num_rejected"]) + ")</summary>" +
           table({"model", "GPU", "reason", "nearest change"}, rows) + "</details>";
  out += list("Prices and regions that could not be used", plan.value("left_out", ordered_json()), options.empty());
  out += list("Assumptions", plan.value("assumptions", ordered_json()), true);
  out += list("Not considered", plan.value("not_considered", ordered_json()), true);
  out += "<details><summary>Specification</summary>" +
         table({"field", "value", "source", "rule"}, specification(plan["specification"])) + "</details>";
  return out;
}

}  // namespace

std::string plan_html(const ordered_json& plan) {
  return "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
         "content=\"width=device-width,initial-scale=1\"><meta http-equiv=\"Content-Security-Policy\" "
         "content=\"default-src 'none'; style-src 'unsafe-inline'\"><title>" +
         text(plan["title"]) + " – Sextant plan</title><style>" + kStyle + "</style></head><body><main>" + body(plan) +
         "</main></body></html>\n";
}

}  // namespace sextant::advisor

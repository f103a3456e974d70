// OPERATIONS.md: what this deployment carries, what its alerts mean, how it grows, goes back and is rebuilt, and what it costs.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <optional>

#include "deploy/guide/guide.h"

namespace sextant::deploy {
namespace {

using nlohmann::ordered_json;

// Three significant digits and no exponent; whole from 1,000 on.
std::string shown(double x) {
  std::array<char, 64> text{};
  const double size = std::fabs(x);
  const int digits = size >= 100 || size == 0 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : size >= 0.01 ? 4 : 7;
  std::snprintf(text.data(), text.size(), "%.*f", digits, x);
  std::string out = text.data();
  if (out.find('.') != std::string::npos) {
    while (out.back() == '0') out.pop_back();
    if (out.back() == '.') out.pop_back();
  }
  return out;
}

std::optional<double> number_at(const ordered_json& object, const std::vector<const char*>& path) {
  const ordered_json* at = &object;
  for (const char* key : path) {
    if (!at->is_object() || !at->contains(key)) return std::nullopt;
    at = &(*at)[key];
  }
  if (!at->is_number() || !std::isfinite(at->get<double>())) return std::nullopt;
  return at->get<double>();
}

std::string text_at(const ordered_json& object, const char* key) {
  return object.is_object() && object.contains(key) && object[key].is_string() ? object[key].get<std::string>() : "";
}

class Page {
 public:
  void heading(const std::string& text) { out_ += "\n## " + text + "\n\n"; }
  void line(const std::string& text) { out_ += text + "\n"; }
  void item(const std::string& text) { out_ += "- " + text + "\n"; }
  void table(const std::vector<std::string>& titles) {
    row(titles);
    row(std::vector<std::string>(titles.size(), "---"));
  }
  void row(const std::vector<std::string>& cells) {
    out_ += "|";
    for (const std::string& cell : cells) out_ += " " + cell + " |";
    out_ += "\n";
  }
  // A row when the plan has the number.
  void number(const std::string& what, const std::optional<double>& value, const char* unit) {
    if (value) row({what, shown(*value) + unit});
  }
  void shell(const std::string& commands) { out_ += "```sh\n" + commands + "```\n"; }
  std::string take() { return std::move(out_); }

 private:
  std::string out_;
};

std::string workload_of(const Target& target) {
  if (target.kind() == "lws") return "leaderworkerset/" + target.name();
  if (target.kind() == "kserve") return "deployment/" + target.name() + "-predictor";
  if (target.kind() == "llmisvc") return "llminferenceservice/" + target.name();
  return "deployment/" + target.name();
}

void add_capacity(const Target& target, Page& page) {
  const ordered_json& option = target.option;
  page.heading("Capacity");
  page.table({"Figure", "Predicted by the plan"});
  page.row({"model", markdown_code(target.model_id) +
                         (target.quantization.empty() ? "" : ", weights in " + markdown_text(target.quantization))});
  page.row({"one replica", std::to_string(target.gpus_per_replica()) + " x " + markdown_text(target.gpu) + " on " +
                               std::to_string(target.num_nodes) + (target.num_nodes > 1 ? " nodes" : " node")});
  page.row({"replicas", std::to_string(target.replicas)});
  page.number("peak, all replicas", target.peak_rps > 0 ? std::optional(target.peak_rps) : std::nullopt, " requests/s");
  page.number("most of one replica within the targets", number_at(option, {"limit_per_replica", "requests_per_s"}),
              " requests/s");
  if (const auto used = number_at(option, {"utilization_at_peak"}))
    page.row({"of that, used at the peak with all spares down", shown(*used * 100) + " %"});
  if (target.limit_rps_per_replica > 0)
    page.row({"most of all replicas",
              shown(target.limit_rps_per_replica * static_cast<double>(target.replicas)) + " requests/s"});
  page.number("in flight on one replica at the peak, p99",
              number_at(option, {"at_peak_per_replica", "requests_in_flight_p99"}), "");
  page.row({"at once on one replica at most (`--max-num-seqs`)", std::to_string(target.max_num_seqs)});
  page.number("output of one replica", number_at(option, {"output_tokens_per_s_per_replica"}), " tokens/s");
  page.number("KV cache used at the peak", number_at(option, {"memory_per_gpu_gib", "kv_used_at_peak_pct"}), " %");
  page.number("weights on each GPU", number_at(option, {"memory_per_gpu_gib", "weights"}), " GiB");
  if (target.download_seconds > 0)
    page.row({"weights fetched by a pod that has none",
              shown(target.download_seconds) + " s at " + shown(target.options.download_gb_per_s) + " GB/s"});
  page.row({"the server from its start to ready, with weights there", shown(target.load_seconds) + " s"});

  const auto targets = option.find("targets");
  if (targets == option.end() || !targets->is_array() || targets->empty()) return;
  page.line("");
  page.table({"Target", "Limit", "Predicted", "90 % interval", "Verdict"});
  for (const ordered_json& goal : *targets) {
    if (!goal.is_object()) continue;
    const auto ms = [&goal](const char* key) {
      const auto value = number_at(goal, {key});
      return value ? shown(*value >= 1000 ? *value / 1000 : *value) + (*value >= 1000 ? " s" : " ms")
                   : std::string("-");
    };
    page.row({markdown_text(text_at(goal, "target")), ms("limit_ms"), ms("predicted_ms"),
              ms("low90_ms") + " to " + ms("high90_ms"), markdown_text(text_at(goal, "verdict"))});
  }
}

void add_alerts(const std::vector<Alert>& alerts, Page& page) {
  if (alerts.empty()) return;
  page.heading("Alerts");
  page.table({"Alert", "Severity", "After", "Means", "Do"});
  for (const Alert& alert : alerts)
    page.row({markdown_code(alert.name), markdown_text(alert.severity), markdown_text(alert.wait),
              markdown_text(alert.meaning), markdown_text(alert.action)});
}

void add_scaling(const Target& target, Page& page) {
  const Options& o = target.options;
  page.heading("Scaling");
  if (o.autoscaler != "none") {
    page.line("Replicas follow the load between " + std::to_string(o.min_replicas) + " and " +
              std::to_string(o.max_replicas) + " (" + o.autoscaler + "): at " + std::to_string(o.queue_depth_target) +
              " waiting requests per replica or " + std::to_string(o.gpu_utilization_target) +
              " % of GPU time. Raise the bounds by rendering again, not with `kubectl edit`.");
  } else {
    page.line("The number of replicas is fixed at " + std::to_string(target.replicas) + ".");
  }
  if (target.limit_rps_per_replica > 0 && o.autoscaler != "none")
    page.line("At most this carries " + shown(target.limit_rps_per_replica * static_cast<double>(o.max_replicas)) +
              " requests/s within the targets; beyond it, plan anew.");
  page.line("");
  page.line(
      "1. Is it the load? `llm_queue_depth` grows while requests/s are above the plan's peak: add replicas. It grows "
      "below: see Alerts.");
  page.line("2. By hand, until the next render:");
  if (target.kind() != "llmisvc")
    page.shell("kubectl -n " + target.ns() + " scale " + workload_of(target) +
               " --replicas=" + std::to_string(target.replicas + 1) + "\n");
  page.line("   A new replica serves after about " + shown(target.load_seconds) + " s, once a node is there.");
  page.line(
      "3. For good: change the spec, `sextant advise plan`, `sextant deploy render`, look at the differences, apply.");
}

void add_rollback(const Target& target, Page& page) {
  page.heading("Rollback");
  if (target.options.rollout != "none") {
    page.line("While two releases run, give the old one all requests first; it takes effect at once:");
    page.line("render with `--new-weight 0`, apply it, then remove the new workload.");
    page.line("");
  }
  page.line("Apply the bundle before this one (it is in version control) and wait:");
  page.shell("git checkout LAST_GOOD -- .\nkubectl apply -k kubernetes/overlays/production\n" +
             (target.kind() == "deployment"
                  ? "kubectl -n " + target.ns() + " rollout status deployment/" + target.name() + "\n"
                  : "kubectl -n " + target.ns() + " get pods --watch\n"));
  page.line(
      "The workflow `.github/workflows/deploy.yaml` does the same by itself when a release fails, or by hand with "
      "action `rollback`.");
  page.line("Requests in flight get " + std::to_string(kDrainSeconds) + " s to end; a pod is killed " +
            std::to_string(kGracePeriodSeconds) + " s after it was told to.");
}

void add_recovery(const Target& target, Page& page) {
  page.heading("Disaster recovery");
  page.line("Goals: serving again within " + shown(kRecoveryTimeSeconds / 60) + " minutes (RTO), at most " +
            shown(kRecoveryPointSeconds / 60) + " minutes of changes lost (RPO).");
  page.line("");
  page.table({"What", "Where its copy is", "Lost at worst"});
  page.row({"spec, plan, bundle", "version control; every change is a commit", "nothing that was committed"});
  page.row({"keys (Secret " + markdown_code(target.name() + "-keys") + ")",
            "your secret store; the cluster holds a copy", "nothing"});
  page.row({"image", "registry, by digest; mirrored to the other region", "nothing"});
  page.row({"weights", "their registry of models, mirrored to storage in the other region; volumes are caches of it",
            "nothing"});
  page.row({"the advisor's knowledge base, where one is kept",
            "`pg_dump`, or `sextant kb export`, every 5 minutes to storage in the other region", "5 minutes"});
  page.row({"metrics and audit logs", "remote write, log shipping", "what was not sent yet: seconds"});
  page.row({"requests in flight, prefix cache", "none: clients ask again", "both"});
  page.line("");
  // Detection: six failed probes, ten seconds apart. Names: a record with a time to live of 60 s.
  constexpr double kDetect = 60, kNames = 60;
  const double fetch = target.options.model_claim.empty() ? target.download_seconds : 0;
  const double total = kDetect + kNames + fetch + target.load_seconds;
  page.line("Predicted time to recover where nodes with " + markdown_text(target.gpu) +
            " stand ready: " + shown(kDetect) + " s until it is noticed, " +
            (fetch > 0
                 ? shown(fetch) + " s to fetch the weights (at " + shown(target.options.download_gb_per_s) + " GB/s), "
                 : std::string()) +
            shown(target.load_seconds) + " s from the server's start to ready (weights read at " +
            shown(target.options.load_gb_per_s) + " GB/s), " + shown(kNames) +
            " s until names point there: " + shown(total) + " s.");
  if (total > kRecoveryTimeSeconds)
    page.line("**This misses the goal of " + shown(kRecoveryTimeSeconds) +
              " s**: keep the weights on a volume of the other region (`--model-claim`), or a replica running there.");
  else
    page.line("What is left for getting nodes: " + shown(kRecoveryTimeSeconds - total) +
              " s. Where a cloud takes longer, keep one replica running there.");
  page.line("");

  const auto sites = target.option.find("sites");
  const size_t num_sites = sites != target.option.end() && sites->is_array() ? sites->size() : 0;
  if (num_sites > 1) {
    page.line("When a region is lost, the others get its requests:");
    page.line("");
    page.table({"Lost", "Peak of all", "The others carry", "Enough"});
    double peak = 0;
    std::vector<double> capacity;
    for (const ordered_json& site : *sites) {
      peak += number_at(site, {"peak_rps"}).value_or(0);
      capacity.push_back((number_at(site, {"replicas_needed"}).value_or(0) + number_at(site, {"spares"}).value_or(0)) *
                         target.limit_rps_per_replica);
    }
    for (size_t i = 0; i < num_sites; ++i) {
      double others = 0;
      for (size_t k = 0; k < num_sites; ++k) others += k == i ? 0 : capacity[k];
      page.row({markdown_text(text_at((*sites)[i], "region")), shown(peak) + " requests/s",
                shown(others) + " requests/s", others >= peak ? "yes" : "**no: scale first**"});
    }
    page.line("");
    page.line("1. Take the lost region out of the names or weights of your balancer.");
    page.line("2. Where the table says no, raise `max_replicas` there and scale by hand (see Scaling).");
    page.line(
        "3. Rebuild it by applying its bundle to a new cluster; check `/ready` and one answer before it gets "
        "requests.");
  } else {
    page.line("The plan has one region" +
              std::string(target.region.empty() ? "" : " (" + markdown_text(target.region) + ")") +
              ". When it is lost:");
    page.line("");
    page.line("1. A cluster with such nodes in another region; its kubeconfig; the Secret from your secret store.");
    page.line("2. Apply this bundle there: `README.md`, Apply.");
    page.line("3. When `/ready` says 200 and one request is answered, point the names there.");
    page.line("4. Restore the knowledge base from its last export, where one is kept.");
  }
  page.line("");
  page.line("Rehearse it each quarter, and write down how long it took.");
}

void add_cost(const Target& target, Page& page) {
  const ordered_json& option = target.option;
  const auto usd = [&option](const char* key) { return number_at(option, {"cost", key}); };
  page.heading("Cost");
  page.table({"Figure", "US dollars"});
  page.number("an hour with everything running", usd("usd_per_hour"), "");
  page.number("a month of 730 hours", usd("usd_per_month"), "");
  page.number("a month with replicas that follow the day", usd("usd_per_month_autoscaled"), "");
  page.number("one replica for an hour",
              target.usd_per_replica_hour > 0 ? std::optional(target.usd_per_replica_hour) : std::nullopt, "");
  page.number("one request", usd("usd_per_request"), "");
  page.number("1M output tokens", usd("usd_per_1m_output_tokens"), "");
  page.number("1M input tokens", usd("usd_per_1m_input_tokens"), "");
  const auto cost = option.find("cost");
  if (cost != option.end() && cost->is_object() && cost->contains("lines_usd_per_month") &&
      (*cost)["lines_usd_per_month"].is_object())
    for (const auto& [name, value] : (*cost)["lines_usd_per_month"].items())
      if (value.is_number() && value.get<double>() > 0)
        page.row({"of a month: " + markdown_text(name), shown(value.get<double>())});
  if (!target.as_of.empty()) page.line("\nPrices as of " + markdown_text(target.as_of) + ".");
}

}  // namespace

std::string markdown_text(const std::string& text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      out += ' ';
    } else if (c == '<' || c == '>' || c == '&') {
      out += c == '<' ? "&lt;" : c == '>' ? "&gt;" : "&amp;";
    } else {
      if (std::string("\\`*_[]|#~$").find(c) != std::string::npos) out += '\\';
      out += c;
    }
  }
  return out;
}

std::string markdown_code(const std::string& text) {
  // A backtick or a bar cannot be escaped in a code span: such texts are shown without one.
  if (text.find_first_of("`|") != std::string::npos) return markdown_text(text);
  std::string out = text;
  std::replace_if(
      out.begin(), out.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, ' ');
  return "`" + out + "`";
}

std::string operations_guide(const Target& target, const std::vector<Alert>& alerts) {
  Page page;
  page.line("# Operating " + markdown_text(target.name()));
  page.line("");
  page.line("From plan " + markdown_code(target.plan_id) +
            (target.title.empty() ? "" : " (" + markdown_text(target.title) + ")") +
            (target.as_of.empty() ? "" : " of " + markdown_text(target.as_of)) +
            ". Its figures are predictions until `sextant bench serve` has measured this deployment. `README.md` says "
            "how to apply it.");
  if (!target.options.description.empty()) page.line("\n" + markdown_text(target.options.description));
  add_capacity(target, page);
  add_alerts(alerts, page);
  add_scaling(target, page);
  add_rollback(target, page);
  add_recovery(target, page);
  add_cost(target, page);
  return page.take();
}

}  // namespace sextant::deploy

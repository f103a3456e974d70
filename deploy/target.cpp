#include "deploy/target.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "advisor/plan/plan.h"

namespace sextant::deploy {
namespace {

using nlohmann::ordered_json;

constexpr int kMaxDepth = 64;
// From the container's start to the first byte of weights, and from the last to ready: process, CUDA context, graphs, tokenizer.
constexpr double kStartSeconds = 60;

size_t num_characters(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

// Reads fields of one object; each failure is an error that names the field.
class Fields {
 public:
  Fields(const ordered_json& object, std::string path, std::vector<Status>& errors)
      : object_(object), path_(std::move(path)), errors_(errors) {}

  const ordered_json* find(const char* key) const {
    if (!object_.is_object()) return nullptr;
    const auto at = object_.find(key);
    return at == object_.end() || at->is_null() ? nullptr : &*at;
  }
  double number(const char* key, double low, double high, std::optional<double> otherwise = std::nullopt) {
    const ordered_json* value = find(key);
    if (value == nullptr && otherwise) return *otherwise;
    const double x = value != nullptr && value->is_number() ? value->get<double>() : std::nan("");
    if (!(x >= low && x <= high)) bad(key, "must be a number from " + plain(low) + " to " + plain(high));
    return x >= low && x <= high ? x : low;
  }
  int64_t whole(const char* key, int64_t low, int64_t high, std::optional<int64_t> otherwise = std::nullopt) {
    const ordered_json* value = find(key);
    if (value == nullptr && otherwise) return *otherwise;
    const double x = value != nullptr && value->is_number() ? value->get<double>() : std::nan("");
    const bool ok = x >= static_cast<double>(low) && x <= static_cast<double>(high) && x == std::floor(x);
    if (!ok) bad(key, "must be a whole number from " + std::to_string(low) + " to " + std::to_string(high));
    return ok ? static_cast<int64_t>(x) : low;
  }
  std::string text(const char* key, size_t most, std::optional<std::string> otherwise = std::nullopt) {
    const ordered_json* value = find(key);
    if (value == nullptr && otherwise) return *otherwise;
    const bool ok = value != nullptr && value->is_string() && !value->get_ref<const std::string&>().empty() &&
                    num_characters(value->get_ref<const std::string&>()) <= most &&
                    is_clean_text(value->get<std::string>());
    if (!ok) bad(key, "must be a text of 1 to " + std::to_string(most) + " characters without control characters");
    return ok ? value->get<std::string>() : "";
  }
  void bad(const char* key, const std::string& why) {
    errors_.push_back(invalid_argument("plan: " + path_ + key + " " + why, path_ + key));
  }

 private:
  static std::string plain(double x) { return ordered_json(x).dump(); }
  const ordered_json& object_;
  std::string path_;
  std::vector<Status>& errors_;
};

// specification.<path>.value of a completed spec, or nothing.
const ordered_json* spec_value(const ordered_json& specification, std::initializer_list<const char*> path) {
  const ordered_json* at = &specification;
  for (const char* key : path) {
    if (!at->is_object()) return nullptr;
    const auto found = at->find(key);
    if (found == at->end()) return nullptr;
    at = &*found;
  }
  if (!at->is_object()) return nullptr;
  const auto value = at->find("value");
  return value == at->end() || value->is_null() ? nullptr : &*value;
}

double spec_number(const ordered_json& specification, std::initializer_list<const char*> path, double otherwise,
                   double low, double high) {
  const ordered_json* value = spec_value(specification, path);
  if (value == nullptr || !value->is_number()) return otherwise;
  const double x = value->get<double>();
  return x >= low && x <= high ? x : otherwise;
}

void read_goals(const ordered_json& option, Target& target, std::vector<Status>& errors) {
  const auto at = option.find("targets");
  if (at == option.end() || !at->is_array()) return;
  for (size_t i = 0; i < at->size() && i < 16; ++i) {
    Fields fields((*at)[i], "targets[" + std::to_string(i) + "].", errors);
    LatencyGoal goal;
    goal.field = fields.text("target", 100);
    goal.limit_ms = fields.number("limit_ms", 0.001, 1e9);
    for (const char* what : {"ttft", "tpot", "e2e"})
      if (goal.field.find(what) != std::string::npos) goal.what = what;
    for (const int percent : {50, 90, 95, 99})
      if (goal.field.find("_p" + std::to_string(percent)) != std::string::npos) goal.quantile = percent / 100.0;
    if (!goal.what.empty()) target.goals.push_back(goal);
  }
}

void read_compliance(const ordered_json& needs, Target& target, std::vector<Status>& errors) {
  Fields fields(needs, "compliance.", errors);
  ComplianceNeeds& out = target.compliance;
  const ordered_json* names = fields.find("regulations");
  if (names == nullptr || !names->is_array() || names->size() > 16)
    return fields.bad("regulations", "must be a list of names");
  for (const ordered_json& name : *names) {
    const std::string text = name.is_string() ? name.get<std::string>() : "";
    if (text.empty() || text.size() > 20 ||
        !std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isalnum(c) != 0; }))
      return fields.bad("regulations", "must be names such as gdpr");
    out.regulations.push_back(text);
  }
  out.audit_retention_days = fields.whole("audit_retention_days", 0, 36500, 0);
  if (const ordered_json* days = fields.find("content_retention_days_max"); days != nullptr && !days->is_null())
    out.content_retention_days_max = fields.whole("content_retention_days_max", 0, 36500, 0);
  const ordered_json* transit = fields.find("encryption_in_transit");
  out.encryption_in_transit = transit != nullptr && transit->is_boolean() && transit->get<bool>();
}

// The server in the pod speaks HTTP: what comes from outside the cluster ends its TLS before it.
void check_encryption(const Target& target, std::vector<Status>& errors) {
  const Options& o = target.options;
  if (!target.compliance.encryption_in_transit) return;
  const std::string why = ": the plan's compliance (" + target.compliance.names() + ") asks for encryption in transit";
  if (o.service_type != "ClusterIP")
    errors.push_back(invalid_argument(
        "service_type must be ClusterIP, with expose ingress or gateway and a tls_secret" + why, "service_type"));
  if (o.expose != "none" && o.tls_secret.empty())
    errors.push_back(invalid_argument("tls_secret must be set with expose " + o.expose + why, "tls_secret"));
}

void resolve_names(Target& target) {
  Options& o = target.options;
  if (o.name.empty()) o.name = slug_of(target.model_id);
  if (o.image.empty())
    o.image = target.ours() ? "sextant:" + (target.version.empty() ? std::string("latest") : target.version)
                            : "vllm/vllm-openai:v0.33.0";
  if (o.gpu_product.empty()) o.gpu_product = gpu_product_of(target.gpu);
  if (o.gpu_product == "none") o.gpu_product.clear();
}

void resolve_scaling(Target& target, bool plan_scales, std::vector<Status>& errors) {
  Options& o = target.options;
  if (o.kind == "auto") o.kind = target.num_nodes > 1 ? "lws" : "deployment";
  if (o.autoscaler == "auto") o.autoscaler = plan_scales ? "hpa" : "none";
  if (o.min_replicas == 0) o.min_replicas = std::min<int64_t>(3, target.replicas);
  if (o.max_replicas == 0) o.max_replicas = std::max<int64_t>({20, (target.replicas * 3 + 1) / 2, o.min_replicas});
  const auto refuse = [&](const char* key, const std::string& why) {
    errors.push_back(invalid_argument(std::string(key) + " must be " + why, key));
  };
  if (o.max_replicas < o.min_replicas) refuse("max_replicas", "at least min_replicas");
  if (target.num_nodes > 1 && o.kind != "lws")
    refuse("kind", "lws: a replica of this plan needs " + std::to_string(target.num_nodes) + " nodes");
  if (o.kind == "lws" && target.simulate()) refuse("kind", "deployment with simulate");
  if (o.kind == "lws" && o.spot_percent > 0) refuse("spot_percent", "0 with kind lws: a group is lost whole");
  if (o.kind == "llmisvc")
    target.notes.emplace_back(
        "LLMInferenceService is merged over KServe's own preset (model folder, port, TLS, probes): its schema was "
        "checked, a cluster was not tried");
  if (!target.ours() && o.kind == "lws" && target.num_nodes > 1)
    target.notes.emplace_back(
        "vLLM's processes of one group talk unencrypted and trust one another: keep the network policy, which lets "
        "in only the group's own pods");
  if (o.kind == "llmisvc" && o.autoscaler == "hpa")
    target.notes.emplace_back(
        "LLMInferenceService has no /scale: it scales by its own `scaling`, which needs KServe's autoscaler");
  if (o.kind == "kserve" && o.rollout == "canary") {
    o.autoscaler = "none";
    target.notes.emplace_back("a canary of KServe needs its Knative mode, which scales by itself: no HPA is emitted");
    target.notes.emplace_back(
        "Knative must allow what the pod names: in ConfigMap config-features set kubernetes.podspec-affinity, "
        "-tolerations, "
        "-topologyspreadconstraints, -init-containers, -securitycontext and -volumes-emptydir to enabled");
  }
  if (o.inference_pool)
    target.notes.push_back("the InferencePool asks the end point picker at Service " + o.name +
                           "-epp, port 9002, which is not in these files: install one for the pool " + o.name +
                           " (llm-d-router has the picker), without a second InferencePool of that name");
  if (o.expose == "istio")
    target.notes.emplace_back("Istio's objects are not validated: no schema of theirs is checked");
  if (target.uses_gpus() && target.options.runtime == "vllm" && o.autoscaler != "none")
    target.notes.emplace_back(
        "vLLM exports no GPU utilisation: NVIDIA's dcgm-exporter must be scraped, with labels namespace and pod");
}

// What these files take for granted about a cluster that the plan says nothing of.
void add_assumptions(const Options& given, Target& target) {
  const Options& o = target.options;
  const auto note = [&](const std::string& text) { target.notes.push_back("assumed: " + text); };
  if (given.image.empty())
    note("image " + o.image +
         (target.ours() ? ", which names no registry: push it where the nodes can pull it, and name it with --image"
                        : ": name the tag that you have tried with --image"));
  if (target.uses_gpus() && target.gpu_resource_is_nvidia()) {
    if (o.gpu_product.empty())
      note("nothing is known of how nodes with " + target.gpu +
           " are labelled: any node with GPUs will do, unless --gpu-product says more");
    else if (given.gpu_product.empty())
      note("nodes carry the label nvidia.com/gpu.product=" + o.gpu_product +
           ", as NVIDIA's GPU feature discovery writes it (`kubectl get nodes -L nvidia.com/gpu.product` shows); "
           "--gpu-product names another, and none does without");
  }
  if (target.spot_replicas() > 0 && given.spot_label == Options().spot_label)
    note("spot nodes carry the label and taint " + o.spot_label + "; --spot-label names the cloud's own");
  if (!target.simulate())
    note("weights come over the network at " + nlohmann::json(o.download_gb_per_s).dump() +
         " GB/s (--download-gb-per-s) and from the volume at " + nlohmann::json(o.load_gb_per_s).dump() +
         " GB/s (--load-gb-per-s); probes wait twice as long");
  if (o.expose == "gateway" && o.ingress_class.empty())
    note("a GatewayClass `gateway`: name the cluster's own with --ingress-class");
}

}  // namespace

std::string ComplianceNeeds::names() const {
  std::string out;
  for (const std::string& name : regulations) out += (out.empty() ? "" : ", ") + name;
  return out;
}

double Target::error_budget() const { return std::round((100 - availability_pct) * 1e7) / 1e9; }

int64_t Target::spot_replicas() const {
  if (options.spot_percent <= 0) return 0;
  // At least one replica stays on demand: the floor.
  return std::min(replicas - 1, (replicas * options.spot_percent + 50) / 100);
}

std::string slug_of(const std::string& text) {
  const size_t slash = text.rfind('/');
  std::string out;
  for (char c : slash == std::string::npos ? text : text.substr(slash + 1)) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
    const bool kept = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
    if (kept)
      out += c;
    else if (!out.empty() && out.back() != '-')
      out += '-';
  }
  if (out.empty() || (out[0] >= '0' && out[0] <= '9')) out.insert(0, "model-");
  out.resize(std::min<size_t>(out.size(), 40));
  while (!out.empty() && out.back() == '-') out.pop_back();
  return out;
}

Result<ordered_json> parse_plan(std::string_view text) {
  if (text.size() > kMaxPlanBytes) return invalid_argument("the plan is larger than 16 MiB");
  bool deep = false;
  ordered_json plan = ordered_json::parse(
      text,
      [&](int depth, ordered_json::parse_event_t, ordered_json&) {
        deep = deep || depth > kMaxDepth;
        return !deep;
      },
      false);
  if (deep) return invalid_argument("the plan is nested deeper than " + std::to_string(kMaxDepth));
  if (plan.is_discarded()) return invalid_argument("the plan is not JSON in UTF-8");
  return plan;
}

std::vector<Status> read_target(const ordered_json& given, const Options& options, Target& target) {
  std::vector<Status> errors = options.validate();
  target.options = options;
  const auto stop = [&](const std::string& message, const std::string& field) {
    errors.push_back(invalid_argument(message, field));
    return errors;
  };
  if (!given.is_object() || given.value("schema", ordered_json()) != advisor::kPlanSchema)
    return stop(
        std::string("plan: schema must be ") + advisor::kPlanSchema + ", as `sextant advise plan --json` prints it",
        "schema");
  const ordered_json* plan = &given;
  if (const auto parts = given.find("parts"); parts != given.end() && parts->is_array() && !parts->empty()) {
    if (options.part < 1 || options.part > static_cast<int64_t>(parts->size()))
      return stop("part must be from 1 to " + std::to_string(parts->size()) + ": this plan is of several models",
                  "part");
    const ordered_json& part = (*parts)[static_cast<size_t>(options.part - 1)];
    const auto inner = part.is_object() ? part.find("plan") : part.end();
    if (!part.is_object() || inner == part.end() || !inner->is_object())
      return stop("plan: parts must each have a plan", "parts");
    plan = &*inner;
  } else if (options.part > 1) {
    return stop("part must be 1: this plan is of one model", "part");
  }
  const auto found = plan->find("options");
  if (found == plan->end() || !found->is_array()) return stop("plan: options must be a list", "options");
  if (found->empty())
    return stop("plan: options is empty: nothing meets its spec, so there is nothing to deploy; `rejected` says why",
                "options");
  if (options.option < 1 || options.option > static_cast<int64_t>(found->size()))
    return stop("option must be from 1 to " + std::to_string(found->size()) + ", the options that the plan has",
                "option");
  target.option = (*found)[static_cast<size_t>(options.option - 1)];
  if (!target.option.is_object()) return stop("plan: options must be objects", "options");
  target.specification = plan->value("specification", ordered_json::object());

  Fields of_plan(*plan, "", errors);
  target.plan_id = of_plan.text("plan_id", 100, "");
  target.title = of_plan.text("title", 4000, "");
  target.version = of_plan.text("version", 40, "");
  if (const ordered_json* needs = of_plan.find("compliance")) read_compliance(*needs, target, errors);
  target.as_of = of_plan.text("as_of", 40, "");
  const std::string at = "options[" + std::to_string(options.option - 1) + "].";
  Fields fields(target.option, at, errors);
  target.model_id = fields.text("model_id", 300);
  if (target.model_id.starts_with("-")) fields.bad("model_id", "must not begin with '-': it becomes an argument");
  target.quantization = fields.text("quantization", 60, "");
  target.gpu = fields.text("gpu", 100);
  target.planned_engine = fields.text("engine", 60, "");
  target.tensor_parallel = fields.whole("tensor_parallel", 1, 1024, 1);
  target.pipeline_parallel = fields.whole("pipeline_parallel", 1, 1024, 1);
  target.expert_parallel = fields.whole("expert_parallel", 1, 1024, 1);
  target.replicas = fields.whole("replicas", 1, 10000);
  target.max_num_seqs = fields.whole("max_num_seqs", 1, 1 << 20, 256);
  int64_t gpus_per_instance = target.gpus_per_replica();
  double usd_per_instance_hour = 0;
  if (const ordered_json* sites = fields.find("sites"); sites != nullptr && sites->is_array() && !sites->empty()) {
    size_t chosen = 0;
    std::string names;
    bool known = options.region.empty() && sites->size() == 1;
    for (size_t i = 0; i < sites->size(); ++i) {
      const ordered_json& site = (*sites)[i];
      const std::string name =
          site.is_object() && site.value("region", ordered_json()).is_string() ? site["region"].get<std::string>() : "";
      names += (names.empty() ? "" : ", ") + name;
      if (!options.region.empty() && name == options.region) chosen = i, known = true;
    }
    if (!known) return stop("region must be one of the plan's: " + names, "region");
    Fields site((*sites)[chosen], at + "sites[" + std::to_string(chosen) + "].", errors);
    target.region = site.text("region", 200, "");
    target.provider = site.text("provider", 200, "");
    target.instance = site.text("instance", 200, "");
    target.peak_rps = site.number("peak_rps", 0, 1e12, 0);
    gpus_per_instance = site.whole("gpus_per_instance", 1, 1024, gpus_per_instance);
    usd_per_instance_hour = site.number("usd_per_instance_hour", 0, 1e9, 0);
    target.replicas = site.whole("replicas_needed", 1, 10000, target.replicas) + site.whole("spares", 0, 10000, 0);
  } else if (!options.region.empty()) {
    return stop("region must be empty: the plan has none", "region");
  }
  const int64_t ranks = target.gpus_per_replica();
  target.gpus_per_node = std::min(ranks, gpus_per_instance);
  if (ranks % target.gpus_per_node != 0)
    fields.bad("tensor_parallel",
               "x pipeline_parallel must fill whole nodes of " + std::to_string(gpus_per_instance) + " GPUs");
  target.num_nodes = std::max<int64_t>(1, ranks / target.gpus_per_node);
  target.usd_per_replica_hour =
      usd_per_instance_hour / static_cast<double>(gpus_per_instance) * static_cast<double>(ranks);
  if (const ordered_json* host = fields.find("host_per_replica")) {
    Fields of_host(*host, at + "host_per_replica.", errors);
    target.cpus = of_host.whole("cpus", 1, 4096, 8);
    target.memory_gib = static_cast<int64_t>(std::ceil(of_host.number("memory_gib", 0.1, 65536, 32)));
  }
  target.cpus = (target.cpus + target.num_nodes - 1) / target.num_nodes;
  target.memory_gib = (target.memory_gib + target.num_nodes - 1) / target.num_nodes;
  if (const ordered_json* memory = fields.find("memory_per_gpu_gib")) {
    Fields of_memory(*memory, at + "memory_per_gpu_gib.", errors);
    target.weights_gib = of_memory.number("weights", 0, 65536, 0) * static_cast<double>(ranks);
  }
  const auto rate = [&](const char* key) {
    const ordered_json* operation = fields.find(key);
    return operation == nullptr
               ? 0.0
               : Fields(*operation, at + key + std::string("."), errors).number("requests_per_s", 0, 1e12, 0);
  };
  target.peak_rps_per_replica = rate("at_peak_per_replica");
  target.limit_rps_per_replica = rate("limit_per_replica");
  if (const ordered_json* cost = fields.find("cost"))
    target.usd_per_month = Fields(*cost, at + "cost.", errors).number("usd_per_month", 0, 1e15, 0);
  read_goals(target.option, target, errors);

  const ordered_json& spec = target.specification;
  target.max_model_len = static_cast<int64_t>(std::ceil(spec_number(spec, {"max_context_tokens"}, 0, 0, 1e9)));
  target.availability_pct = spec_number(spec, {"reliability_target"}, 99.9, 50, 99.9999);
  target.zones = static_cast<int64_t>(spec_number(spec, {"zones"}, 1, 1, 100));
  if (target.options.spot_percent < 0)
    target.options.spot_percent = target.options.kind == "auto" || target.options.kind == "deployment"
                                      ? std::lround(100 * spec_number(spec, {"pricing", "spot_share"}, 0, 0, 1))
                                      : 0;
  const ordered_json* scales = spec_value(spec, {"autoscaling", "enabled"});
  const bool plan_scales = scales == nullptr || !scales->is_boolean() || scales->get<bool>();
  if (!errors.empty()) return errors;

  const double seconds = target.simulate() ? 0 : target.weights_gib * 1.073741824 / options.load_gb_per_s;
  target.load_seconds = std::ceil(target.simulate() ? 5 : kStartSeconds + seconds);
  target.download_seconds =
      target.simulate() ? 0 : std::ceil(target.weights_gib * 1.073741824 / options.download_gb_per_s);
  if (target.download_seconds > 86400)
    errors.push_back(
        invalid_argument("download_gb_per_s must be larger: " + std::to_string(std::lround(target.weights_gib)) +
                             " GiB of weights would take more than a day",
                         "download_gb_per_s"));
  if (target.load_seconds > 36000) {
    errors.push_back(
        invalid_argument("load_gb_per_s must be larger: " + std::to_string(std::lround(target.weights_gib)) +
                             " GiB of weights would take more than ten hours",
                         "load_gb_per_s"));
  }
  if (!errors.empty()) return errors;
  if (target.num_nodes > 1 && target.options.kind == "auto" && options.spot_percent < 0)
    target.options.spot_percent = 0;
  resolve_names(target);
  check_encryption(target, errors);
  resolve_scaling(target, plan_scales, errors);
  if (errors.empty()) add_assumptions(options, target);
  if (target.planned_engine != options.runtime && !target.planned_engine.empty())
    target.notes.push_back("the plan's latencies and sizes were predicted for " + target.planned_engine +
                           "; this runs " + options.runtime +
                           ": measure it with `sextant bench serve` before relying on them");
  return errors;
}

std::vector<Choice> choices_of(const ordered_json& plan, const Options& options) {
  std::vector<Choice> out;
  const auto add_regions = [&](const ordered_json& inner, const Options& with, const std::string& folder) {
    const auto list = inner.is_object() ? inner.find("options") : inner.end();
    const ordered_json* sites = nullptr;
    const auto index = static_cast<size_t>(std::max<int64_t>(with.option, 1) - 1);
    if (inner.is_object() && list != inner.end() && list->is_array() && index < list->size() &&
        (*list)[index].is_object())
      if (const auto at = (*list)[index].find("sites"); at != (*list)[index].end() && at->is_array()) sites = &*at;
    if (sites == nullptr || sites->size() < 2 || !with.region.empty()) {
      out.push_back({folder, with});
      return;
    }
    for (const ordered_json& site : *sites) {
      Choice choice{folder, with};
      if (site.is_object() && site.value("region", ordered_json()).is_string())
        choice.options.region = site["region"].get<std::string>();
      choice.folder += (folder.empty() ? "" : "/") + slug_of(choice.options.region);
      out.push_back(std::move(choice));
    }
  };
  const auto parts = plan.is_object() ? plan.find("parts") : plan.end();
  if (!plan.is_object() || parts == plan.end() || !parts->is_array() || parts->empty() || options.part > 0) {
    add_regions(plan, options, "");
    return out;
  }
  for (size_t i = 0; i < parts->size(); ++i) {
    Options with = options;
    with.part = static_cast<int64_t>(i + 1);
    const ordered_json& part = (*parts)[i];
    const std::string model = part.is_object() && part.value("model_id", ordered_json()).is_string()
                                  ? part["model_id"].get<std::string>()
                                  : "";
    add_regions(part.is_object() && part.contains("plan") ? part["plan"] : ordered_json(), with,
                std::to_string(i + 1) + "-" + slug_of(model));
  }
  return out;
}

}  // namespace sextant::deploy

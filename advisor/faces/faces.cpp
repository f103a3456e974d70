#include "advisor/faces/faces.h"

#include <algorithm>
#include <cmath>
#include <ctime>
#include <exception>
#include <set>

#include "advisor/kb/importers.h"
#include "advisor/plan/plan.h"
#include "advisor/report/plan_json.h"
#include "engine/base/log.h"

namespace sextant::advisor {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr size_t kMaxBody = 1 << 20;
constexpr const char* kKbPath = "/advisor/v1/kb/";

std::string dumped(const ordered_json& value) {
  return value.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

int status_of(const std::vector<Status>& errors) {
  for (const Status& error : errors) {
    if (error.code() == StatusCode::kTooLarge) return 413;
    if (error.code() == StatusCode::kUnavailable) return 503;
    if (error.code() != StatusCode::kInvalidArgument && error.code() != StatusCode::kNotFound &&
        error.code() != StatusCode::kUnsupported)
      return 500;
  }
  return 0;
}

// What is not even of the form is 400; what is, and still makes no sense together or names nothing known, is 422.
FaceAnswer refused(const std::vector<Status>& errors, bool well_formed) {
  const int status = status_of(errors);
  return error_answer(status != 0 ? status : well_formed ? 422 : 400, errors);
}

bool is_semantic(const Status& status) {
  return status.code() == StatusCode::kNotFound || status.error_code() == "contradiction" ||
         status.error_code() == "semantic" || status.error_code() == "no_such_day";
}

Status closed(const json& body, std::initializer_list<const char*> names) {
  if (!body.is_object()) return invalid_argument("the body must be a JSON object");
  for (const auto& entry : body.items()) {
    const std::string& key = entry.key();
    if (std::find_if(names.begin(), names.end(), [&](const char* n) { return key == n; }) == names.end())
      return invalid_argument(key.substr(0, 80) + " is not a field of this request", key.substr(0, 80));
  }
  return ok_status();
}

std::string decoded(std::string_view text) {
  std::string out;
  const auto digit = [](char c) {
    return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
  };
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && digit(text[i + 1]) >= 0 && digit(text[i + 2]) >= 0) {
      out += static_cast<char>(digit(text[i + 1]) * 16 + digit(text[i + 2]));
      i += 2;
    } else {
      out += text[i] == '+' ? ' ' : text[i];
    }
  }
  return out;
}

}  // namespace

FaceAnswer error_answer(int status, const std::vector<Status>& errors) {
  ordered_json details = ordered_json::array();
  const auto maybe = [](const std::string& text) { return text.empty() ? ordered_json(nullptr) : ordered_json(text); };
  for (const Status& error : errors)
    details.push_back(
        {{"message", error.message()}, {"param", maybe(error.param())}, {"code", maybe(error.error_code())}});
  const Status& first = errors.front();
  return {status, dumped({{"error",
                           {{"message", first.message()},
                            {"type", status >= 500 ? "server_error" : "invalid_request_error"},
                            {"param", maybe(first.param())},
                            {"code", maybe(first.error_code())},
                            {"details", details}}}})};
}

const std::vector<Faces::Route>& Faces::routes() {
  static const std::vector<Route> all = {{"POST", "/advisor/v1/specification"},
                                         {"POST", "/advisor/v1/predict"},
                                         {"POST", "/advisor/v1/recommendations"},
                                         {"POST", "/advisor/v1/compare"},
                                         {"GET", "/advisor/v1/kb/benchmarks"},
                                         {"POST", "/advisor/v1/kb/benchmarks"},
                                         {"GET", "/advisor/v1/kb/gpus"},
                                         {"POST", "/advisor/v1/kb/gpus"},
                                         {"GET", "/advisor/v1/kb/prices"},
                                         {"POST", "/advisor/v1/kb/prices"},
                                         {"GET", "/advisor/v1/kb/models"},
                                         {"POST", "/advisor/v1/kb/models"},
                                         {"GET", "/advisor/v1/kb/use-cases"},
                                         {"POST", "/advisor/v1/kb/use-cases"},
                                         {"GET", "/advisor/v1/kb/outcomes"},
                                         {"POST", "/advisor/v1/kb/outcomes"},
                                         {"GET", "/api/data/health"},
                                         {"GET", "/advisor/v1/openapi.json"}};
  return all;
}

Status Faces::open_locked() {
  if (kb_) return ok_status();
  Result<KnowledgeBase> kb = KnowledgeBase::open(options_.kb_location);
  if (!kb.ok()) return Status(StatusCode::kUnavailable, kb.status().message());
  kb_.emplace(std::move(kb).value());
  return ok_status();
}

Result<HealthReport> Faces::check() {
  const std::lock_guard lock(mutex_);
  RETURN_IF_ERROR(open_locked());
  ASSIGN_OR_RETURN(const KbSnapshot snapshot, read_snapshot(*kb_));
  return check_health(snapshot, options_.today());
}

Result<std::optional<std::string>> Faces::find_plan(const std::string& id) {
  const std::lock_guard lock(mutex_);
  RETURN_IF_ERROR(open_locked());
  return kb_->find_plan(id, std::time(nullptr));
}

Status Faces::open() { return world().status(); }

Result<std::shared_ptr<const World>> Faces::world() { return world_of("", std::nullopt); }

Result<std::shared_ptr<const World>> Faces::world_of(const std::string& as_of, std::optional<int64_t> revision) {
  const std::lock_guard lock(mutex_);
  RETURN_IF_ERROR(open_locked());
  const Result<int64_t> now = kb_->revision();
  if (!now.ok()) {
    kb_.reset();  // a database that went away is opened again by the next request
    return Status(StatusCode::kUnavailable, now.status().message());
  }
  const std::string date = as_of.empty() ? options_.today() : as_of;
  const int64_t wanted = revision.value_or(*now);
  if (world_ != nullptr && world_->snapshot.revision == wanted && world_->as_of == date) return world_;
  ASSIGN_OR_RETURN(std::unique_ptr<const World> loaded, load_world(*kb_, {.as_of = date,
                                                                          .version = options_.version,
                                                                          .cache_directory = options_.cache_directory,
                                                                          .revision = wanted}));
  std::shared_ptr<const World> world(std::move(loaded));
  if (!revision && as_of.empty()) world_ = world;
  return world;
}

FaceAnswer Faces::answer(const FaceRequest& request) {
  try {
    return handle(request);
  } catch (const std::exception& error) {
    return error_answer(500, {internal_error(std::string("the request could not be answered: ") + error.what())});
  }
}

FaceAnswer Faces::handle(const FaceRequest& request) {
  if (request.path == "/advisor/v1/openapi.json") return {200, dumped(openapi_document(options_.version))};
  if (request.path == "/api/data/health") return health();
  const std::string name = request.path.starts_with(kKbPath) ? request.path.substr(std::string(kKbPath).size()) : "";
  const std::optional<KbKind> kind = parse_kb_kind(name);
  if (request.method == "GET" || request.method == "HEAD")
    return kind ? list(*kind, request.query) : error_answer(404, {not_found("no such route")});
  json body;
  if (Status status = parse_closed_json(request.body, kMaxBody, body); !status.ok()) return refused({status}, false);
  if (kind) return add(*kind, body);
  if (request.path == "/advisor/v1/specification") return specification(body);
  if (request.path == "/advisor/v1/predict") return predict(body);
  if (request.path == "/advisor/v1/recommendations") return recommendations(body);
  if (request.path == "/advisor/v1/compare") return compare(body);
  return error_answer(404, {not_found("no such route")});
}

FaceAnswer Faces::specification(const json& body) {
  const auto loaded = world();
  if (!loaded.ok()) return refused({loaded.status()}, true);
  Spec spec;
  const auto errors = read_spec_object(body, (*loaded)->use_cases, spec);
  if (!errors.empty()) return refused(errors, std::all_of(errors.begin(), errors.end(), is_semantic));
  return {200, dumped({{"spec", spec.as_given()}, {"specification", spec.completed()}})};
}

FaceAnswer Faces::recommendations(const json& body) {
  if (Status status = closed(body, {"spec", "solve_for", "as_of", "kb_revision"}); !status.ok())
    return refused({status}, false);
  if (!body.contains("spec")) return refused({invalid_argument("spec is needed", "spec")}, false);
  PlanRequest request;
  if (const json questions = body.value("solve_for", json::array()); questions.is_array()) {
    const auto& known = known_questions();
    for (const json& question : questions) {
      if (!question.is_string() || std::find(known.begin(), known.end(), question.get<std::string>()) == known.end() ||
          request.solve_for.size() >= known.size())
        return refused({invalid_argument("solve_for must be a list of gpus, max_rate, max_users, max_context and "
                                         "cheapest_slo_relaxation",
                                         "solve_for")},
                       false);
      request.solve_for.push_back(question.get<std::string>());
    }
  } else {
    return refused({invalid_argument("solve_for must be a list", "solve_for")}, false);
  }
  std::string as_of;
  if (body.contains("as_of")) {
    if (!body["as_of"].is_string() || !is_date(body["as_of"].get<std::string>()))
      return refused({invalid_argument("as_of must be a date like 2026-01-31", "as_of")},
                     body["as_of"].is_string() && body["as_of"].get_ref<const std::string&>().size() == 10);
    as_of = body["as_of"].get<std::string>();
  }
  std::optional<int64_t> revision;
  if (body.contains("kb_revision")) {
    const json& given = body["kb_revision"];
    const double number = given.is_number() ? given.get<double>() : 0;
    if (!(number >= 1 && number <= 1e9) || number != std::floor(number))
      return refused({invalid_argument("kb_revision must be a whole number from 1 to 1000000000", "kb_revision")},
                     false);
    revision = static_cast<int64_t>(number);
  }
  const auto loaded = world_of(as_of, revision);
  if (!loaded.ok()) return refused({loaded.status()}, true);
  const auto errors = read_spec_object(body["spec"], (*loaded)->use_cases, request.spec);
  if (!errors.empty()) return refused(errors, std::all_of(errors.begin(), errors.end(), is_semantic));
  const auto plan = make_plan(**loaded, request);
  if (!plan.ok()) return refused({plan.status()}, true);
  FaceAnswer answer{200, dumped(*plan)};
  // The answer does not depend on it: a plan that could not be kept can be sent whole.
  const std::lock_guard lock(mutex_);
  if (Status status = open_locked(); status.ok())
    if (status = kb_->keep_plan((*plan)["plan_id"].get<std::string>(), answer.body, std::time(nullptr)); !status.ok())
      LOG_WARNING << "a plan was not kept for its id: " << status.message();
  return answer;
}

FaceAnswer Faces::compare(const json& body) {
  if (Status status = closed(body, {"scenarios"}); !status.ok()) return refused({status}, false);
  const json scenarios = body.value("scenarios", json());
  if (!scenarios.is_array() || scenarios.size() < 2 || scenarios.size() > 8)
    return refused({invalid_argument("scenarios must be a list of 2 to 8", "scenarios")}, false);
  const auto loaded = world();
  if (!loaded.ok()) return refused({loaded.status()}, true);
  std::vector<std::pair<std::string, ordered_json>> plans;
  std::vector<PlanRequest> requests;
  std::vector<std::string> names;
  for (size_t i = 0; i < scenarios.size(); ++i) {
    const std::string at = "scenarios[" + std::to_string(i) + "]";
    if (Status status = closed(scenarios[i], {"name", "spec"}); !status.ok())
      return refused({invalid_argument(at + ": " + status.message(), at)}, false);
    const json name = scenarios[i].value("name", json());
    if (!name.is_string() || name.get_ref<const std::string&>().empty() ||
        name.get_ref<const std::string&>().size() > 400)
      return refused({invalid_argument(at + ".name must be a text of 1 to 100 characters", at + ".name")}, false);
    PlanRequest request;
    const auto errors = read_spec_object(scenarios[i].value("spec", json()), (*loaded)->use_cases, request.spec);
    if (!errors.empty()) return refused(errors, std::all_of(errors.begin(), errors.end(), is_semantic));
    requests.push_back(std::move(request));
    names.push_back(name.get<std::string>());
  }
  for (size_t i = 0; i < requests.size(); ++i) {
    auto plan = make_plan(**loaded, requests[i]);
    if (!plan.ok()) return refused({plan.status()}, true);
    plans.emplace_back(names[i], *std::move(plan));
  }
  return {200, dumped(compare_plans(plans))};
}

FaceAnswer Faces::predict(const json& body) {
  static const std::set<std::string> texts = {"model_id", "gpu", "engine", "engine_version", "quantization"};
  const ordered_json schema = prediction_schema();
  if (!body.is_object()) return refused({invalid_argument("the body must be a JSON object")}, false);
  for (const auto& [key, value] : body.items()) {
    if (!schema["properties"].contains(key))
      return refused({invalid_argument(key.substr(0, 80) + " is not a field of this request", key.substr(0, 80))},
                     false);
    if (texts.count(key) > 0) {
      if (!value.is_string() || value.get_ref<const std::string&>().empty() ||
          value.get_ref<const std::string&>().size() > 800)
        return refused({invalid_argument(key + " must be a text of 1 to 200 characters", key)}, false);
      continue;
    }
    const bool is_list = key == "concurrency";
    const json items = is_list ? value : json::array({value});
    const ordered_json& limits = is_list ? schema["properties"][key]["items"] : schema["properties"][key];
    if (!items.is_array() || items.empty() || items.size() > 20)
      return refused({invalid_argument(key + " must be a list of 1 to 20 whole numbers", key)}, false);
    for (const json& item : items) {
      const double low = limits["minimum"].get<double>();
      const double high = limits["maximum"].get<double>();
      const double x = item.is_number() ? item.get<double>() : -1;
      if (!(x >= low && x <= high) || x != std::floor(x))
        return refused({invalid_argument(key + " must be a whole number from " + dumped(limits["minimum"]) + " to " +
                                             dumped(limits["maximum"]),
                                         key)},
                       false);
    }
  }
  for (const char* needed : {"model_id", "gpu"})
    if (!body.contains(needed)) return refused({invalid_argument(std::string(needed) + " is needed", needed)}, false);
  const auto loaded = world();
  if (!loaded.ok()) return refused({loaded.status()}, true);
  const World& world = **loaded;
  ServingPoint p;
  p.model_id = body["model_id"].get<std::string>();
  p.gpu = body["gpu"].get<std::string>();
  p.engine = body.value("engine", "vllm");
  p.engine_version = body.value("engine_version", "");
  p.gemm_quant = p.moe_quant = body.value("quantization", "bf16");
  p.tensor_parallel = body.value("tensor_parallel", 1.0);
  p.moe_expert_parallel = body.value("expert_parallel", 1.0);
  p.moe_tensor_parallel = std::max(1.0, std::floor(p.tensor_parallel / p.moe_expert_parallel));
  p.prompt_tokens = body.value("prompt_tokens", 1024.0);
  p.output_tokens = body.value("output_tokens", 256.0);
  FitInputs in;
  in.model_id = p.model_id;
  in.gpu = p.gpu;
  in.quantization = p.gemm_quant;
  in.tensor_parallel = p.tensor_parallel;
  in.context_tokens = p.prompt_tokens + p.output_tokens;
  const auto fit = memory_fit(in, world.snapshot.facts, world.snapshot.gpus);
  if (!fit.ok()) return refused({fit.status()}, true);
  std::vector<double> loads = body.value("concurrency", std::vector<double>{1, 8, 32, 128});
  std::sort(loads.begin(), loads.end());
  loads.erase(std::unique(loads.begin(), loads.end()), loads.end());
  std::vector<Prediction> ttft, tpot;
  for (const double load : loads) {
    p.concurrency = load;
    const auto first = world.predictor().predict(Metric::kTtft, p);
    const auto each = world.predictor().predict(Metric::kTpot, p);
    if (!first.ok() || !each.ok()) return refused({first.ok() ? each.status() : first.status()}, true);
    ttft.push_back(*first);
    tpot.push_back(*each);
  }
  order_by_load(ttft);
  order_by_load(tpot);
  ordered_json rows = ordered_json::array();
  const auto figure = [](const Prediction& x) {
    return ordered_json{{"mean_ms", shown(x.mean)},
                        {"low90_ms", shown(x.low)},
                        {"high90_ms", shown(x.high)},
                        {"provenance", provenance_name(x.provenance)}};
  };
  for (size_t i = 0; i < loads.size(); ++i) {
    const double answer = ttft[i].mean + (p.output_tokens - 1) * tpot[i].mean;
    rows.push_back({{"concurrency", loads[i]},
                    {"fits", loads[i] <= fit->sequences},
                    {"ttft", figure(ttft[i])},
                    {"tpot", figure(tpot[i])},
                    {"e2e_mean_ms", shown(answer)},
                    {"requests_per_s", shown(loads[i] / answer * 1000)}});
  }
  return {200, dumped({{"schema", "sextant.prediction/1"},
                       {"kb_revision", world.kb_revision},
                       {"fits", fit->fits()},
                       {"reason", fit->reason.empty() ? ordered_json(nullptr) : ordered_json(fit->reason)},
                       {"max_sequences", fit->sequences},
                       {"loads", rows}})};
}

FaceAnswer Faces::health() {
  const auto loaded = world();
  if (!loaded.ok()) return refused({loaded.status()}, true);
  return {200, dumped(to_json((*loaded)->health))};
}

FaceAnswer Faces::list(KbKind kind, const std::string& query) {
  size_t limit = 20;
  std::string after;
  std::set<std::string> seen;
  for (size_t begin = 0; begin < query.size();) {
    const size_t end = std::min(query.find('&', begin), query.size());
    const std::string pair = query.substr(begin, end - begin);
    begin = end + 1;
    const size_t equals = std::min(pair.find('='), pair.size());
    const std::string name = decoded(pair.substr(0, equals));
    const std::string value = equals < pair.size() ? decoded(std::string_view(pair).substr(equals + 1)) : "";
    if (pair.empty()) continue;
    if (!seen.insert(name).second)
      return refused({invalid_argument(name.substr(0, 80) + " is given twice", name.substr(0, 80))}, false);
    if (name == "limit") {
      const auto number = parse_number(value, "limit", 1, 1000);
      if (!number.ok() || *number != std::floor(*number))
        return refused({invalid_argument("limit must be a whole number from 1 to 1000", "limit")}, false);
      limit = static_cast<size_t>(*number);
    } else if (name == "after") {
      if (value.empty() || value.size() > 2048 || !is_text(value))
        return refused({invalid_argument("after must be the id of the last document of the page before", "after")},
                       false);
      after = value;
    } else {
      return refused(
          {invalid_argument(name.substr(0, 80) + " is not a parameter; known are limit and after", name.substr(0, 80))},
          false);
    }
  }
  const std::lock_guard lock(mutex_);
  if (Status status = open_locked(); !status.ok()) return refused({status}, true);
  auto documents = kb_->list(kind, limit + 1, after);
  if (!documents.ok()) return refused({documents.status()}, true);
  const bool more = documents->size() > limit;
  if (more) documents->pop_back();
  ordered_json data = ordered_json::array();
  for (const KbDocument& document : *documents) data.push_back({{"id", document.id}, {"body", document.body}});
  const ordered_json last = documents->empty() ? ordered_json(nullptr) : ordered_json(documents->back().id);
  return {200, dumped({{"object", "list"}, {"data", data}, {"has_more", more}, {"last_id", last}})};
}

FaceAnswer Faces::add(KbKind kind, const json& body) {
  const Result<KbDocument> document = checked_document(kind, body);
  if (!document.ok()) return refused({document.status()}, is_semantic(document.status()));
  const std::lock_guard lock(mutex_);
  if (Status status = open_locked(); !status.ok()) return refused({status}, true);
  const auto result = kb_->import({*document});
  if (!result.ok()) return refused({result.status()}, false);
  return {result->added > 0 ? 201 : 200, dumped({{"id", document->id},
                                                 {"added", result->added},
                                                 {"replaced", result->replaced},
                                                 {"unchanged", result->unchanged},
                                                 {"revision", result->revision}})};
}

}  // namespace sextant::advisor

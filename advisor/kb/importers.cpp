#include "advisor/kb/importers.h"

#include <cmath>
#include <cstdio>
#include <optional>

#include "advisor/embedded.h"
#include "bench/record/benchmark_record.h"

namespace sextant::advisor {
namespace {

using nlohmann::json;

// Without these nothing can be said of a model.
constexpr const char* kNeededFacts[] = {"hidden_size",         "num_hidden_layers", "num_attention_heads",
                                        "num_key_value_heads", "head_dim",          "vocab_size"};
constexpr double kLargestFact = 1e8;
constexpr const char* kMeasuredAttribution = "NVIDIA aiconfigurator 0.12.0, Apache-2.0";

enum class Type { kText, kNumber, kFlag, kDate, kTexts, kObject };
struct Field {
  const char* name;
  Type type;
  bool needed;
  double low = 0;
  double high = 1e15;
};

// The closed form of each kind. GPUs and models also carry what the readers of their rows know.
const std::vector<Field>& fields_of(KbKind kind) {
  static const std::vector<Field> benchmark = {{"schema", Type::kText, true},
                                               {"source", Type::kText, true},
                                               {"attribution", Type::kText, false},
                                               {"model_id", Type::kText, true},
                                               {"gpu", Type::kText, true},
                                               {"engine", Type::kText, true},
                                               {"engine_version", Type::kText, false},
                                               {"gemm_quant", Type::kText, false},
                                               {"moe_quant", Type::kText, false},
                                               {"tensor_parallel", Type::kNumber, true, 1, 4096},
                                               {"attention_data_parallel", Type::kNumber, false, 0, 4096},
                                               {"moe_tensor_parallel", Type::kNumber, false, 0, 4096},
                                               {"moe_expert_parallel", Type::kNumber, false, 0, 4096},
                                               {"concurrency", Type::kNumber, true, 1, 1e6},
                                               {"prompt_tokens", Type::kNumber, true, 1, 1e8},
                                               {"output_tokens", Type::kNumber, true, 1, 1e8},
                                               {"ttft_mean_ms", Type::kNumber, true, 1e-6, 1e9},
                                               {"tpot_mean_ms", Type::kNumber, true, 1e-6, 1e9},
                                               {"measured_on", Type::kDate, false}};
  static const std::vector<Field> gpu = {{"gpu", Type::kText, true},
                                         {"vendor", Type::kText, false},
                                         {"architecture", Type::kText, false},
                                         {"confidence", Type::kText, false},
                                         {"source", Type::kText, false},
                                         {"aliases", Type::kTexts, false},
                                         {"memory_gib", Type::kNumber, true, 1, 1e5},
                                         {"memory_gb_per_s", Type::kNumber, true, 1, 1e6},
                                         {"bf16_tflops", Type::kNumber, false, 0, 1e6},
                                         {"fp16_tflops", Type::kNumber, false, 0, 1e6},
                                         {"fp8_tflops", Type::kNumber, false, 0, 1e6},
                                         {"int8_tops", Type::kNumber, false, 0, 1e6},
                                         {"fp4_tflops", Type::kNumber, false, 0, 1e6},
                                         {"nvlink_gb_per_s", Type::kNumber, false, 0, 1e6},
                                         {"pcie_gb_per_s", Type::kNumber, false, 0, 1e5},
                                         {"power_w", Type::kNumber, false, 0, 1e5},
                                         {"max_tensor_parallel", Type::kNumber, false, 1, 4096},
                                         {"supported_parallelism", Type::kTexts, false}};
  static const std::vector<Field> price = {{"provider", Type::kText, true},
                                           {"instance", Type::kText, true},
                                           {"region", Type::kText, true},
                                           {"gpu", Type::kText, true},
                                           {"gpu_count", Type::kNumber, true, 1, 1024},
                                           {"on_demand_usd_per_hour", Type::kNumber, false, 0, 1e6},
                                           {"spot_usd_per_hour_low", Type::kNumber, false, 0, 1e6},
                                           {"spot_usd_per_hour_high", Type::kNumber, false, 0, 1e6},
                                           {"reserved_usd_per_hour", Type::kNumber, false, 0, 1e6},
                                           {"effective_date", Type::kText, false},
                                           {"source", Type::kText, true},
                                           {"note", Type::kText, false}};
  static const std::vector<Field> model = {{"model_id", Type::kText, true},
                                           {"architecture", Type::kText, true},
                                           {"source", Type::kText, false},
                                           {"torch_dtype", Type::kText, false},
                                           {"quantization", Type::kText, false},
                                           {"facts", Type::kObject, true},
                                           {"computed", Type::kObject, false},
                                           {"tasks", Type::kTexts, false},
                                           {"domains", Type::kTexts, false},
                                           {"quality_tier", Type::kText, false},
                                           {"quality_source", Type::kText, false},
                                           {"license", Type::kText, false},
                                           {"approved_for_production", Type::kFlag, false}};
  static const std::vector<Field> use_case = {{"use_case", Type::kText, true},
                                              {"description", Type::kText, false},
                                              {"source", Type::kText, false},
                                              {"default_slos", Type::kObject, true},
                                              {"traffic_defaults", Type::kObject, true}};
  static const std::vector<Field> outcome = {{"deployment_id", Type::kText, true},
                                             {"plan_id", Type::kText, false},
                                             {"template_id", Type::kText, false},
                                             {"model_id", Type::kText, true},
                                             {"gpu", Type::kText, true},
                                             {"gpu_count", Type::kNumber, true, 1, 1e6},
                                             {"actual_metrics", Type::kObject, true},
                                             {"slo_compliance", Type::kObject, false},
                                             {"traffic_observed", Type::kObject, false},
                                             {"deployed_on", Type::kDate, false},
                                             {"observation_period_days", Type::kNumber, false, 0, 1e5}};
  switch (kind) {
    case KbKind::kBenchmark: return benchmark;
    case KbKind::kGpu: return gpu;
    case KbKind::kPrice: return price;
    case KbKind::kModel: return model;
    case KbKind::kUseCase: return use_case;
    case KbKind::kOutcome: return outcome;
  }
  return benchmark;
}

Status wrong(const std::string& field, const std::string& what) { return invalid_argument(field + " " + what, field); }

Status check_field(const Field& field, const json& value) {
  const std::string name = field.name;
  if (value.is_null()) return field.needed ? wrong(name, "is needed") : ok_status();
  switch (field.type) {
    case Type::kText:
      if (!value.is_string() || value.get_ref<const std::string&>().size() > 2000 ||
          !is_text(value.get_ref<const std::string&>()))
        return wrong(name, "must be a text of at most 2000 bytes");
      if (field.needed && value.get_ref<const std::string&>().empty()) return wrong(name, "must not be empty");
      break;
    case Type::kNumber: {
      if (!value.is_number()) return wrong(name, "must be a number");
      const double number = value.get<double>();
      char range[80];
      std::snprintf(range, sizeof range, "must be from %g to %g", field.low, field.high);
      if (!(number >= field.low && number <= field.high)) return wrong(name, range);
      break;
    }
    case Type::kFlag:
      if (!value.is_boolean()) return wrong(name, "must be true or false");
      break;
    case Type::kDate:
      if (!value.is_string() || !is_date(value.get_ref<const std::string&>()))
        return Status(StatusCode::kInvalidArgument, name + " must be a date like 2026-01-31", name,
                      value.is_string() && value.get_ref<const std::string&>().size() == 10 ? "no_such_day" : "");
      break;
    case Type::kTexts:
      if (!value.is_array() || value.size() > 100) return wrong(name, "must be a list of at most 100 texts");
      for (const json& item : value)
        if (!item.is_string() || item.get_ref<const std::string&>().size() > 200)
          return wrong(name, "must be a list of short texts");
      break;
    case Type::kObject:
      if (!value.is_object() || value.size() > 100) return wrong(name, "must be an object");
      for (const auto& [key, item] : value.items()) {
        if (item.is_structured() || (item.is_number() && !(std::abs(item.get<double>()) <= 1e18)))
          return wrong(name + "." + key.substr(0, 60), "must be a number, text, true, false or null");
      }
      break;
  }
  return ok_status();
}

std::string text_of(const json& body, const char* name) { return body.at(name).get<std::string>(); }

json nullable(const std::string& text) { return text.empty() ? json(nullptr) : json(text); }
template <typename T>
json nullable(const std::optional<T>& value) {
  return value ? json(*value) : json(nullptr);
}

json number_or_null(const std::string& field) {
  if (field.empty()) return nullptr;
  const Result<double> number = parse_number(field, "number", -1e15, 1e15);
  return number.ok() ? json(*number) : json(field);  // what is not a number fails its check, by name
}

Result<std::vector<KbDocument>> prices_from_csv(const CsvTable& table) {
  std::vector<KbDocument> documents;
  for (size_t i = 0; i < table.rows.size(); ++i) {
    const auto cell = [&](const char* name) {
      const int column = table.column(name);
      return column < 0 ? std::string() : table.rows[i][static_cast<size_t>(column)];
    };
    const json body = {{"provider", cell("cloud")},
                       {"instance", cell("instance")},
                       {"region", cell("region")},
                       {"gpu", cell("gpu")},
                       {"gpu_count", number_or_null(cell("gpu_count"))},
                       {"on_demand_usd_per_hour", number_or_null(cell("on_demand_usd_h"))},
                       {"spot_usd_per_hour_low", number_or_null(cell("spot_usd_h_low"))},
                       {"spot_usd_per_hour_high", number_or_null(cell("spot_usd_h_high"))},
                       {"reserved_usd_per_hour", nullptr},
                       {"effective_date", nullable(cell("effective_date"))},
                       {"source", cell("source")},
                       {"note", nullable(cell("note"))}};
    Result<KbDocument> document = checked_document(KbKind::kPrice, body);
    if (!document.ok())
      return invalid_argument(
          table.source + ", line " + std::to_string(table.lines[i]) + ": " + document.status().message(),
          document.status().param());
    documents.push_back(std::move(document).value());
  }
  return documents;
}

Result<std::vector<KbDocument>> documents_from_csv(const CsvTable& table) {
  std::vector<KbDocument> documents;
  if (table.column("ttft_mean_ms") >= 0) {
    const auto points = read_serving_points(table);
    if (!points.ok()) return points.status();
    for (const ServingPoint& point : *points)
      documents.push_back(
          document_of(point, table.source == "measured_serving.csv" ? kMeasuredAttribution : table.source));
    return documents;
  }
  if (table.column("on_demand_usd_h") >= 0) return prices_from_csv(table);
  if (table.column("mem_bw_gbs") >= 0) {
    const auto gpus = GpuTable::from_csv(table, CsvTable());
    if (!gpus.ok()) return gpus.status();
    for (const auto& [name, profile] : gpus->all()) documents.push_back(document_of(profile, {}));
    return documents;
  }
  if (table.column("hidden_size") >= 0) {
    const auto facts = FactsTable::from_csv(table);
    if (!facts.ok()) return facts.status();
    for (const auto& [name, model] : facts->all()) documents.push_back(document_of(model));
    return documents;
  }
  return invalid_argument(table.source +
                          ": its header is of no known kind; known are measured serving points (ttft_mean_ms), prices "
                          "(on_demand_usd_h), GPU profiles (mem_bw_gbs) and model facts (hidden_size)");
}

Result<std::vector<KbDocument>> documents_from_lines(std::string_view text, const std::string& source) {
  std::vector<KbDocument> documents;
  int line_number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = text.substr(begin, end - begin);
    begin = end + 1;
    ++line_number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string at = source + ", line " + std::to_string(line_number) + ": ";
    const json object = json::parse(line, nullptr, false);
    if (!object.is_object()) return invalid_argument(at + "not a JSON object");
    if (object.value("schema", json()) == bench::kRecordSchema) {
      const auto record = bench::read_record(object);
      if (!record.ok()) return invalid_argument(at + record.status().message(), record.status().param());
      documents.push_back({KbKind::kBenchmark, record->record_id, object});
      continue;
    }
    const std::optional<KbKind> kind = object.contains("kind") && object["kind"].is_string()
                                           ? parse_kb_kind(object["kind"].get<std::string>())
                                           : std::nullopt;
    if (!kind || !object.contains("body"))
      return invalid_argument(at + "neither a record of " + std::string(bench::kRecordSchema) +
                              " nor a line of `sextant kb export`");
    Result<KbDocument> document = checked_document(*kind, object["body"]);
    if (!document.ok()) return invalid_argument(at + document.status().message(), document.status().param());
    documents.push_back(std::move(document).value());
  }
  if (documents.empty()) return invalid_argument(source + ": nothing to import");
  return documents;
}

}  // namespace

nlohmann::ordered_json kb_document_schema(KbKind kind) {
  using nlohmann::ordered_json;
  ordered_json properties = ordered_json::object();
  std::vector<std::string> needed;
  for (const Field& field : fields_of(kind)) {
    ordered_json s;
    // Bytes are what is limited; a character has at most four.
    if (field.type == Type::kText)
      s = {{"type", "string"}, {"minLength", field.needed ? 1 : 0}, {"maxLength", 100}, {"pattern", "^[^\\u0000]*$"}};
    if (field.type == Type::kNumber) s = {{"type", "number"}, {"minimum", field.low}, {"maximum", field.high}};
    if (field.type == Type::kFlag) s = {{"type", "boolean"}};
    if (field.type == Type::kDate) s = {{"type", "string"}, {"pattern", kDatePattern}};
    if (field.type == Type::kTexts)
      s = {{"type", "array"}, {"maxItems", 100}, {"items", {{"type", "string"}, {"maxLength", 50}}}};
    if (field.type == Type::kObject)
      s = {{"type", "object"},
           {"maxProperties", 100},
           {"additionalProperties",
            {{"anyOf",
              {{{"type", "number"}, {"minimum", -1e18}, {"maximum", 1e18}},
               {{"type", "string"}, {"maxLength", 500}},
               {{"type", "boolean"}},
               {{"type", "null"}}}}}}};
    if (kind == KbKind::kModel && std::string_view(field.name) == "facts") {
      s["required"] = std::vector<std::string>();
      for (const char* fact : kNeededFacts) {
        s["required"].push_back(fact);
        s["properties"][fact] = {{"type", "number"}, {"minimum", 1}, {"maximum", kLargestFact}};
      }
    }
    if (field.needed)
      needed.emplace_back(field.name);
    else if (s["type"].is_string())
      s["type"] = {s["type"], "null"};
    properties[field.name] = std::move(s);
  }
  return {{"type", "object"}, {"properties", properties}, {"required", needed}, {"additionalProperties", false}};
}

bool is_date(std::string_view text) {
  if (text.size() != 10 || text[4] != '-' || text[7] != '-') return false;
  const auto digits = [&](size_t at, size_t n) -> int {
    int value = 0;
    for (size_t i = at; i < at + n; ++i) {
      if (text[i] < '0' || text[i] > '9') return -1;
      value = value * 10 + (text[i] - '0');
    }
    return value;
  };
  const int year = digits(0, 4), month = digits(5, 2), day = digits(8, 2);
  if (year < 1970 || month < 1 || month > 12 || day < 1) return false;
  const int lengths[] = {
      31, year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  return day <= lengths[month - 1];
}

Result<KbDocument> checked_document(KbKind kind, const nlohmann::json& body) {
  if (!body.is_object()) return invalid_argument("a document is a JSON object", "body");
  if (kind == KbKind::kBenchmark && body.value("schema", json()) == bench::kRecordSchema) {
    const auto record = bench::read_record(body);
    if (!record.ok()) return record.status();
    return KbDocument{kind, record->record_id, body};
  }
  const std::vector<Field>& fields = fields_of(kind);
  json checked = json::object();
  for (const Field& field : fields) {
    const json value = body.contains(field.name) ? body[field.name] : json(nullptr);
    RETURN_IF_ERROR(check_field(field, value));
    checked[field.name] = value;
  }
  for (const auto& [key, value] : body.items()) {
    bool known = false;
    for (const Field& field : fields) known = known || key == field.name;
    if (!known) return wrong(key.substr(0, 60), "is no field of " + std::string(kb_kind_name(kind)));
  }
  if (kind == KbKind::kModel) {
    for (const char* fact : kNeededFacts) {
      const json value = checked["facts"].value(fact, json());
      const double number = value.is_number() ? value.get<double>() : 0;
      if (!(number >= 1 && number <= kLargestFact))
        return wrong(std::string("facts.") + fact, "is needed, a number from 1 to 1e8");
    }
  }
  std::string id;
  switch (kind) {
    case KbKind::kBenchmark: id = sha256_hex(checked.dump()); break;
    case KbKind::kGpu: id = text_of(checked, "gpu"); break;
    case KbKind::kPrice:
      id = text_of(checked, "provider") + "/" + text_of(checked, "instance") + "/" + text_of(checked, "region");
      break;
    case KbKind::kModel: id = text_of(checked, "model_id"); break;
    case KbKind::kUseCase: id = text_of(checked, "use_case"); break;
    case KbKind::kOutcome: id = text_of(checked, "deployment_id"); break;
  }
  if (id.size() > 512) return wrong("id", "is longer than 512 bytes");
  return KbDocument{kind, std::move(id), std::move(checked)};
}

KbDocument document_of(const ServingPoint& p, const std::string& attribution) {
  const json body = {{"schema", "sextant.serving-point/1"},
                     {"source", "imported"},
                     {"attribution", nullable(attribution)},
                     {"model_id", p.model_id},
                     {"gpu", p.gpu},
                     {"engine", p.engine},
                     {"engine_version", nullable(p.engine_version)},
                     {"gemm_quant", nullable(p.gemm_quant)},
                     {"moe_quant", nullable(p.moe_quant)},
                     {"tensor_parallel", p.tensor_parallel},
                     {"attention_data_parallel", p.attention_data_parallel},
                     {"moe_tensor_parallel", p.moe_tensor_parallel},
                     {"moe_expert_parallel", p.moe_expert_parallel},
                     {"concurrency", p.concurrency},
                     {"prompt_tokens", p.prompt_tokens},
                     {"output_tokens", p.output_tokens},
                     {"ttft_mean_ms", p.ttft_mean_ms},
                     {"tpot_mean_ms", p.tpot_mean_ms},
                     {"measured_on", nullable(p.measured_on)}};
  return {KbKind::kBenchmark, sha256_hex(body.dump()), body};
}

KbDocument document_of(const GpuProfile& g, const std::vector<std::string>& aliases) {
  const json body = {{"gpu", g.name},
                     {"vendor", nullable(g.vendor)},
                     {"architecture", nullable(g.architecture)},
                     {"confidence", nullable(g.confidence)},
                     {"source", nullable(g.source)},
                     {"aliases", aliases},
                     {"memory_gib", g.memory_gib},
                     {"memory_gb_per_s", g.memory_gb_per_s},
                     {"bf16_tflops", nullable(g.bf16_tflops)},
                     {"fp16_tflops", nullable(g.fp16_tflops)},
                     {"fp8_tflops", nullable(g.fp8_tflops)},
                     {"int8_tops", nullable(g.int8_tops)},
                     {"fp4_tflops", nullable(g.fp4_tflops)},
                     {"nvlink_gb_per_s", g.nvlink_gb_per_s},
                     {"pcie_gb_per_s", g.pcie_gb_per_s},
                     {"power_w", g.power_w},
                     // One host: what a tensor group spans without leaving its links.
                     {"max_tensor_parallel", g.nvlink_gb_per_s > 0 ? 8 : 4},
                     {"supported_parallelism", json::array({"tensor", "pipeline", "data", "expert"})}};
  return {KbKind::kGpu, g.name, body};
}

KbDocument document_of(const ModelFacts& f) {
  const FactCounts counts = count(f);
  json bytes = json::object();
  for (const char* q : {"bf16", "fp8", "nvfp4", "int4_wo"})
    bytes[std::string("weight_bytes_") + q] = std::round(counts.stored() * *bytes_per_parameter(q));
  bytes["parameters"] = counts.stored();
  bytes["active_parameters"] = counts.active();
  bytes["kv_bytes_per_token_bf16"] = 2 * kv_elements_per_token(f);
  json facts = {{"tie_word_embeddings", f.tie_word_embeddings},
                {"sliding_window", nullable(f.sliding_window)},
                {"full_attention_share", f.full_attention_share}};
  visit_numbers([&](const char* name, double fact) { facts[name] = fact; }, f);
  const json body = {{"model_id", f.model_id},
                     {"architecture", f.architecture},
                     {"source", nullable(f.source)},
                     {"torch_dtype", nullable(f.torch_dtype)},
                     {"quantization", nullable(f.quantization)},
                     {"facts", facts},
                     {"computed", bytes},
                     {"tasks", nullptr},
                     {"domains", nullptr},
                     {"quality_tier", nullptr},
                     {"quality_source", nullptr},
                     {"license", nullptr},
                     {"approved_for_production", nullptr}};
  return {KbKind::kModel, f.model_id, body};
}

Result<std::vector<KbDocument>> documents_from_file(std::string_view text, const std::string& source) {
  if (!is_text(text)) return invalid_argument(source + ": not UTF-8 text");
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos) return invalid_argument(source + ": empty");
  if (text[first] == '{') return documents_from_lines(text, source);
  const auto table = parse_csv(text, source);
  if (!table.ok()) return table.status();
  return documents_from_csv(*table);
}

Result<std::vector<KbDocument>> shipped_documents() {
  std::vector<KbDocument> all;
  for (const char* name : {"measured_serving.csv", "model_facts.csv", "cloud_prices.csv"}) {
    Result<std::vector<KbDocument>> documents = documents_from_file(embedded_file(name), name);
    if (!documents.ok()) return documents.status();
    for (KbDocument& document : *documents) all.push_back(std::move(document));
  }
  const auto profiles = parse_csv(embedded_file("gpu_profiles.csv"), "gpu_profiles.csv");
  const auto aliases = parse_csv(embedded_file("gpu_aliases.csv"), "gpu_aliases.csv");
  if (!profiles.ok()) return profiles.status();
  if (!aliases.ok()) return aliases.status();
  const auto gpus = GpuTable::from_csv(*profiles, *aliases);
  if (!gpus.ok()) return gpus.status();
  for (const auto& [name, profile] : gpus->all()) {
    std::vector<std::string> names;
    for (const auto& row : aliases->rows)
      if (row.at(1) == name) names.push_back(row.at(0));
    all.push_back(document_of(profile, names));
  }
  const json use_cases = json::parse(embedded_file("use_cases.json"), nullptr, false);
  for (const json& body : use_cases) {
    Result<KbDocument> document = checked_document(KbKind::kUseCase, body);
    if (!document.ok()) return document.status();
    all.push_back(std::move(document).value());
  }
  return all;
}

}  // namespace sextant::advisor

#include "bench/record/benchmark_record.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <fstream>
#include <sstream>
#include <type_traits>

#include "bench/record/record_fields.h"
#include "engine/base/nearest.h"

namespace sextant::bench {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxLineBytes = 4 << 20;

template <typename T>
struct IsOptional : std::false_type {};
template <typename T>
struct IsOptional<std::optional<T>> : std::true_type {};

const char* source_name(RecordSource source) {
  switch (source) {
    case RecordSource::kMeasured: return "measured";
    case RecordSource::kSimulated: return "simulated";
    case RecordSource::kImported: return "imported";
  }
  return "measured";
}

// --- writing ---------------------------------------------------------------------------------------------------------

template <typename T>
Json json_of(const T& x);

struct Writer {
  Json object = Json::object();
  template <typename T>
  void operator()(const char* key, const T& field, FieldRule, const char*) {
    object[key] = json_of(field);
  }
};

template <typename T>
Json json_of(const T& x) {
  if constexpr (IsOptional<T>::value) {
    return x ? json_of(*x) : Json();
  } else if constexpr (std::is_same_v<T, RecordSource>) {
    return source_name(x);
  } else if constexpr (std::is_same_v<T, Interval>) {
    return Json::array({x.low, x.high});
  } else if constexpr (std::is_arithmetic_v<T> || std::is_same_v<T, std::string> || std::is_same_v<T, Json> ||
                       std::is_same_v<T, std::vector<std::string>>) {
    return x;
  } else {
    Writer writer;
    visit_fields(writer, x, &x);
    return std::move(writer.object);
  }
}

std::string dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

std::string sha256_hex(const std::string& bytes) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int length = 0;
  CHECK(EVP_Digest(bytes.data(), bytes.size(), digest, &length, EVP_sha256(), nullptr) == 1);
  std::string hex;
  for (unsigned int i = 0; i < length; ++i) {
    char text[3];
    std::snprintf(text, sizeof text, "%02x", digest[i]);
    hex += text;
  }
  return hex;
}

std::string id_of(Json json) {
  json.erase("record_id");
  return sha256_hex(dump(json));
}

Json json_without_id(const BenchmarkRecord& record) {
  Json json = json_of(record);
  json["schema"] = kRecordSchema;
  json.erase("record_id");
  return json;
}

// --- reading ---------------------------------------------------------------------------------------------------------

bool is_sha256(const std::string& text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

// "2026-01-31T12:00:00Z", with or without a fraction of the second.
bool is_timestamp(const std::string& text) {
  int year, month, day, hour, minute, second, end = 0;
  if (std::sscanf(text.c_str(), "%4d-%2d-%2dT%2d:%2d:%2d%n", &year, &month, &day, &hour, &minute, &second, &end) != 6 ||
      end != 19) {
    return false;
  }
  for (const size_t at : {0, 1, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18}) {
    if (text[at] < '0' || text[at] > '9') return false;
  }
  size_t at = 19;
  if (at < text.size() && text[at] == '.') {
    const size_t begin = ++at;
    while (at < text.size() && text[at] >= '0' && text[at] <= '9') ++at;
    if (at == begin || at - begin > 9) return false;
  }
  return text.substr(at) == "Z" && month >= 1 && month <= 12 && day >= 1 && day <= 31 && hour <= 23 && minute <= 59 &&
         second <= 60;
}

class Reader {
 public:
  Reader(const Json& object, std::string path, std::vector<std::string>& faults)
      : object_(object), path_(std::move(path)), faults_(faults) {}

  template <typename T>
  void operator()(const char* key, T& field, FieldRule rule, const char*) {
    known_.emplace_back(key);
    const auto it = object_.find(key);
    if (it == object_.end()) {
      faults_.push_back(path_ + key + " is missing");
      return;
    }
    read(*it, path_ + key, rule, field);
  }

  void refuse_unknown(std::string_view also_known = {}) {
    for (const auto& [key, value] : object_.items()) {
      if (key == also_known) continue;
      bool found = false;
      for (const std::string& name : known_) found = found || name == key;
      if (found) continue;
      const auto nearest = nearest_name(key, known_);
      faults_.push_back(path_ + key + " is no field of " + std::string(kRecordSchema) +
                        (nearest ? " (did you mean " + *nearest + "?)" : ""));
    }
  }

 private:
  template <typename T>
  void read(const Json& json, const std::string& path, FieldRule rule, T& field) {
    if constexpr (IsOptional<T>::value) {
      if (json.is_null()) {
        field.reset();
        return;
      }
      read(json, path, rule, field.emplace());
    } else if constexpr (std::is_same_v<T, bool>) {
      if (json.is_boolean()) {
        field = json.get<bool>();
      } else {
        faults_.push_back(path + " must be true or false");
      }
    } else if constexpr (std::is_same_v<T, int64_t>) {
      if (!json.is_number_integer() || (json.is_number_unsigned() && json.get<uint64_t>() > INT64_MAX)) {
        faults_.push_back(path + " must be a whole number");
        return;
      }
      field = json.get<int64_t>();
      check_range(static_cast<double>(field), path, rule);
    } else if constexpr (std::is_same_v<T, double>) {
      if (!json.is_number() || !std::isfinite(json.get<double>())) {
        faults_.push_back(path + " must be a number");
        return;
      }
      field = json.get<double>();
      check_range(field, path, rule);
    } else if constexpr (std::is_same_v<T, std::string>) {
      if (!json.is_string()) {
        faults_.push_back(path + " must be a string");
        return;
      }
      field = json.get<std::string>();
      if (rule == FieldRule::kNonEmpty && field.empty()) faults_.push_back(path + " must not be empty");
      if (rule == FieldRule::kSha256 && !is_sha256(field)) {
        faults_.push_back(path + " must be a SHA-256 as 64 lower-case hex digits");
      }
      if (rule == FieldRule::kTimestamp && !is_timestamp(field)) {
        faults_.push_back(path + " must be a time in UTC such as 2026-01-31T12:00:00Z");
      }
    } else if constexpr (std::is_same_v<T, RecordSource>) {
      for (const RecordSource source : {RecordSource::kMeasured, RecordSource::kSimulated, RecordSource::kImported}) {
        if (json == source_name(source)) {
          field = source;
          return;
        }
      }
      faults_.push_back(path + " must be measured, simulated or imported");
    } else if constexpr (std::is_same_v<T, Interval>) {
      if (!json.is_array() || json.size() != 2 || !json[0].is_number() || !json[1].is_number() ||
          !(json[0].get<double>() <= json[1].get<double>())) {
        faults_.push_back(path + " must be [low, high]");
        return;
      }
      field = {json[0].get<double>(), json[1].get<double>()};
    } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
      if (!json.is_array()) {
        faults_.push_back(path + " must be a list of strings");
        return;
      }
      for (const Json& item : json) {
        if (!item.is_string()) {
          faults_.push_back(path + " must be a list of strings");
          return;
        }
        field.push_back(item.get<std::string>());
      }
    } else if constexpr (std::is_same_v<T, Json>) {
      if (!json.is_object()) faults_.push_back(path + " must be an object");
      field = json;
    } else {
      if (!json.is_object()) {
        faults_.push_back(path + " must be an object");
        return;
      }
      Reader reader(json, path + ".", faults_);
      visit_fields(reader, field, &field);
      reader.refuse_unknown();
    }
  }

  void check_range(double value, const std::string& path, FieldRule rule) {
    if (rule == FieldRule::kNonNegative && value < 0) faults_.push_back(path + " must not be negative");
    if (rule == FieldRule::kPositive && value <= 0) faults_.push_back(path + " must be above 0");
    if (rule == FieldRule::kRatio && (value < 0 || value > 1)) faults_.push_back(path + " must lie in 0..1");
    if (rule == FieldRule::kPercent && (value < 0 || value > 100)) faults_.push_back(path + " must lie in 0..100");
  }

  const Json& object_;
  const std::string path_;
  std::vector<std::string>& faults_;
  std::vector<std::string> known_;
};

}  // namespace

std::string timestamp_now() {
  const std::time_t now = std::time(nullptr);
  std::tm utc = {};
  gmtime_r(&now, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

std::string compute_record_id(const BenchmarkRecord& record) { return id_of(json_without_id(record)); }

nlohmann::json to_json(const BenchmarkRecord& record) {
  Json json = json_without_id(record);
  json["record_id"] = id_of(json);
  return json;
}

std::string to_line(const BenchmarkRecord& record) { return dump(to_json(record)); }

Result<BenchmarkRecord> read_record(const nlohmann::json& json) {
  if (!json.is_object()) return data_loss("a record must be a JSON object");
  const auto schema = json.find("schema");
  if (schema == json.end() || !schema->is_string()) {
    return data_loss("schema is missing: it must be \"" + std::string(kRecordSchema) + "\"");
  }
  if (*schema != kRecordSchema) {
    return unsupported("schema is " + dump(*schema) + "; this program reads " + std::string(kRecordSchema), "schema");
  }
  BenchmarkRecord record;
  std::vector<std::string> faults;
  Reader reader(json, "", faults);
  visit_fields(reader, record, &record);
  reader.refuse_unknown("schema");
  if (faults.empty() && id_of(json) != record.record_id) {
    faults.emplace_back("record_id does not belong to the contents: the record was changed after it was written");
  }
  if (faults.empty()) return record;
  std::string message;
  for (size_t i = 0; i < faults.size(); ++i) {
    if (i == 8) {
      message += "; and " + std::to_string(faults.size() - i) + " more";
      break;
    }
    message += (i == 0 ? "" : "; ") + faults[i];
  }
  return data_loss(message);
}

Result<std::vector<BenchmarkRecord>> read_records(std::string_view text, const std::string& source) {
  std::vector<BenchmarkRecord> records;
  size_t line_number = 0;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    const std::string where = source + ":" + std::to_string(++line_number) + ": ";
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    if (line.size() > kMaxLineBytes) return data_loss(where + "the line is longer than 4 MiB");
    const Json json = Json::parse(line, nullptr, false);
    if (json.is_discarded()) return data_loss(where + "is not JSON");
    Result<BenchmarkRecord> record = read_record(json);
    if (!record.ok()) return Status(record.status().code(), where + record.status().message());
    records.push_back(std::move(*record));
  }
  return records;
}

Result<std::vector<BenchmarkRecord>> read_record_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (!file || !(text << file.rdbuf())) {
    // An empty file gives no characters, which the stream counts as a failure.
    if (file && file.peek() == std::ifstream::traits_type::eof()) return std::vector<BenchmarkRecord>();
    return not_found("cannot read " + path + ": " + std::strerror(errno));
  }
  return read_records(text.str(), path);
}

Status append_records(const std::string& path, const std::vector<BenchmarkRecord>& records) {
  const int file = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
  if (file < 0) return unavailable("cannot write " + path + ": " + std::strerror(errno));
  for (const BenchmarkRecord& record : records) {
    const std::string line = to_line(record) + "\n";
    size_t written = 0;
    while (written < line.size()) {
      const ssize_t n = ::write(file, line.data() + written, line.size() - written);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) {
        const Status status = unavailable("cannot write " + path + ": " + std::strerror(errno));
        ::close(file);
        return status;
      }
      written += static_cast<size_t>(n);
    }
  }
  if (::close(file) != 0) return unavailable("cannot write " + path + ": " + std::strerror(errno));
  return ok_status();
}

nlohmann::json to_planner_json(const BenchmarkRecord& record) {
  Json engine_config = record.engine_config;
  if (record.engine_version) engine_config["version"] = *record.engine_version;
  const RecordMetrics& m = record.metrics;
  Json metrics = {{"throughput_tokens_per_sec", json_of(m.output_tokens_per_s)},
                  {"throughput_requests_per_sec", json_of(m.request_rps)},
                  {"memory_usage_gb", m.memory_used_gib ? Json(*m.memory_used_gib * 1.073741824) : Json()},
                  {"gpu_utilization_pct", json_of(m.gpu_utilization_pct)}};
  const auto add = [&](const std::string& name, const std::optional<MetricSummary>& summary) {
    const MetricSummary& s = summary ? *summary : MetricSummary{};
    metrics[name + "_p50_ms"] = json_of(s.p50);
    metrics[name + "_p90_ms"] = json_of(s.p90);
    metrics[name + "_p95_ms"] = json_of(s.p95);
    metrics[name + "_p99_ms"] = json_of(s.p99);
  };
  add("ttft", m.ttft_ms);
  add("tpot", m.tpot_ms);
  add("e2e", m.e2e_ms);
  return {{"model_id", record.model_id},
          {"gpu_type", json_of(record.gpu_type)},
          {"tensor_parallel_degree", record.tensor_parallel},
          {"quantization", json_of(record.weight_quantization)},
          {record.engine + "_config", std::move(engine_config)},
          {"metrics", std::move(metrics)},
          {"test_conditions",
           {{"prompt_length_avg", record.test_conditions.prompt_tokens.mean},
            {"generation_length_avg", record.test_conditions.output_tokens.mean},
            {"concurrency", json_of(record.test_conditions.concurrency)}}},
          {"timestamp", record.timestamp}};
}

}  // namespace sextant::bench

#include "bench/record/benchmark_record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <fstream>

#include "tests/support/scratch_directory.h"

namespace sextant::bench {
namespace {

using ::testing::HasSubstr;

BenchmarkRecord make_record() {
  BenchmarkRecord record;
  record.timestamp = "2026-01-31T12:00:00Z";
  record.model_id = "owner/name";
  record.engine = "sextant";
  record.engine_version = "0.1.0";
  record.engine_config = {{"max_num_seqs", 256}};
  record.host = RecordHost{"a CPU", 2, 16.0, "Linux 6.1"};
  record.test_conditions.load = "poisson";
  record.test_conditions.request_rate = 2.5;
  record.test_conditions.burstiness_cv = 1;
  record.test_conditions.prompt_tokens = {128, 128, 130, 140};
  record.test_conditions.output_tokens = {64, 64, 64, 64};
  record.test_conditions.num_requests = 1000;
  record.test_conditions.duration_s = 400.25;
  record.test_conditions.seed = 7;
  record.test_conditions.tokens_counted_by = "usage";
  MetricSummary ttft;
  ttft.n = 1000;
  ttft.mean = 41.5;
  ttft.p50 = 40;
  ttft.p99 = 60.125;
  ttft.ci90 = MetricIntervals{Interval{41, 42}, Interval{39, 41}, {}, {}, {}, {}};
  record.metrics.ttft_ms = ttft;
  record.metrics.request_rps = 2.498;
  record.metrics.error_rate = 0;
  record.validity.over_saturated = false;
  record.validity.warnings = {"a \"warning\"\nof two lines"};
  return record;
}

Result<BenchmarkRecord> read_changed(const std::string& pointer, const nlohmann::json& value) {
  nlohmann::json json = to_json(make_record());
  json[nlohmann::json::json_pointer(pointer)] = value;
  return read_record(json);
}

TEST(BenchmarkRecord, ReadsWhatItWrites) {
  const BenchmarkRecord record = make_record();
  const std::string line = to_line(record);
  EXPECT_EQ(line.find('\n'), std::string::npos);
  const auto read = read_records(line + "\n\n" + line + "\n", "test");
  ASSERT_TRUE(read.ok()) << read.status().message();
  ASSERT_EQ(read->size(), 2u);
  EXPECT_EQ(to_json(read->front()), to_json(record));
  EXPECT_EQ(read->front().record_id, compute_record_id(record));
  EXPECT_EQ(read->front().metrics.ttft_ms->ci90->p50->high, 41);
  EXPECT_FALSE(read->front().metrics.tpot_ms.has_value());
}

TEST(BenchmarkRecord, IdBelongsToTheContents) {
  BenchmarkRecord record = make_record();
  const std::string id = compute_record_id(record);
  EXPECT_EQ(id.size(), 64u);
  record.record_id = "anything";
  EXPECT_EQ(compute_record_id(record), id);
  record.metrics.request_rps = 2.499;
  EXPECT_NE(compute_record_id(record), id);
  const auto changed = read_changed("/metrics/request_rps", 250);
  ASSERT_FALSE(changed.ok());
  EXPECT_THAT(changed.status().message(), HasSubstr("was changed after it was written"));
}

TEST(BenchmarkRecord, RefusesWhatIsNotTheForm) {
  const struct {
    const char* pointer;
    nlohmann::json value;
    const char* message;
  } cases[] = {
      {"/metrics/ttft_ms/mean", -1, "metrics.ttft_ms.mean must not be negative"},
      {"/metrics/ttft_ms/mean", nullptr, "metrics.ttft_ms.mean must be a number"},
      {"/metrics/error_rate", 1.5, "metrics.error_rate must lie in 0..1"},
      {"/metrics/ttft_mss", 1, "metrics.ttft_mss is no field of sextant.benchmark/1 (did you mean ttft_ms?)"},
      {"/num_gpus", 1.5, "num_gpus must be a whole number"},
      {"/num_gpus", 18446744073709551615ull, "num_gpus must be a whole number"},
      {"/tensor_parallel", 0, "tensor_parallel must be above 0"},
      {"/source", "guessed", "source must be measured, simulated or imported"},
      {"/timestamp", "yesterday", "timestamp must be a time in UTC"},
      {"/timestamp", "2026-13-31T12:00:00Z", "timestamp must be a time in UTC"},
      {"/timestamp", "2026-01-31T12:00:00+02:00", "timestamp must be a time in UTC"},
      {"/model_id", "", "model_id must not be empty"},
      {"/record_id", "abc", "record_id must be a SHA-256"},
      {"/engine_config", "text", "engine_config must be an object"},
      {"/validity/warnings", {1}, "validity.warnings must be a list of strings"},
      {"/metrics/ttft_ms/ci90/mean", {2, 1}, "metrics.ttft_ms.ci90.mean must be [low, high]"},
      {"/metrics", nullptr, "metrics must be an object"},
      {"/schema", "sextant.benchmark/2", "this program reads sextant.benchmark/1"},
      {"/schema", 1, "schema is missing"},
  };
  for (const auto& c : cases) {
    const auto read = read_changed(c.pointer, c.value);
    ASSERT_FALSE(read.ok()) << c.pointer << " " << c.value;
    EXPECT_THAT(read.status().message(), HasSubstr(c.message));
  }
  nlohmann::json json = to_json(make_record());
  json["metrics"].erase("itl_ms");
  json.erase("seed");
  json["test_conditions"].erase("seed");
  const auto read = read_record(json);
  ASSERT_FALSE(read.ok());
  EXPECT_THAT(read.status().message(), HasSubstr("metrics.itl_ms is missing"));
  EXPECT_THAT(read.status().message(), HasSubstr("test_conditions.seed is missing"));
}

TEST(BenchmarkRecord, HostileLines) {
  for (const char* text : {"[]", "1", "null", "{", "{}", "\xff\xfe", "{\"schema\":\"sextant.benchmark/1\"}"}) {
    const auto read = read_records(std::string("\n") + text, "file.jsonl");
    ASSERT_FALSE(read.ok()) << text;
    EXPECT_THAT(read.status().message(), HasSubstr("file.jsonl:2: "));
  }
  EXPECT_FALSE(read_records(std::string(5 << 20, ' ') + "x", "f").ok());
  EXPECT_FALSE(read_records(std::string(100000, '['), "f").ok());
}

TEST(BenchmarkRecord, FilesAreAppended) {
  ScratchDirectory scratch;
  const std::string path = scratch.file("records.jsonl");
  EXPECT_FALSE(read_record_file(path).ok());
  ASSERT_TRUE(append_records(path, {make_record()}).ok());
  ASSERT_TRUE(append_records(path, {make_record(), make_record()}).ok());
  const auto read = read_record_file(path);
  ASSERT_TRUE(read.ok()) << read.status().message();
  EXPECT_EQ(read->size(), 3u);
  EXPECT_FALSE(append_records(scratch.file("absent/records.jsonl"), {make_record()}).ok());
  ASSERT_TRUE(append_records(scratch.file("empty"), {}).ok());
  EXPECT_TRUE(read_record_file(scratch.file("empty"))->empty());
}

TEST(BenchmarkRecord, SchemaFileIsTheOneOfTheFields) {
  const std::string path = std::string(SEXTANT_SOURCE_FOLDER) + "/bench/schema/sextant.benchmark.1.json";
  std::ifstream file(path);
  const std::string expected = record_schema().dump(1) + "\n";
  const std::string actual((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (const char* out = std::getenv("SEXTANT_WRITE_SCHEMA")) std::ofstream(out) << expected;
  EXPECT_EQ(actual, expected) << "SEXTANT_WRITE_SCHEMA=" << path << " writes it";
}

TEST(BenchmarkRecord, PlannerNames) {
  const nlohmann::json json = to_planner_json(make_record());
  EXPECT_EQ(json["tensor_parallel_degree"], 1);
  EXPECT_EQ(json["metrics"]["ttft_p50_ms"], 40);
  EXPECT_TRUE(json["metrics"]["ttft_p90_ms"].is_null());
  EXPECT_EQ(json["metrics"]["throughput_requests_per_sec"], 2.498);
  EXPECT_EQ(json["test_conditions"]["prompt_length_avg"], 128);
  EXPECT_EQ(json["sextant_config"]["version"], "0.1.0");
}

}  // namespace
}  // namespace sextant::bench

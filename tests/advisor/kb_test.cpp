// The knowledge base on SQLite: revisions, whole imports, what is refused; health's physics; what owning costs.
// tests/e2e/test_kb.py repeats the database part on a real PostgreSQL.
#include <cmath>
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "advisor/catalog.h"
#include "advisor/kb/health.h"
#include "advisor/kb/importers.h"
#include "advisor/kb/knowledge_base.h"
#include "advisor/ownership_cost.h"
#include "bench/record/benchmark_record.h"

namespace sextant::advisor {
namespace {

using nlohmann::json;

json price(double on_demand, const char* date = "2026-01-19") {
  return {{"provider", "aws"},      {"instance", "x8"},
          {"region", "r1"},         {"gpu", "L4"},
          {"gpu_count", 8},         {"on_demand_usd_per_hour", on_demand},
          {"effective_date", date}, {"source", "test"}};
}

TEST(KnowledgeBase, HoldsWhatIsShippedAndEveryRevision) {
  KnowledgeBase kb = KnowledgeBase::open(":memory:").value();
  ASSERT_EQ(kb.revision().value(), 1);
  const std::string first = kb.revision_name().value();
  const KbSnapshot snapshot = read_snapshot(kb).value();
  EXPECT_EQ(snapshot.facts.all().size(), shipped_facts().all().size());
  EXPECT_EQ(snapshot.gpus.all().size(), shipped_gpus().all().size());
  EXPECT_EQ(snapshot.prices.size(), 50u);
  EXPECT_EQ(kb.list(KbKind::kUseCase)->size(), 9u);
  // A row that stands in the file twice is one document.
  EXPECT_LT(snapshot.points.size(), shipped_points().size());
  EXPECT_GT(snapshot.points.size(), 2400u);
  // What went through documents is what the tables say.
  for (const auto& [id, facts] : shipped_facts().all()) {
    const ModelFacts* again = snapshot.facts.find(id);
    ASSERT_NE(again, nullptr) << id;
    EXPECT_EQ(count(*again).stored(), count(facts).stored()) << id;
    EXPECT_EQ(kv_elements_per_token(*again), kv_elements_per_token(facts)) << id;
  }
  EXPECT_NE(snapshot.gpus.find("nvidia-h100"), nullptr);

  const KbDocument one = checked_document(KbKind::kPrice, price(5)).value();
  EXPECT_EQ(kb.import({one}).value().added, 1u);
  EXPECT_EQ(kb.import({one}).value().unchanged, 1u);  // and no revision
  EXPECT_EQ(kb.revision().value(), 2);
  const KbDocument other = checked_document(KbKind::kPrice, price(6)).value();
  EXPECT_EQ(kb.import({other}).value().replaced, 1u);
  EXPECT_EQ(kb.find(KbKind::kPrice, one.id).value()->body["on_demand_usd_per_hour"], 6.0);
  EXPECT_EQ(read_snapshot(kb)->prices.size(), 51u);
  EXPECT_EQ(read_snapshot(kb, 1)->prices.size(), 50u);
  EXPECT_EQ(kb.revision_name(1).value(), first);
  EXPECT_NE(kb.revision_name().value().substr(2), first.substr(2));
  EXPECT_EQ(read_snapshot(kb, 9).status().param(), "kb_revision");
  EXPECT_FALSE(read_snapshot(kb, 0).ok());

  // Pages by id, without gap or repeat.
  std::vector<std::string> all, paged;
  const std::vector<KbDocument> gpus = kb.list(KbKind::kGpu).value();
  for (const auto& d : gpus) all.push_back(d.id);
  for (std::string after;;) {
    const auto page = kb.list(KbKind::kGpu, 7, after).value();
    if (page.empty()) break;
    for (const auto& d : page) paged.push_back(d.id);
    after = page.back().id;
  }
  EXPECT_EQ(paged, all);
}

TEST(KnowledgeBase, StoresNothingOfAnImportThatFails) {
  KnowledgeBase kb = KnowledgeBase::open(":memory:").value();
  const std::string before = kb.revision_name().value();
  EXPECT_FALSE(
      kb.import({checked_document(KbKind::kPrice, price(5)).value(), {KbKind::kGpu, "", json::object()}}).ok());
  EXPECT_EQ(kb.revision_name().value(), before);
  // Text is data, never SQL.
  json hostile = price(5);
  hostile["instance"] = "x'); DROP TABLE kb_prices; --";
  ASSERT_TRUE(kb.import({checked_document(KbKind::kPrice, hostile).value()}).ok());
  EXPECT_EQ(kb.list(KbKind::kPrice)->size(), 51u);
}

TEST(KnowledgeBase, KeepsPlansForAWhileAndNotWithoutEnd) {
  KnowledgeBase kb = KnowledgeBase::open(":memory:").value();
  const int64_t now = 1'800'000'000;
  const auto revision = kb.revision().value();
  ASSERT_TRUE(kb.keep_plan("a", "{\"x\": \"'; DROP TABLE kb_plans\"}", now).ok());
  EXPECT_EQ(kb.find_plan("a", now).value(), "{\"x\": \"'; DROP TABLE kb_plans\"}");
  EXPECT_EQ(kb.find_plan("b", now).value(), std::nullopt);
  EXPECT_EQ(kb.revision().value(), revision);
  // Thirty days from when it was last made.
  EXPECT_TRUE(kb.find_plan("a", now + KnowledgeBase::kPlanSeconds).value().has_value());
  EXPECT_FALSE(kb.find_plan("a", now + KnowledgeBase::kPlanSeconds + 1).value().has_value());
  ASSERT_TRUE(kb.keep_plan("a", "again", now + 86400).ok());
  EXPECT_EQ(kb.find_plan("a", now + KnowledgeBase::kPlanSeconds + 1).value(), "again");
  // The latest stay; one that is too large is not kept.
  for (int64_t i = 0; i < KnowledgeBase::kMaxPlans; ++i)
    ASSERT_TRUE(kb.keep_plan("p" + std::to_string(i), "{}", now + 2 * 86400 + i).ok());
  EXPECT_FALSE(kb.find_plan("a", now + 86400).value().has_value());
  EXPECT_TRUE(kb.find_plan("p0", now).value().has_value());
  ASSERT_TRUE(kb.keep_plan("large", std::string(KnowledgeBase::kMaxPlanBytes + 1, 'x'), now + 3 * 86400).ok());
  EXPECT_FALSE(kb.find_plan("large", now).value().has_value());
}

TEST(KnowledgeBase, RefusesWhatItCannotKeep) {
  const std::pair<json, const char*> cases[] = {{json::array(), "body"},
                                                {[] {
                                                   json p = price(5);
                                                   p.erase("gpu");
                                                   return p;
                                                 }(),
                                                 "gpu"},
                                                {[] {
                                                   json p = price(5);
                                                   p["gpu_count"] = -8;
                                                   return p;
                                                 }(),
                                                 "gpu_count"},
                                                {[] {
                                                   json p = price(5);
                                                   p["gpu_count"] = "8";
                                                   return p;
                                                 }(),
                                                 "gpu_count"},
                                                {[] {
                                                   json p = price(5);
                                                   p["on_demand_usd_per_hour"] = 1e300;
                                                   return p;
                                                 }(),
                                                 "on_demand_usd_per_hour"},
                                                {[] {
                                                   json p = price(5);
                                                   p["surprise"] = 1;
                                                   return p;
                                                 }(),
                                                 "surprise"},
                                                {[] {
                                                   json p = price(5);
                                                   p["region"] = std::string(3000, 'x');
                                                   return p;
                                                 }(),
                                                 "region"}};
  for (const auto& [body, field] : cases)
    EXPECT_EQ(checked_document(KbKind::kPrice, body).status().param(), field) << body.dump();
  for (const char* text : {"", "{", "[]\n", "{\"kind\":\"prices\"}\n", "{\"kind\":\"dreams\",\"body\":{}}\n",
                           "a,b\n1,2\n", "\xff", "{\"schema\":\"sextant.benchmark/1\"}\n"})
    EXPECT_FALSE(documents_from_file(text, "f").ok()) << text;
  for (const char* date : {"2026-02-29", "2026-13-01", "2026-1-1", "26-01-01", "2026-00-10", "2026-04-31", "yesterday"})
    EXPECT_FALSE(is_date(date)) << date;
  EXPECT_TRUE(is_date("2024-02-29"));
  EXPECT_EQ(days_between("2024-02-28", "2024-03-01"), 2);
  EXPECT_FALSE(KnowledgeBase::open("mysql://x").ok());
  EXPECT_FALSE(KnowledgeBase::open("/proc/no/such/folder/kb.sqlite").ok());
  const std::string path = ::testing::TempDir() + "/not_a_database.sqlite";
  std::ofstream(path) << std::string(5000, 'x');
  EXPECT_EQ(KnowledgeBase::open(path).status().code(), StatusCode::kDataLoss);
}

TEST(KnowledgeBase, OutlivesTheProcessAndRefusesANewerSchema) {
  const std::string path = ::testing::TempDir() + "/kb_test.sqlite";
  for (const char* end : {"", "-wal", "-shm"}) std::filesystem::remove(path + end);
  {
    KnowledgeBase kb = KnowledgeBase::open(path).value();
    ASSERT_TRUE(kb.import({checked_document(KbKind::kPrice, price(5)).value()}).ok());
  }
  EXPECT_EQ(KnowledgeBase::open(path).value().revision().value(), 2);
  {
    auto database = open_database(path, "knowledge base").value();
    ASSERT_TRUE(database->execute("INSERT INTO kb_migrations (version) VALUES (99)").ok());
  }
  EXPECT_EQ(KnowledgeBase::open(path).status().code(), StatusCode::kUnsupported);
}

bench::MetricSummary summary(double mean) {
  bench::MetricSummary s;
  s.n = 200;
  s.mean = mean;
  return s;
}

TEST(KnowledgeBase, TakesRecordsOfOurBenchmarks) {
  bench::BenchmarkRecord record;
  record.timestamp = "2026-05-01T10:00:00Z";
  record.model_id = "Qwen/Qwen3-8B";
  record.gpu_type = "L4";
  record.num_gpus = 1;
  record.engine = "sextant";
  record.engine_version = "0.1.0";
  record.weight_quantization = "bf16";
  record.test_conditions.load = "concurrency";
  record.test_conditions.concurrency = 4;
  record.test_conditions.prompt_tokens.mean = 500;
  record.test_conditions.output_tokens.mean = 100;
  record.test_conditions.num_requests = 200;
  record.test_conditions.duration_s = 60;
  record.test_conditions.tokens_counted_by = "token_ids";
  record.metrics.ttft_ms = summary(300);
  record.metrics.tpot_ms = summary(70);
  const std::string measured = bench::to_line(record);
  record.source = bench::RecordSource::kSimulated;
  record.metrics.tpot_ms->mean = 71;
  const std::string simulated = bench::to_line(record);
  const auto documents = documents_from_file(measured + "\n" + simulated + "\n", "r.jsonl");
  ASSERT_TRUE(documents.ok()) << documents.status().message();
  KnowledgeBase kb = KnowledgeBase::open(":memory:").value();
  const size_t before = read_snapshot(kb)->points.size();
  EXPECT_EQ(kb.import(*documents).value().added, 2u);
  const KbSnapshot after = read_snapshot(kb).value();
  ASSERT_EQ(after.points.size(), before + 1);  // what was simulated trains nothing
  bool found = false;
  for (const ServingPoint& p : after.points)
    found = found || (p.model_id == "Qwen/Qwen3-8B" && p.tpot_mean_ms == 70 && p.engine_version == "0.1.0");
  EXPECT_TRUE(found);
}

TEST(ModelFacts, ReadsConfigurationsOfAnyArchitecture) {
  const auto facts = FactsTable::from_config_json(
      R"({"architectures":["X"],"text_config":{"hidden_size":4096,"num_hidden_layers":4,"num_attention_heads":32,"num_key_value_heads":8,
          "intermediate_size":8192,"vocab_size":32000,"layer_types":["linear_attention","linear_attention","linear_attention","full_attention"]}})",
      "a/b", "config.json");
  ASSERT_TRUE(facts.ok()) << facts.status().message();
  EXPECT_EQ(facts->head_dim, 128);
  EXPECT_EQ(kv_elements_per_token(*facts), 2 * 8 * 128);
  const std::pair<const char*, const char*> bad[] = {
      {"[]", "config"},
      {"{}", "architectures"},
      {R"({"architectures":["X"]})", "hidden_size"},
      {R"({"architectures":["X"],"hidden_size":-1})", "hidden_size"},
      {R"({"architectures":["X"],"hidden_size":1e300})", "hidden_size"},
      {R"({"architectures":["X"],"hidden_size":"8"})", "hidden_size"},
      {R"({"architectures":["X"],"hidden_size":1.5})", "hidden_size"},
      {R"({"architectures":["X"],"hidden_size":8,"num_hidden_layers":2,"num_attention_heads":2,"vocab_size":8})",
       "intermediate_size"}};
  for (const auto& [text, field] : bad)
    EXPECT_EQ(FactsTable::from_config_json(text, "a/b", "c").status().param(), field) << text;
}

std::set<std::string> rules(const OperatingClaim& claim) {
  std::set<std::string> names;
  const std::vector<HealthIssue> issues = check_claim(claim, shipped_facts(), shipped_gpus()).value();
  for (const HealthIssue& issue : issues) names.insert(issue.rule);
  return names;
}

OperatingClaim claim_of(const char* model, const char* gpu, double tensor, std::optional<double> tpot) {
  OperatingClaim c;
  c.model_id = model;
  c.gpu = gpu;
  c.tensor_parallel = tensor;
  c.tpot_ms = tpot;
  return c;
}

// The examples of requirements 003 that cannot be.
TEST(Health, RejectsTheImpossibleExamples) {
  OperatingClaim c = claim_of("meta-llama/Llama-3.1-70B", "A100-80GB", 4, 12);
  EXPECT_EQ(rules(c), std::set<std::string>{"below_bandwidth_floor"});  // floor 17.3 ms
  c.concurrency = 32;
  c.output_tokens_per_s = 3500;
  c.requests_per_s = 45;
  c.output_tokens = 256;
  const auto all = rules(c);
  EXPECT_TRUE(all.count("contradicts_littles_law") && all.count("rates_disagree") &&
              all.count("below_bandwidth_floor"));
  OperatingClaim small = claim_of("meta-llama/Llama-3.1-8B-Instruct", "L4", 1, 45);
  small.replicas = 2;
  small.requests_per_s = 120;
  small.prompt_tokens = 150;
  small.output_tokens = 200;
  EXPECT_TRUE(rules(small).count("below_bandwidth_floor"));
  EXPECT_TRUE(rules(small).count("no_room_for_cache"));
  EXPECT_EQ(rules(claim_of("meta-llama/Llama-3.1-70B", "H200-SXM-141GB", 2, 40)), std::set<std::string>{});
  OperatingClaim kimi = claim_of("moonshotai/Kimi-K2-Instruct", "H200-SXM-141GB", 1, 6.83);
  kimi.quantization = "nvfp4";
  EXPECT_TRUE(rules(kimi).count("does_not_fit"));
  EXPECT_EQ(check_claim(claim_of("x", "L4", 1, {}), shipped_facts(), shipped_gpus()).status().param(), "model_id");
}

TEST(Health, QuarantinesImpossibleRowsAndNamesOldPrices) {
  KnowledgeBase kb = KnowledgeBase::open(":memory:").value();
  const KbSnapshot shipped = read_snapshot(kb).value();
  const HealthReport before = check_health(shipped, "2026-01-20");
  ServingPoint fast = shipped_points().front();
  fast.model_id = "meta-llama/Llama-3.1-70B";
  fast.gpu = "A100-80GB";
  fast.gemm_quant = fast.moe_quant = "bf16";
  fast.tensor_parallel = fast.moe_tensor_parallel = 4;
  fast.tpot_mean_ms = 12;
  ServingPoint lost = shipped_points().front();
  lost.model_id = "no/such-model";
  const KbDocument document = document_of(fast, "");
  json spot = price(5);
  spot["spot_usd_per_hour_low"] = 7;
  spot["gpu_count"] = 12;
  ASSERT_TRUE(kb.import({document, document_of(lost, ""), checked_document(KbKind::kPrice, spot).value()}).ok());
  const HealthReport after = check_health(read_snapshot(kb).value(), "2026-03-10");
  EXPECT_EQ(after.quarantined.size(), before.quarantined.size() + 1);
  EXPECT_TRUE(after.quarantined.count(document.id));
  std::map<std::string, size_t> count_of;
  for (const HealthIssue& issue : after.issues) ++count_of[issue.rule];
  for (const char* rule : {"below_bandwidth_floor", "unknown_model", "spot_above_on_demand", "impossible_gpu_count",
                           "stale_price", "undated_price"})
    EXPECT_GE(count_of[rule], 1u) << rule;
  count_of.clear();
  for (const HealthIssue& issue : check_health(shipped, "2026-12-01").issues) ++count_of[issue.rule];
  EXPECT_GE(count_of["old_price"], 20u);
  EXPECT_EQ(count_of["stale_price"], 0u);
  EXPECT_EQ(to_json(after)["status"], "impossible_rows");
}

// The example of requirements 003 with its arithmetic put right.
TEST(OwnershipCost, HasTheCorrectedFigures) {
  OwnershipInputs in;
  in.num_gpus = 4;
  in.power_w_per_gpu = 400;
  in.usd_per_kwh = 0.12;
  const double cents = 0.005;
  EXPECT_NEAR(ownership_cost(in)->operation_usd_per_month, 182.21, cents);
  in.purchase_usd_per_gpu = 15000;
  in.rental_usd_per_gpu_hour = 4.10;
  const OwnershipCost cost = ownership_cost(in).value();
  EXPECT_NEAR(cost.purchase_usd_per_month, 1848.87, cents);
  EXPECT_NEAR(*cost.rental_usd_per_month, 11972.00, cents);
  EXPECT_NEAR(*cost.break_even_months, 5.09, cents);
  EXPECT_NEAR(*cost.break_even_utilization, 0.154, 0.0005);
  EXPECT_TRUE(cost.buy(36, 0.5));
  EXPECT_FALSE(cost.buy(5, 0.5));
  EXPECT_FALSE(cost.buy(36, 0.1));
  in.rental_usd_per_gpu_hour = 10018.17 / 4 / 730;  // half a p4de
  EXPECT_NEAR(*ownership_cost(in)->break_even_months, 6.10, cents);
  in.rental_usd_per_gpu_hour = 0.01;  // cheaper than the power
  EXPECT_FALSE(ownership_cost(in)->break_even_months.has_value());
  // An annuity of 60,000 over 36 months at 8% a year: 1,867.95 a month by the textbook formula at (1.08)^(1/12) - 1.
  in.annual_discount_rate = 0.08;
  const double monthly = std::pow(1.08, 1.0 / 12) - 1;
  EXPECT_NEAR(ownership_cost(in)->capital_usd_per_month, 60000 * monthly / (1 - std::pow(1.08, -3)), 1e-6);
}

TEST(OwnershipCost, RefusesWhatCannotBe) {
  const auto param = [](auto change) {
    OwnershipInputs in;
    in.num_gpus = 4;
    change(in);
    return ownership_cost(in).status().param();
  };
  EXPECT_EQ(param([](auto& in) { in.num_gpus = 0; }), "num_gpus");
  EXPECT_EQ(param([](auto& in) { in.usd_per_kwh = -1; }), "usd_per_kwh");
  EXPECT_EQ(param([](auto& in) { in.pue = 0.9; }), "pue");
  EXPECT_EQ(param([](auto& in) { in.amortization_months = 0; }), "amortization_months");
  EXPECT_EQ(param([](auto& in) { in.purchase_usd_per_gpu = NAN; }), "purchase_usd_per_gpu");
  EXPECT_EQ(param([](auto& in) { in.residual_usd = 1; }), "residual_usd");
}

// A template's end-to-end limit is its own arithmetic: TTFT + (output - 1) x TPOT.
TEST(UseCases, AreConsistentWithThemselves) {
  const std::vector<KbDocument> documents = shipped_documents().value();
  for (const KbDocument& d : documents) {
    if (d.kind != KbKind::kUseCase) continue;
    const json& slo = d.body["default_slos"];
    const double output = d.body["traffic_defaults"]["generation_length_avg"];
    EXPECT_EQ(slo["e2e_latency_p95_ms"],
              slo["ttft_p90_ms"].get<double>() + (output - 1) * slo["tpot_p90_ms"].get<double>())
        << d.id;
  }
}

}  // namespace
}  // namespace sextant::advisor

// Specs, sizing and whole plans on the shipped knowledge base; the trained model's cache.
#include <cmath>
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "advisor/catalog.h"
#include "advisor/faces/faces.h"
#include "advisor/plan/plan.h"
#include "advisor/report/plan_json.h"
#include "tests/advisor/planning_world.h"
#include "tests/support/scratch_directory.h"

namespace sextant::advisor {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

std::vector<Status> errors_of(std::string_view text) {
  Spec spec;
  return read_spec(text, shipped_world().use_cases, spec);
}

bool names(const std::vector<Status>& errors, const std::string& a, const std::string& b = "") {
  for (const Status& e : errors)
    if (e.message().find(a) != std::string::npos && e.message().find(b) != std::string::npos) return true;
  return false;
}

TEST(Spec, FillsWhatIsLeftOutAndSaysFromWhere) {
  const Spec spec = spec_of({{"task_type", "chatbot"}, {"users", 1000}});
  EXPECT_EQ(spec.number("target_ttft_p90_ms"), 300);
  EXPECT_EQ(spec.fields().at("target_ttft_p90_ms").source, SpecSource::kTemplate);
  // 100 active / (10 s thinking + 0.3 + 199 x 0.05 s)
  EXPECT_NEAR(spec.number("peak_rps"), 100 / (10 + 10.25), 1e-9);
  EXPECT_EQ(spec.fields().at("peak_rps").source, SpecSource::kDerived);
  const auto hours = spec.value("hourly_multipliers").get<std::vector<double>>();
  double sum = 0;
  for (const double m : hours) sum += m;
  EXPECT_NEAR(sum, 24, 1e-9);
  EXPECT_NEAR(spec.number("average_rps") * *std::max_element(hours.begin(), hours.end()), spec.number("peak_rps"),
              1e-9);
  // "concurrent" is taken at its word.
  EXPECT_NEAR(spec_of({{"task_type", "chatbot"}, {"concurrent_users", 1000}}).number("peak_rps"), 1000 / 20.25, 1e-9);
  // A target of one's own moves the limit of the whole answer, and replaces the template's on other percentiles.
  const Spec own = spec_of({{"users", 10}, {"target_tpot_p99_ms", 20}});
  EXPECT_FALSE(own.has("target_tpot_p90_ms"));
  EXPECT_EQ(own.number("target_e2e_latency_p95_ms"), 300 + 199 * 20);
  EXPECT_EQ(own.fields().at("target_e2e_latency_p95_ms").source, SpecSource::kDerived);
  // What was given reads back as the same.
  EXPECT_EQ(spec_of(own.as_given()).completed(), own.completed());
}

TEST(Spec, ContradictionsNameBothFields) {
  const auto contradicts = [](json given, const char* a, const char* b) {
    given.emplace("peak_rps", 10);
    const auto errors = errors_of(given.dump());
    EXPECT_TRUE(names(errors, a, b)) << given << (errors.empty() ? " accepted" : errors[0].message());
  };
  contradicts({{"users", 10}, {"concurrent_users", 20}}, "concurrent_users", "users");
  contradicts({{"average_rps", 20}}, "average_rps", "peak_rps");
  contradicts({{"average_rps", 1}, {"daily_requests", 1000}}, "daily_requests", "average_rps");
  contradicts({{"prompt_length_avg", 500}, {"prompt_length_p95", 100}}, "prompt_length_avg", "prompt_length_p95");
  contradicts({{"max_context_tokens", 100}}, "max_context_tokens", "prompt_length_avg");
  contradicts({{"target_ttft_p90_ms", 500}, {"target_ttft_p99_ms", 100}}, "target_ttft_p90_ms", "target_ttft_p99_ms");
  contradicts({{"target_ttft_p90_ms", 5000}, {"target_e2e_latency_p95_ms", 1000}}, "target_ttft_p90_ms",
              "target_e2e_latency_p95_ms");
  contradicts({{"pricing", {{"spot_share", 0.8}, {"reserved_share", 0.5}, {"spot_interruptions_per_day", 1}}}},
              "spot_share", "reserved_share");
  contradicts({{"survive_loss_of", "zone"}}, "survive_loss_of", "zones");
  contradicts({{"deployment_model", "purchase"}}, "deployment_model", "available_gpus");
  contradicts({{"models", {{{"name", "a"}, {"share", 1}}}}, {"preferred_models", {"b"}}}, "models", "preferred_models");
  EXPECT_TRUE(names(errors_of(R"({"peak_rps":1,"pricing":{"spot_share":0.5}})"), "spot_interruptions_per_day"));
  EXPECT_TRUE(names(errors_of(R"({"peak_rps":1,"regions":[{"name":"a","share":0.5}]})"), "regions", "sum to 1"));
  EXPECT_TRUE(names(errors_of("{}"), "peak_rps"));
}

TEST(Spec, HostileInputIsRefusedByNameAndRange) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "not JSON"},
      {"[]", "object"},
      {"{\"peak_rps\": -1}", "from 1e-06 to 1000000"},
      {"{\"peak_rps\": 1e400}", "not JSON"},
      {"{\"peak_rps\": NaN}", "not JSON"},
      {"{\"peak_rps\": 1e300}", "peak_rps"},
      {"{\"peak_rps\": \"5\"}", "peak_rps"},
      {"{\"peak_rps\": true}", "peak_rps"},
      {"{\"peak_rps\": 1, \"peak_rps\": 2}", "twice"},
      {"{\"peak_rsp\": 1}", "did you mean peak_rps"},
      {"{\"budget\": {\"max_monthly_cost_usd\": -5}}", "budget.max_monthly_cost_usd"},
      {"{\"budget\": {\"monthly\": 5}}", "budget.monthly"},
      {"{\"budget\": 5}", "budget"},
      {"{\"zones\": 1.5}", "whole number"},
      {"{\"priority\": \"speed\"}", "cost, latency, accuracy, balanced"},
      {"{\"task_type\": \"chess\", \"users\": 1}", "Known are"},
      {"{\"preferred_models\": []}", "1 to 100"},
      {"{\"preferred_models\": [\"a\", \"a\"]}", "repeats"},
      {"{\"name\": \"\\u0000\"}", "name"},
      {"{\"regions\": [{\"name\": \"x\", \"share\": 2}]}", "regions[0].share"},
      {"{\"hourly_multipliers\": [1]}", "24"},
      {"{\"schema\": \"sextant.spec/9\"}", "sextant.spec/1"},
      {"{\"name\": \"\xff\"}", "UTF-8"},
  };
  for (const auto& [text, named] : cases) {
    const auto errors = errors_of(text);
    ASSERT_FALSE(errors.empty()) << text;
    EXPECT_TRUE(names(errors, named)) << text << ": " << errors[0].message();
  }
  EXPECT_TRUE(names(errors_of(std::string(100000, '[')), "nested deeper"));
  EXPECT_TRUE(names(errors_of(std::string(kMaxSpecBytes + 1, ' ')), "the most is"));
  // All errors at once.
  EXPECT_EQ(errors_of(R"({"peak_rps":-1,"zones":0,"x":1})").size(), 3u);
}

TEST(Sizing, SparesFollowTheBinomial) {
  EXPECT_EQ(spares_for(1, 0.99, 0.98), 0);
  EXPECT_EQ(spares_for(1, 0.99, 0.999), 1);  // both down: 0.0001
  EXPECT_EQ(spares_for(1, 0.99, 0.99995), 2);
  // Ten of ten: 0.904; ten of eleven: 0.9948; ten of twelve: 0.9998
  EXPECT_EQ(spares_for(10, 0.99, 0.99), 1);
  EXPECT_EQ(spares_for(10, 0.99, 0.999), 2);
  EXPECT_EQ(spares_for(10, 1.0, 0.999), 0);
}

TEST(Sizing, WholeInstancesAndTheLossOfAZone) {
  const Spec spec = spec_of({{"peak_rps", 100},
                             {"headroom_pct", 20},
                             {"reliability_target", 50},
                             {"zones", 3},
                             {"survive_loss_of", "zone"},
                             {"available_gpus", {"A100-80GB"}},
                             {"providers", {"aws"}}});
  Option option;
  option.gpu = "A100-SXM4-80GB";
  option.tensor_parallel = 4;
  option.limit.requests_per_s = 24;
  std::string reason;
  ASSERT_TRUE(size_option(spec, find_offers(shipped_world(), spec), option, reason)) << reason;
  const Site& site = option.sites.at(0);
  EXPECT_EQ(site.replicas_needed, 5);  // ceil(100 x 1.2 / 24)
  EXPECT_EQ(site.replicas(), 9);       // 3 zones of ceil(5 / 2)
  EXPECT_EQ(site.offer.instance, "p4de.24xlarge");
  EXPECT_EQ(site.instances, 5);  // two replicas of four share eight GPUs
  EXPECT_NEAR(option.usd_per_month, 5 * 27.44705 * 730, 1e-6);
  // Half of one p4de is not for sale: advisors.md section 7 has $10,018 for it, a plan pays the whole.
  option.limit.requests_per_s = 1000;
  const Spec small = spec_of({{"peak_rps", 1}, {"reliability_target", 50}, {"providers", {"aws"}}});
  ASSERT_TRUE(size_option(small, find_offers(shipped_world(), small), option, reason));
  EXPECT_NEAR(option.usd_per_month, 27.44705 * 730, 1e-6);
  EXPECT_NEAR(option.usd_per_month / 2, 10018.17, 0.01);
}

TEST(Plan, IsTheSameEachTimeAndKeepsItsOwnArithmetic) {
  const PlanRequest request{spec_of({{"task_type", "chatbot"}, {"users", 5000}, {"priority", "cost"}}),
                            {"gpus", "max_rate", "max_users", "max_context"}};
  const ordered_json plan = make_plan(shipped_world(), request).value();
  EXPECT_EQ(plan.dump(), make_plan(shipped_world(), request).value().dump());
  ASSERT_GE(plan["options"].size(), 3u);
  double cheapest = 1e18;
  for (const ordered_json& o : plan["options"]) {
    const double rate = o["limit_per_replica"]["requests_per_s"].get<double>();
    for (const ordered_json& s : o["sites"]) {
      EXPECT_EQ(s["replicas_needed"], std::ceil(s["peak_rps"].get<double>() * 1.2 / rate - 1e-5)) << o["id"];
      const int per_instance = s["gpus_per_instance"].get<int>() / o["tensor_parallel"].get<int>();
      EXPECT_EQ(s["instances"],
                (s["replicas_needed"].get<int>() + s["spares"].get<int>() + per_instance - 1) / per_instance);
    }
    for (const ordered_json& t : o["targets"]) {
      EXPECT_EQ(t["verdict"], "pass");
      EXPECT_LE(t["predicted_ms"].get<double>(), t["limit_ms"].get<double>());
      EXPECT_LT(t["low90_ms"], t["predicted_ms"]);
    }
    const ordered_json& m = o["memory_per_gpu_gib"];
    double sum = 0;
    for (const char* part : {"weights", "kv_cache", "activations", "overhead", "free"}) sum += m[part].get<double>();
    EXPECT_NEAR(sum, m["total"].get<double>(), 1e-3);
    EXPECT_LE(o["cost"]["usd_per_month_autoscaled"].get<double>(), o["cost"]["usd_per_month"].get<double>() + 1);
    EXPECT_GT(o["day"]["attainment"].get<double>(), 0.9);
    cheapest = std::min(cheapest, o["cost"]["usd_per_month"].get<double>());
    EXPECT_FALSE(o["rationale"].get<std::string>().empty());
  }
  EXPECT_EQ(plan["frontier"][0]["usd_per_month"].get<double>(), cheapest);
  EXPECT_GE(plan["answers"]["max_rate"]["value"].get<double>(), request.spec.number("peak_rps") * 0.999);
  EXPECT_EQ(plan["sensitivity"]["inputs"].size(), 3u);
  const std::string html = plan_html(plan);
  for (const char* outside : {"http://", "https://", "<script", "src="})
    EXPECT_EQ(html.find(outside), std::string::npos) << outside;
  // Another date or spec is another plan.
  PlanRequest other = request;
  other.spec = spec_of({{"task_type", "chatbot"}, {"users", 5001}, {"priority", "cost"}});
  EXPECT_NE(make_plan(shipped_world(), other).value()["plan_id"], plan["plan_id"]);
}

TEST(Plan, OtherWaysToPayAndWhatTheyRisk) {
  json given = {{"peak_rps", 300}, {"providers", {"aws"}}, {"regions", {{{"name", "us-east-1"}, {"share", 1}}}}};
  const auto mixes_of = [&] {
    std::map<std::string, ordered_json> out;
    const ordered_json plan = make_plan(shipped_world(), {spec_of(given), {}}).value();
    for (const ordered_json& mix : plan["purchase_mixes"]) out[mix["mix"].get<std::string>()] = mix;
    EXPECT_EQ(out["on_demand"]["change_pct"], 0);
    EXPECT_TRUE(plan["mixed_gpus"].contains("searched"));
    EXPECT_GE(plan["stack"].size(), 5u);
    return out;
  };
  // What no row holds is left out and named.
  auto mixes = mixes_of();
  EXPECT_NE(mixes["spot_30"]["left_out"].dump().find("spot_interruptions_per_day"), std::string::npos);
  EXPECT_NE(mixes["reserved"]["left_out"].dump().find("reserved_discount_pct"), std::string::npos);
  given["pricing"] = {{"spot_interruptions_per_day", 1}, {"reserved_discount_pct", 35}};
  given["available_gpus"] = {"L40S", "A10G"};  // which have a spot price
  mixes = mixes_of();
  EXPECT_NEAR(mixes["reserved"]["change_pct"].get<double>(), -35, 0.01);
  EXPECT_EQ(mixes["reserved"]["assumed"], true);
  const double expected = 0.7 * mixes["spot_70"]["instances"].get<double>();
  EXPECT_NEAR(mixes["spot_70"]["interruptions_per_day"].get<double>(), expected,
              1e-5 * expected);  // six digits are printed
  EXPECT_LT(mixes["spot_70"]["usd_per_month"].get<double>(), mixes["on_demand"]["usd_per_month"].get<double>());
  // Spares keep the reliability target in every mix.
  for (const auto& [name, mix] : mixes) EXPECT_LE(mix["too_few_replicas_pct"].get<double>(), 1.0) << name;
}

TEST(Plan, WhatUsersWriteStaysText) {
  const PlanRequest request{
      spec_of({{"name", "<img src=x onerror=alert(1)>|*b*"}, {"peak_rps", 1}, {"available_gpus", {"L4"}}}), {}};
  const ordered_json plan = make_plan(shipped_world(), request).value();
  EXPECT_EQ(plan_html(plan).find("<img"), std::string::npos);
  const std::string markdown = plan_markdown(plan);
  EXPECT_NE(markdown.find("\\<img src"), std::string::npos);
  EXPECT_EQ(markdown.find(" <img"), std::string::npos);
}

TEST(Plan, ImpossibleWishesSayWhatWouldBePossible) {
  const auto plan_of = [](json given) { return make_plan(shipped_world(), {spec_of(given), {}}); };
  // 8.54 ms for 8B in bf16 lies above A100's floor of 7.9, 0.5 ms below everything's.
  const ordered_json slow = plan_of({{"peak_rps", 1}, {"target_tpot_p90_ms", 0.5}}).value();
  EXPECT_EQ(slow["verdict"], "infeasible");
  EXPECT_TRUE(slow["options"].empty());
  bool named = false;
  for (const ordered_json& r : slow["rejected"])
    named = named || (r["nearest_change"].is_string() &&
                      r["nearest_change"].get<std::string>().find("target_tpot_p90_ms of ") == 0);
  EXPECT_TRUE(named) << slow["rejected"];
  const ordered_json poor = plan_of({{"peak_rps", 50}, {"budget", {{"max_monthly_cost_usd", 10}}}}).value();
  EXPECT_EQ(poor["verdict"], "infeasible");
  EXPECT_NE(poor["rejected"].dump().find("budget.max_monthly_cost_usd "), std::string::npos);
  // No price in the EU is known: nothing is made up.
  const ordered_json eu = plan_of({{"peak_rps", 1}, {"compliance", {"gdpr"}}}).value();
  EXPECT_EQ(eu["verdict"], "infeasible");
  EXPECT_NE(eu["left_out"].dump().find("gdpr"), std::string::npos);
  // Each of two regions has prices, none for a GPU of the other: who has what stands first.
  json two = {{"peak_rps", 1},
              {"regions", {{{"name", "us-east-1"}, {"share", 0.5}}, {{"name", "us-west-2"}, {"share", 0.5}}}}};
  const ordered_json apart = plan_of(two).value();
  EXPECT_EQ(apart["search"]["combinations"], 0);
  const ordered_json why = apart["rejected"].at(0);
  EXPECT_NE(why["reason"].get<std::string>().find("us-east-1 has "), std::string::npos) << why;
  EXPECT_NE(why["reason"].get<std::string>().find("us-west-2 has "), std::string::npos) << why;
  EXPECT_NE(why["nearest_change"].get<std::string>().find("pricing.gpu_prices"), std::string::npos) << why;
  // What it says to do helps.
  two["pricing"] = {{"gpu_prices", {{{"gpu", "L40S"}, {"usd_per_gpu_hour", 2.0}}}}};
  EXPECT_EQ(plan_of(two).value()["verdict"], "feasible");
  // With a price of the user's own it is planned, and marked.
  const ordered_json own = plan_of({{"peak_rps", 1},
                                    {"regions", {{{"name", "eu-west-1"}, {"share", 1}}}},
                                    {"compliance", {"gdpr"}},
                                    {"pricing", {{"gpu_prices", {{{"gpu", "L40S"}, {"usd_per_gpu_hour", 2.0}}}}}}})
                               .value();
  ASSERT_EQ(own["verdict"], "feasible");
  EXPECT_EQ(own["options"][0]["sites"][0]["price_assumed"], true);
  for (const auto& [given, param] :
       {std::pair<json, const char*>{{{"peak_rps", 1}, {"preferred_models", {"Qwen/Qwen3-32"}}}, "preferred_models"},
        {{{"peak_rps", 1}, {"available_gpus", {"H1000"}}}, "available_gpus"}}) {
    const auto refused = plan_of(given);
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.status().param(), param);
  }
}

// 405 billion parameters in 16 bits are 756 GiB: eight GPUs of 80 GB have no room, sixteen in two stages have.
TEST(Plan, StagesCarryWhatOneInstanceCannotHold) {
  json given = {{"peak_rps", 0.2},
                {"preferred_models", {"meta-llama/Meta-Llama-3.1-405B"}},
                {"available_gpus", {"H100-SXM5-80GB"}},
                {"quantizations", {"bf16"}},
                {"pricing", {{"gpu_prices", json::array({{{"gpu", "H100-SXM5-80GB"}, {"usd_per_gpu_hour", 3}}})}}},
                {"target_ttft_p90_ms", 60000},
                {"target_tpot_p90_ms", 1000},
                {"target_e2e_latency_p90_ms", 600000}};
  const ordered_json plan = make_plan(shipped_world(), {spec_of(given), {}}).value();
  ASSERT_FALSE(plan["options"].empty()) << plan["rejected"];
  for (const ordered_json& o : plan["options"]) {
    EXPECT_GE(o["pipeline_parallel"].get<int>(), 2) << o["id"];
    EXPECT_EQ(o["gpus_used"].get<int>(),
              o["replicas"].get<int>() * o["tensor_parallel"].get<int>() * o["pipeline_parallel"].get<int>());
    EXPECT_NE(o["id"].get<std::string>().find("|pp"), std::string::npos);
    EXPECT_NE(
        o["engine_flags"].dump().find("pipeline-parallel-size " + std::to_string(o["pipeline_parallel"].get<int>())),
        std::string::npos)
        << o["engine_flags"];
    const ordered_json& m = o["memory_per_gpu_gib"];
    EXPECT_LT(m["weights"].get<double>(), 80);
    EXPECT_GT(m["weights"].get<double>() * o["tensor_parallel"].get<int>() * o["pipeline_parallel"].get<int>(), 700);
  }
  given["gpu_constraints"] = {{"max_pipeline_parallel", 1}};
  const ordered_json none = make_plan(shipped_world(), {spec_of(given), {}}).value();
  EXPECT_TRUE(none["options"].empty());
  EXPECT_NE(none["rejected"].dump().find("weights"), std::string::npos) << none["rejected"];
}

TEST(Plan, KeepsTheBatchLimitOfTheSpec) {
  json given = {{"task_type", "chatbot"}, {"peak_rps", 5}, {"available_gpus", {"H100-SXM5-80GB"}}, {"max_num_seqs", 6}};
  const ordered_json plan = make_plan(shipped_world(), {spec_of(given), {}}).value();
  ASSERT_FALSE(plan["options"].empty()) << plan["rejected"];
  for (const ordered_json& o : plan["options"]) {
    EXPECT_LE(o["max_num_seqs"].get<int>(), 6);
    EXPECT_EQ(o["batch_limits_tried"].size(), 1u);
    EXPECT_LE(o["at_peak_per_replica"]["mean_batch"].get<double>(), 6);
    EXPECT_NE(o["engine_flags"].dump().find("--max-num-seqs " + std::to_string(o["max_num_seqs"].get<int>())),
              std::string::npos);
  }
  EXPECT_TRUE(names(errors_of(R"({"peak_rps": 1, "max_num_seqs": 0})"), "max_num_seqs"));
  EXPECT_TRUE(names(errors_of(R"({"peak_rps": 1, "max_num_seqs": 1e9})"), "max_num_seqs"));
  EXPECT_TRUE(names(errors_of(R"({"peak_rps": 1, "max_num_seqs": 2.5})"), "max_num_seqs"));
}

// The reader of an infeasible plan is told first what comes nearest, in sums that can be read.
TEST(Plan, SaysFirstWhatComesNearest) {
  const auto summary = [](const json& given) {
    const ordered_json plan = make_plan(shipped_world(), {spec_of(given), {}}).value();
    EXPECT_TRUE(plan["options"].empty());
    return plan["summary"].get<std::string>();
  };
  const std::string poor =
      summary({{"task_type", "chatbot"}, {"peak_rps", 300}, {"budget", {{"max_monthly_cost_usd", 1500}}}});
  EXPECT_NE(poor.find("budget.max_monthly_cost_usd is $1,500"), std::string::npos) << poor;
  EXPECT_NE(poor.find("What would let it in: budget.max_monthly_cost_usd "), std::string::npos) << poor;
  const std::string hasty = summary({{"task_type", "chatbot"}, {"peak_rps", 1}, {"target_ttft_p90_ms", 0.5}});
  EXPECT_NE(hasty.find("target_ttft_p90_ms of "), std::string::npos) << hasty;
  EXPECT_EQ(usd_text(2717.06), "$2,717");
  EXPECT_EQ(usd_text(999.994), "$999.99");
  EXPECT_EQ(usd_text(1234567.8), "$1,234,568");
  EXPECT_EQ(usd_text(0.0001), "$0.000100");
  EXPECT_EQ(usd_text(0), "$0.000000");
}

// Files whose name says four bits are not served as eight.
TEST(Plan, FilesOfOneFormatAreServedInIt) {
  json given = {{"task_type", "chatbot"}, {"peak_rps", 1}, {"preferred_models", {"nvidia/Gemma-4-26B-A4B-NVFP4"}}};
  const ordered_json plan = make_plan(shipped_world(), {spec_of(given), {}}).value();
  ASSERT_FALSE(plan["options"].empty()) << plan["rejected"];
  for (const ordered_json& o : plan["options"]) EXPECT_EQ(o["quantization"], "nvfp4") << o["id"];
}

TEST(Plan, BoughtGpusAgainstRent) {
  const ordered_json plan =
      make_plan(
          shipped_world(),
          {spec_of({{"peak_rps", 2},
                    {"deployment_model", "purchase"},
                    {"available_gpus", {"A100-80GB"}},
                    {"datacenter_context", {{"power_cost_per_kwh", 0.12}, {"purchase_price_usd_per_gpu", 15000}}}}),
           {}})
          .value();
  ASSERT_FALSE(plan["options"].empty()) << plan["rejected"];
  const ordered_json& o = plan["options"][0];
  const double gpus = o["gpus"].get<double>();
  // advisors.md section 7, per GPU: 182.21 / 4 and 1,848.87 / 4 a month.
  EXPECT_NEAR(o["ownership"]["power_usd_per_month"].get<double>(), gpus * 182.208 / 4, 0.01 * gpus);
  EXPECT_NEAR(o["ownership"]["purchase_usd_per_month"].get<double>(), gpus * 1848.875 / 4, 0.02 * gpus);
}

TEST(TrainedCache, GivesBackTheSamePredictorAndMistrustsItsFiles) {
  const ScratchDirectory scratch;
  const std::vector<ServingPoint> rows(shipped_points().begin(), shipped_points().begin() + 260);
  const std::string folder = scratch.path();
  const auto train = [&](const char* version) {
    TrainedCache cache(folder, version);
    Predictor predictor = Predictor::train(rows, shipped_facts(), shipped_gpus(), &cache).value();
    return std::pair(std::move(predictor), cache.hit());
  };
  ServingPoint point = rows[3];
  point.concurrency = 12;
  const auto [fresh, first] = train("1");
  EXPECT_FALSE(first);
  const Prediction expected = fresh.predict(Metric::kTtft, point).value();
  const auto same = [&](const Predictor& p) {
    const Prediction got = p.predict(Metric::kTtft, point).value();
    EXPECT_EQ(got.mean, expected.mean);
    EXPECT_EQ(got.log_half_width, expected.log_half_width);
    EXPECT_EQ(got.provenance, expected.provenance);
  };
  const auto [again, second] = train("1");
  EXPECT_TRUE(second);
  same(again);
  EXPECT_FALSE(train("2").second);  // another program
  // Cut, changed or empty: trained anew, and mended.
  for (int damage = 0; damage < 3; ++damage) {
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      const auto size = std::filesystem::file_size(entry.path());
      if (damage == 0) std::filesystem::resize_file(entry.path(), size / 2);
      if (damage == 1) std::filesystem::resize_file(entry.path(), 0);
      if (damage == 2)
        std::fstream(entry.path(), std::ios::in | std::ios::out | std::ios::binary).seekp(300).put('\x7f');
    }
    const auto [mended, hit] = train("1");
    EXPECT_FALSE(hit) << damage;
    same(mended);
    EXPECT_TRUE(train("1").second);
  }
}

}  // namespace
}  // namespace sextant::advisor

// What is emitted of a target where a schema sees nothing wrong: units for people, what a pod's end takes, a group's names.
#include <gtest/gtest.h>

#include "deploy/kubernetes/alerts.h"
#include "deploy/kubernetes/queries.h"
#include "deploy/render.h"

namespace sextant::deploy {
namespace {

using nlohmann::ordered_json;

ordered_json plan(const ordered_json& changes = ordered_json::object()) {
  ordered_json out = ordered_json::parse(R"({
    "schema": "sextant.plan/1", "plan_id": "0123456789", "version": "0.1.0",
    "specification": {"reliability_target": {"value": 99.9}},
    "options": [{"model_id": "m/a", "gpu": "L4", "engine": "sextant", "tensor_parallel": 1, "pipeline_parallel": 1,
      "replicas": 4, "max_num_seqs": 32, "memory_per_gpu_gib": {"weights": 93.1322574615},
      "targets": [{"target": "target_e2e_latency_p95_ms", "limit_ms": 12000.0}, {"target": "target_ttft_p90_ms", "limit_ms": 600.0},
                  {"target": "target_tpot_p90_ms", "limit_ms": 37.5}],
      "host_per_replica": {"cpus": 8, "memory_gib": 30},
      "sites": [{"region": "r", "provider": "aws", "replicas_needed": 4, "gpus_per_instance": 1}]}]})");
  out["options"][0].update(changes, true);
  return out;
}

Target target_of(const Options& options, const ordered_json& changes = ordered_json::object()) {
  Target target;
  for (const Status& error : read_target(plan(changes), options, target)) ADD_FAILURE() << error.message();
  return target;
}

TEST(Units, PeopleReadSecondsFromASecondOn) {
  EXPECT_EQ(duration_text(12000), "12 s");
  EXPECT_EQ(duration_text(999.5), "999.5 ms");
  EXPECT_EQ(duration_text(1000), "1 s");
  EXPECT_EQ(duration_text(1500), "1.5 s");
  EXPECT_EQ(duration_text(0.25), "0.25 ms");
  std::string summaries;
  for (const Alert& alert : alerts_of(target_of({}))) summaries += alert.summary + "\n";
  EXPECT_NE(summaries.find("above 12 s for"), std::string::npos) << summaries;
  EXPECT_NE(summaries.find("above 600 ms for"), std::string::npos);
  EXPECT_NE(summaries.find("above 37.5 ms for"), std::string::npos);
  EXPECT_EQ(summaries.find(".0 "), std::string::npos);
}

// 93.13 GiB are 100 GB: 200 s to read and 400 s to fetch at the default rates.
TEST(Starting, WaitsForTheDownloadWhereItHappens) {
  const auto startup = [](const Target& target) {
    const Object pod = pod_template_of(target, {});
    const Object probe = pod["spec"]["containers"][0]["startupProbe"];
    return probe["periodSeconds"].get<int64_t>() * probe["failureThreshold"].get<int64_t>();
  };
  const Target ours = target_of({});
  EXPECT_EQ(ours.load_seconds, 260);
  EXPECT_EQ(ours.download_seconds, 400);
  EXPECT_EQ(startup(ours), 2 * 260);
  EXPECT_EQ(workload_objects(ours)[0].second["spec"]["progressDeadlineSeconds"], 2 * 400 + 2 * 260 + 300);
  Options options;
  options.runtime = "vllm";
  EXPECT_EQ(startup(target_of(options)), 2 * (260 + 400));
  options.download_gb_per_s = 1;
  EXPECT_EQ(startup(target_of(options)), 2 * (260 + 100));
}

TEST(Ending, FitsTheNoticeOfTheCloud) {
  Options options;
  options.spot_percent = 50;
  options.spot_label = "cloud.example.com/spot=yes";
  const auto spot = [&](const char* provider) {
    const Target target =
        target_of(options, {{"sites", {{{"region", "r"}, {"provider", provider}, {"replicas_needed", 4}}}}});
    PodChoice choice;
    choice.pool = "spot";
    return pod_template_of(target, choice)["spec"];
  };
  EXPECT_EQ(spot("aws")["terminationGracePeriodSeconds"], kGracePeriodSeconds);
  const Object short_notice = spot("gcp");
  EXPECT_EQ(short_notice["terminationGracePeriodSeconds"], 25);
  EXPECT_NE(short_notice["containers"][0]["args"].dump().find("--shutdown-timeout=15"), std::string::npos);
  EXPECT_EQ(short_notice["tolerations"].back()["key"], "cloud.example.com/spot");
  // vLLM does not drain: it is stopped when it has had the time.
  options.runtime = "vllm";
  EXPECT_EQ(spot("gcp")["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"], 20);
}

TEST(Groups, OfVllmHaveOneApiAndOurServiceKeepsItsDistance) {
  Options options;
  options.runtime = "vllm";
  const Target target =
      target_of(options, {{"tensor_parallel", 8},
                          {"pipeline_parallel", 2},
                          {"sites", {{{"region", "r"}, {"replicas_needed", 2}, {"gpus_per_instance", 8}}}}});
  const Objects objects = workload_objects(target);
  ASSERT_EQ(objects[0].second["kind"], "LeaderWorkerSet");
  const Object of_set = objects[0].second["spec"]["leaderWorkerTemplate"];
  const Object leader = of_set["leaderTemplate"]["spec"]["containers"][0];
  const Object worker = of_set["workerTemplate"]["spec"]["containers"][0];
  EXPECT_TRUE(leader.contains("readinessProbe"));
  EXPECT_FALSE(worker.contains("readinessProbe") || worker.contains("livenessProbe") ||
               worker.contains("startupProbe"));
  EXPECT_EQ(worker["args"].back(), "--headless");
  EXPECT_EQ(leader["args"].size() + 1, worker["args"].size());
  for (const auto& [key, object] : objects)
    if (object["kind"] == "Service") {
      EXPECT_NE(object["metadata"]["name"], objects[0].second["metadata"]["name"]);
    }
}

TEST(Assumptions, AreSaidUnlessTheyWereGiven) {
  const auto notes = [](const Options& options) {
    std::string out;
    for (const std::string& note : target_of(options).notes) out += note + "\n";
    return out;
  };
  Options options;
  options.runtime = "vllm";
  const std::string all = notes(options);
  for (const char* what : {"vllm/vllm-openai:", "nvidia.com/gpu.product=NVIDIA-L4", "0.25 GB/s"})
    EXPECT_NE(all.find(what), std::string::npos) << what << " in " << all;
  options.image = "mine:1";
  options.gpu_product = "none";
  const std::string fewer = notes(options);
  EXPECT_EQ(fewer.find("image"), std::string::npos) << fewer;
  const Object pod = pod_template_of(target_of(options), {})["spec"];
  EXPECT_FALSE(pod.contains("affinity"));
}

}  // namespace
}  // namespace sextant::deploy

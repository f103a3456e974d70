// What a plan's compliance does to the files: pods held to the region, nothing from outside without TLS, annotations for the rest.
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "deploy/render.h"

namespace sextant::deploy {
namespace {

using nlohmann::ordered_json;

ordered_json plan_with(const ordered_json& compliance) {
  ordered_json plan = ordered_json::parse(R"({
    "schema": "sextant.plan/1", "plan_id": "0123456789", "version": "0.1.0",
    "options": [{"model_id": "Qwen/Qwen3-8B", "gpu": "L40S", "engine": "sextant", "replicas": 2, "max_num_seqs": 64,
                 "sites": [{"region": "eu-west-1", "provider": "aws", "instance": "g6e.xlarge", "gpus_per_instance": 1,
                            "usd_per_instance_hour": 1.9, "replicas_needed": 2}]}],
    "specification": {}})");
  if (!compliance.is_null()) plan["compliance"] = compliance;
  return plan;
}

const ordered_json kAsked =
    ordered_json::parse(R"({"regulations": ["gdpr", "soc2"], "audit_log": true, "audit_retention_days": 365,
    "content_retention_days_max": 30, "encryption_in_transit": true, "encryption_at_rest": true, "erasure_on_request": true, "rules": []})");

std::vector<std::string> fields_refused(const ordered_json& compliance, const Options& options = {}) {
  Target target;
  std::vector<std::string> fields;
  for (const Status& error : read_target(plan_with(compliance), options, target)) fields.push_back(error.param());
  return fields;
}

ordered_json deployment_of(const ordered_json& compliance) {
  Bundle bundle;
  const std::vector<Status> errors = render(plan_with(compliance), {}, bundle);
  EXPECT_TRUE(errors.empty()) << (errors.empty() ? "" : errors[0].message());
  Target target;
  EXPECT_TRUE(read_target(plan_with(compliance), {}, target).empty());
  for (const ObjectFile& file : object_files_of(target)) {
    for (const auto& [key, object] : file.objects)
      if (object["kind"] == "Deployment") return object;
  }
  return {};
}

TEST(Compliance, HoldsPodsToTheRegionAndSaysWhatIsAsked) {
  const std::string asked = deployment_of(kAsked).dump();
  EXPECT_NE(asked.find(R"({"key":"topology.kubernetes.io/region","operator":"In","values":["eu-west-1"]})"),
            std::string::npos);
  EXPECT_NE(
      asked.find(
          R"("sextant/compliance":"gdpr, soc2","sextant/audit-retention-days":"365","sextant/content-retention-days-max":"30")"),
      std::string::npos);
  const std::string unasked = deployment_of(nullptr).dump();
  EXPECT_EQ(unasked.find("topology.kubernetes.io/region"), std::string::npos);
  EXPECT_EQ(unasked.find("sextant/compliance"), std::string::npos);
}

TEST(Compliance, NothingFromOutsideWithoutTls) {
  Options options;
  EXPECT_EQ(fields_refused(kAsked, options), std::vector<std::string>{});
  options.service_type = "LoadBalancer";
  EXPECT_EQ(fields_refused(kAsked, options), std::vector<std::string>{"service_type"});
  EXPECT_EQ(fields_refused(nullptr, options), std::vector<std::string>{});
  options.service_type = "ClusterIP";
  options.expose = "ingress";
  options.host = "llm.example.org";
  EXPECT_EQ(fields_refused(kAsked, options), std::vector<std::string>{"tls_secret"});
  options.tls_secret = "llm-tls";
  EXPECT_EQ(fields_refused(kAsked, options), std::vector<std::string>{});
}

TEST(Compliance, DamagedOnesAreRefusedByTheirField) {
  for (const auto& [key, value] :
       std::vector<std::pair<std::string, ordered_json>>{{"regulations", "gdpr"},
                                                         {"regulations", {"gdpr\nx"}},
                                                         {"regulations", {7}},
                                                         {"regulations", ordered_json()},
                                                         {"audit_retention_days", -1},
                                                         {"audit_retention_days", "long"},
                                                         {"content_retention_days_max", 1.5}}) {
    ordered_json damaged = kAsked;
    damaged[key] = value;
    EXPECT_EQ(fields_refused(damaged), std::vector<std::string>{"compliance." + key}) << value;
  }
  EXPECT_EQ(fields_refused("gdpr"), std::vector<std::string>{"compliance.regulations"});
}

}  // namespace
}  // namespace sextant::deploy

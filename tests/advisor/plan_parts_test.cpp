// Parts of a plan that need no predictions: what compliance asks.
#include <gtest/gtest.h>

#include "advisor/plan/plan.h"
#include "tests/advisor/planning_world.h"

namespace sextant::advisor {
namespace {

using nlohmann::json;

// The templates alone, without training.
Spec bare_spec(const json& given) {
  static const UseCases use_cases = [] {
    UseCases out;
    KnowledgeBase kb = KnowledgeBase::open(":memory:").value();
    const auto documents = kb.list(KbKind::kUseCase).value();
    for (const KbDocument& document : documents) out[document.id] = document.body;
    return out;
  }();
  Spec spec;
  const auto errors = read_spec_object(given, use_cases, spec);
  EXPECT_TRUE(errors.empty()) << errors.front().message();
  return spec;
}

TEST(Compliance, TheStricterOfAllRegulationsHolds) {
  const auto of = [](json names) { return compliance_of(bare_spec({{"peak_rps", 1}, {"compliance", names}})); };
  const Compliance none = compliance_of(bare_spec({{"peak_rps", 1}}));
  EXPECT_FALSE(none.audit_log || none.encryption_at_rest || none.encryption_in_transit || none.erasure_on_request);
  EXPECT_TRUE(none.allows("any") && none.regions_rule().empty() && none.rules.empty());
  const Compliance soc2 = of({"soc2"});
  EXPECT_EQ(soc2.audit_retention_days, 365);
  EXPECT_FALSE(soc2.content_retention_days_max.has_value());
  EXPECT_TRUE(soc2.allows("ap-southeast-1") && soc2.encryption_at_rest);
  const Compliance all = of({"gdpr", "ccpa", "hipaa", "soc2"});
  EXPECT_EQ(all.audit_retention_days, 2192);  // six years
  EXPECT_EQ(all.content_retention_days_max, 30);
  EXPECT_TRUE(all.erasure_on_request);
  EXPECT_GE(of({"ccpa"}).audit_retention_days, 730);
}

TEST(Compliance, RegionsAreKeptToWhereDataMayBe) {
  const auto allowed = [](json names, const char* region) {
    return compliance_of(bare_spec({{"peak_rps", 1}, {"compliance", names}})).allows(region);
  };
  for (const char* eu : {"eu-west-1", "eu-central-1", "europe-west4", "westeurope", "francecentral"}) {
    EXPECT_TRUE(allowed({"gdpr"}, eu)) << eu;
    EXPECT_FALSE(allowed({"hipaa"}, eu)) << eu;
    EXPECT_TRUE(allowed({"gdpr", "hipaa"}, eu)) << eu;
  }
  for (const char* us : {"us-east-1", "us-central1", "eastus", "southcentralus"}) {
    EXPECT_TRUE(allowed({"hipaa"}, us)) << us;
    EXPECT_FALSE(allowed({"gdpr"}, us)) << us;
  }
  // London, Zurich, nowhere; and names that only look alike.
  for (const char* neither :
       {"eu-west-2", "eu-central-2", "europe-west2", "any", "", "ap-southeast-1", "us", "australiaeast"}) {
    EXPECT_FALSE(allowed({"gdpr"}, neither)) << neither;
    EXPECT_FALSE(allowed({"hipaa"}, neither)) << neither;
  }
}

}  // namespace
}  // namespace sextant::advisor

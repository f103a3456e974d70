// What regulations ask of a deployment, and which regions they allow. The figures are those of the texts that `why` names; where
// a text gives none, the plan says that it is a custom.
#include <algorithm>

#include "advisor/plan/plan.h"

namespace sextant::advisor {
namespace {

using nlohmann::ordered_json;

constexpr int kSixYears = 6 * 365 + 2;  // with its leap days, whichever years they are
constexpr int kTwoYears = 2 * 365 + 1;
constexpr int kContentDays = 30;

bool in_the_eu(const std::string& region) {
  static const char* const names[] = {"eu-",          "europe-west1",     "europe-west3",       "europe-west4",
                                      "europe-west8", "europe-west9",     "europe-west10",      "europe-west12",
                                      "europe-north", "europe-southwest", "europe-central",     "westeurope",
                                      "northeurope",  "francecentral",    "germanywestcentral", "swedencentral",
                                      "italynorth",   "polandcentral",    "spaincentral"};
  // eu-west-2 is London, eu-central-2 Zurich, europe-west2 and west6 too.
  if (region == "eu-west-2" || region == "eu-central-2") return false;
  return std::any_of(std::begin(names), std::end(names), [&](const char* name) { return region.starts_with(name); });
}

bool in_the_us(const std::string& region) {
  static const char* const names[] = {
      "us-", "eastus", "westus", "centralus", "northcentralus", "southcentralus", "westcentralus"};
  return std::any_of(std::begin(names), std::end(names), [&](const char* name) { return region.starts_with(name); });
}

}  // namespace

bool Compliance::asks(const std::string& regulation) const {
  return std::find(regulations.begin(), regulations.end(), regulation) != regulations.end();
}

bool Compliance::allows(const std::string& region) const {
  const bool eu = asks("gdpr");
  const bool us = asks("hipaa");
  if (!eu && !us) return true;
  return (eu && in_the_eu(region)) || (us && in_the_us(region));
}

std::string Compliance::regions_rule() const {
  const bool eu = asks("gdpr");
  const bool us = asks("hipaa");
  if (eu && us)
    return "regions of the EU (gdpr) and of the United States (hipaa); requests of each kind go to their own";
  if (eu) return "regions of the EU (gdpr, chapter V: no transfer to third countries)";
  if (us) return "regions of the United States (hipaa: what business associate agreements customarily ask)";
  return "";
}

Compliance compliance_of(const Spec& spec) {
  Compliance out;
  out.regulations = spec.texts("compliance");
  const auto rule = [&](const char* regulation, const char* setting, const char* why) {
    out.rules.push_back({regulation, setting, why});
  };
  const auto keep_audit = [&](int days) {
    out.audit_log = true;
    out.audit_retention_days = std::max(out.audit_retention_days, days);
  };
  const auto keep_content = [&](int days) {
    out.content_retention_days_max = std::min(out.content_retention_days_max.value_or(days), days);
  };
  if (!out.regulations.empty()) {
    out.encryption_in_transit = true;
    out.encryption_at_rest = true;
  }
  if (out.asks("gdpr")) {
    keep_audit(365);
    keep_content(kContentDays);
    out.erasure_on_request = true;
    rule("gdpr", "regions", "Art. 44: personal data leave the EU only under conditions that a plan cannot check");
    rule("gdpr", "encryption", "Art. 32(1)(a)");
    rule("gdpr", "audit log of 365 days", "Art. 5(2), accountability; the span is a custom, no figure of the text");
    rule("gdpr", "prompts and answers for at most 30 days",
         "Art. 5(1)(e), storage limitation; the span is a custom, no figure of the text");
    rule("gdpr", "erasure on request", "Art. 17");
  }
  if (out.asks("ccpa")) {
    keep_audit(kTwoYears);
    out.erasure_on_request = true;
    rule("ccpa", "audit log of 24 months", "11 CCR 7101(a): records of consumers' requests for at least 24 months");
    rule("ccpa", "encryption", "Civ. Code 1798.150: liability for what was stolen unencrypted");
    rule("ccpa", "erasure on request", "Civ. Code 1798.105");
  }
  if (out.asks("hipaa")) {
    keep_audit(kSixYears);
    keep_content(kContentDays);
    rule("hipaa", "regions", "business associate agreements customarily keep health data in the United States");
    rule("hipaa", "audit log of six years", "45 CFR 164.312(b) audit controls, 164.316(b)(2)(i) six years");
    rule("hipaa", "encryption", "45 CFR 164.312(a)(2)(iv) at rest, 164.312(e)(2)(ii) in transit");
    rule("hipaa", "prompts and answers for at most 30 days",
         "45 CFR 164.502(b), minimum necessary; the span is a custom, no figure of the text");
  }
  if (out.asks("soc2")) {
    keep_audit(365);
    rule("soc2", "audit log of 365 days", "trust services criteria CC7.2; a type II report covers up to twelve months");
    rule("soc2", "encryption", "trust services criteria CC6.1 at rest, CC6.7 in transit");
  }
  return out;
}

ordered_json compliance_json(const Compliance& c) {
  ordered_json rules = ordered_json::array();
  for (const Compliance::Rule& r : c.rules)
    rules.push_back({{"regulation", r.regulation}, {"setting", r.setting}, {"why", r.why}});
  const std::string regions = c.regions_rule();
  return {{"regulations", c.regulations},
          {"regions", regions.empty() ? ordered_json(nullptr) : ordered_json(regions)},
          {"audit_log", c.audit_log},
          {"audit_retention_days", c.audit_retention_days},
          {"content_retention_days_max",
           c.content_retention_days_max ? ordered_json(*c.content_retention_days_max) : ordered_json(nullptr)},
          {"encryption_in_transit", c.encryption_in_transit},
          {"encryption_at_rest", c.encryption_at_rest},
          {"erasure_on_request", c.erasure_on_request},
          {"rules", rules}};
}

}  // namespace sextant::advisor

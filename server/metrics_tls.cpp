#include "server/metrics_tls.h"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include "server/http/tls_certificates.h"

namespace sextant {
namespace {

prometheus::MetricFamily family_of(const char* name, const char* help, prometheus::MetricType type) {
  prometheus::MetricFamily family;
  family.name = name;
  family.help = help;
  family.type = type;
  return family;
}

void add_outcome(prometheus::MetricFamily& family, const char* outcome, uint64_t count) {
  prometheus::ClientMetric metric;
  metric.label.push_back({"outcome", outcome});
  metric.counter.value = static_cast<double>(count);
  family.metric.push_back(std::move(metric));
}

std::vector<prometheus::MetricFamily> families_of(const http::TlsReading& reading) {
  using prometheus::MetricType;
  std::vector<prometheus::MetricFamily> families;
  auto& expiry = families.emplace_back(family_of("sextant:ssl_certificate_expiry_seconds",
                                                 "Time until the certificate in use ends; below 0 it has ended.",
                                                 MetricType::Gauge));
  expiry.metric.emplace_back().gauge.value = reading.expiry_s;
  auto& reloads = families.emplace_back(family_of("sextant:ssl_certificate_reloads_total",
                                                  "Changes of the certificate's files, taken or refused as not valid.",
                                                  MetricType::Counter));
  add_outcome(reloads, "taken", reading.num_reloads);
  add_outcome(reloads, "refused", reading.num_refused);
  auto& handshakes = families.emplace_back(family_of("sextant:ssl_handshakes_total",
                                                     "TLS handshakes, and connections that did not get through one.",
                                                     MetricType::Counter));
  add_outcome(handshakes, "finished", reading.num_handshakes);
  add_outcome(handshakes, "failed", reading.num_failed);
  return families;
}

}  // namespace

std::string render_tls_metrics(const http::TlsCertificates* tls) {
  return tls == nullptr ? std::string() : prometheus::TextSerializer().Serialize(families_of(tls->reading()));
}

std::vector<ExportedFamily> exported_tls_metrics() {
  std::vector<ExportedFamily> exported;
  for (const prometheus::MetricFamily& family : families_of({})) {
    ExportedFamily each{family.name, family.type == prometheus::MetricType::Counter ? "counter" : "gauge", {}};
    for (const auto& label : family.metric.front().label) each.labels.push_back(label.name);
    exported.push_back(std::move(each));
  }
  return exported;
}

}  // namespace sextant

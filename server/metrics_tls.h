// What /metrics says of TLS: how long the certificate is good for, changes of it, handshakes. Any thread.
#pragma once

#include <string>
#include <vector>

#include "server/metrics.h"

namespace sextant {

// In the Prometheus text format; empty for null: a server without TLS has no such series.
std::string render_tls_metrics(const http::TlsCertificates* tls);
std::vector<ExportedFamily> exported_tls_metrics();

}  // namespace sextant

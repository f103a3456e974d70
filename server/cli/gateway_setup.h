// The gateway of a server, from its settings: the state store, who is let in, and the admin API behind it.
#pragma once

#include <memory>

#include "server/cli/serve_options.h"
#include "server/gateway/admin_api.h"
#include "server/gateway/authenticator.h"
#include "server/gateway/jwt.h"
#include "server/gateway/refusals.h"
#include "server/gateway/state_keeper.h"
#include "server/metrics_gateway.h"
#include "server/otlp/trace_exporter.h"

namespace sextant::cli {

struct Gateway {
  std::unique_ptr<RefusalCounts> refusals = std::make_unique<RefusalCounts>();
  std::unique_ptr<RequestAudit> audit;           // null: no audit log
  std::unique_ptr<StateKeeper> keeper;           // null: no state is kept
  std::unique_ptr<Authenticator> authenticator;  // points at the keeper
  const JwtAuthenticator* jwt = nullptr;         // the authenticator's; null: no tokens are taken
  std::unique_ptr<FairUse> fair_use;             // likewise; null: nobody is limited, for nobody is asked for a key
  bool has_admins = false;  // somebody may hold a key with any role; else --api-key is all there is
};

// Of what there is of these, for /metrics. Any thread.
GatewayReading read_gateway(const Gateway& gateway, const BackupKeeper* backups, const otlp::TraceExporter* traces);

// Opens the state store; its errors name the setting.
Result<Gateway> make_gateway(const ServerConfig& config);

}  // namespace sextant::cli

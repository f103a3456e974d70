#include "server/cli/gateway_setup.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace sextant::cli {

Result<Gateway> make_gateway(const ServerConfig& config) {
  Gateway gateway;
  if (!config.audit_log.empty()) {
    AuditOptions options;
    options.dir = config.audit_log;
    options.key_file = config.audit_key_file;
    options.retention_days = config.audit_retention_days;
    options.max_file_bytes = config.audit_file_bytes;
    ASSIGN_OR_RETURN(std::unique_ptr<AuditLog> log, AuditLog::open(std::move(options)));
    gateway.audit = std::make_unique<RequestAudit>(std::move(log));
  }
  if (config.keeps_state()) {
    ASSIGN_OR_RETURN(std::unique_ptr<StateStore> store, StateStore::open(config.state_dir, config.database_url));
    StateKeeper::Options options;
    options.default_limits = config.key_limits;
    ASSIGN_OR_RETURN(gateway.keeper, StateKeeper::start(std::move(store), std::move(options)));
    gateway.authenticator = stored_keys_authenticator(*gateway.keeper, config.api_key);
    gateway.has_admins = true;
  } else {
    gateway.authenticator = single_key_authenticator(config.api_key, config.key_limits);
  }
  if (!config.jwks.empty()) {
    JwtAuthenticator::Options options;
    options.jwks = config.jwks;
    options.refresh_interval = std::chrono::seconds(config.jwks_refresh_s);
    options.min_refresh_interval = std::min(options.min_refresh_interval, options.refresh_interval);
    options.audience = config.jwt_audience;
    options.issuer = config.jwt_issuer;
    options.roles_claim = config.jwt_roles_claim;
    options.tenant_claim = config.jwt_tenant_claim;
    options.leeway_s = config.jwt_leeway;
    options.complete = [keeper = gateway.keeper.get(), limits = config.key_limits](Identity& identity) {
      identity.limits = limits;
      if (keeper != nullptr) keeper->complete(identity);
    };
    ASSIGN_OR_RETURN(std::unique_ptr<JwtAuthenticator> jwt, JwtAuthenticator::start(std::move(options)));
    // Without keys of our own, what is no token is refused.
    if (!config.keeps_state() && config.api_key.empty()) gateway.authenticator = no_keys_authenticator();
    gateway.jwt = jwt.get();
    gateway.authenticator = combined_authenticator(std::move(gateway.authenticator), std::move(jwt));
    gateway.has_admins = true;
  }
  if (config.asks_for_keys()) {
    FairUse::Options options;
    options.unauthenticated_per_s = config.unauthenticated_per_s;
    options.failed_logins_per_minute = config.failed_logins_per_minute;
    options.shed_above_requests = config.shed_above_requests;
    options.shed_max_tokens = config.shed_max_tokens;
    options.refusals = gateway.refusals.get();
    if (!config.redis_url.empty()) {
      SharedLimits::Options shared;
      ASSIGN_OR_RETURN(shared.address, redis::parse_url(config.redis_url, config.redis_password));
      shared.timeout = std::chrono::milliseconds(config.redis_timeout_ms);
      options.shared = std::move(shared);
    }
    gateway.fair_use = std::make_unique<FairUse>(std::move(options), gateway.keeper.get());
  }
  return gateway;
}

GatewayReading read_gateway(const Gateway& gateway, const BackupKeeper* backups, const otlp::TraceExporter* traces) {
  GatewayReading reading;
  reading.refused = gateway.refusals->by_name();
  if (gateway.keeper) {
    const StateKeeper::Health health = gateway.keeper->health();
    reading.store = {health.is_up, health.num_failures, static_cast<uint64_t>(health.unwritten_requests)};
  }
  if (gateway.fair_use) {
    if (const auto health = gateway.fair_use->shared_health())
      reading.shared_limits = {health->is_up, health->num_failures, health->num_local};
  }
  if (gateway.jwt != nullptr) {
    const JwtAuthenticator::Health health = gateway.jwt->health();
    reading.token_keys = {health.is_up, health.num_failures, health.num_keys,
                          static_cast<double>(health.last_success_unix_s)};
  }
  if (gateway.audit) {
    const AuditLog::Stats stats = gateway.audit->log().stats();
    reading.audit = {stats.num_recorded, stats.num_lost, stats.num_waiting, stats.is_failing};
  }
  if (backups != nullptr) {
    const BackupKeeper::Stats stats = backups->stats();
    reading.backups = {stats.num_made, stats.num_failed, static_cast<double>(stats.last_unix_ms) * 1e-3};
  }
  if (traces != nullptr) {
    const otlp::TraceExporter::Stats stats = traces->stats();
    reading.traces = {stats.num_exported, stats.num_dropped, stats.num_failures, stats.is_up};
  }
  return reading;
}

}  // namespace sextant::cli

#include "server/metrics_gateway.h"

namespace sextant {
namespace {

prometheus::Counter& counter(prometheus::Registry& registry, const char* name, const char* help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add({});
}

prometheus::Gauge& gauge(prometheus::Registry& registry, const char* name, const char* help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add({});
}

}  // namespace

GatewayMeter::GatewayMeter(prometheus::Registry& registry)
    : registry_(registry),
      refused_(
          prometheus::BuildCounter()
              .Name("sextant:requests_refused_total")
              .Help("Requests that were refused, by reason: rate, tokens, concurrency and quota are limits of keys; "
                    "address, failed_logins and connections those of client addresses.")
              .Register(registry)) {
  set_refused_by_queue(0);
}

void GatewayMeter::set_refused(const std::string& reason, double total) {
  auto found = refused_by_reason_.find(reason);
  if (found == refused_by_reason_.end())
    found = refused_by_reason_.emplace(reason, TotalCounter(refused_.Add({{"reason", reason}}))).first;
  found->second.set(total);
}

void GatewayMeter::apply(const GatewayReading& reading) {
  for (const auto& [reason, total] : reading.refused) set_refused(reason, static_cast<double>(total));
  if (reading.store) {
    if (!store_) {
      store_.emplace(
          Store{gauge(registry_, "sextant:state_store_up", "1 while the store of keys, tenants and usage answers."),
                TotalCounter(
                    counter(registry_, "sextant:state_store_failures_total", "Times that the state store went away.")),
                gauge(registry_, "sextant:state_store_unwritten_requests",
                      "Requests whose usage is not in the state store yet; it grows while the store is away.")});
    }
    store_->is_up.Set(reading.store->is_up ? 1 : 0);
    store_->failures.set(static_cast<double>(reading.store->failures));
    store_->unwritten.Set(static_cast<double>(reading.store->unwritten_requests));
  }
  if (reading.shared_limits) {
    if (!shared_limits_) {
      shared_limits_.emplace(SharedLimits{
          gauge(registry_, "sextant:redis_up", "1 while the Redis that limits are shared in answers."),
          TotalCounter(counter(registry_, "sextant:redis_failures_total", "Times that this Redis went away.")),
          TotalCounter(counter(registry_, "sextant:redis_local_checks_total",
                               "Limits that were checked without Redis, in this process alone."))});
    }
    shared_limits_->is_up.Set(reading.shared_limits->is_up ? 1 : 0);
    shared_limits_->failures.set(static_cast<double>(reading.shared_limits->failures));
    shared_limits_->local_checks.set(static_cast<double>(reading.shared_limits->local_checks));
  }
  if (reading.token_keys) {
    if (!token_keys_) {
      token_keys_.emplace(TokenKeys{
          gauge(registry_, "sextant:jwks_up", "1 while the last try to read the keys of signed tokens worked."),
          TotalCounter(
              counter(registry_, "sextant:jwks_failures_total", "Tries to read these keys that did not work.")),
          gauge(registry_, "sextant:jwks_keys", "Keys that signed tokens are checked against."),
          gauge(registry_, "sextant:jwks_last_success_timestamp_seconds",
                "When these keys were last read; 0: not yet.")});
    }
    token_keys_->is_up.Set(reading.token_keys->is_up ? 1 : 0);
    token_keys_->failures.set(static_cast<double>(reading.token_keys->failures));
    token_keys_->keys.Set(static_cast<double>(reading.token_keys->keys));
    token_keys_->last_success.Set(reading.token_keys->last_success_unix_s);
  }
  if (reading.audit) {
    if (!audit_) {
      audit_.emplace(Audit{TotalCounter(counter(registry_, "audit_records_total",
                                                "Records that the audit log was told, lost ones included.")),
                           TotalCounter(counter(registry_, "audit_records_lost_total",
                                                "Records that the audit log had no room to keep.")),
                           gauge(registry_, "audit_records_waiting", "Records that are not on disk yet."),
                           gauge(registry_, "audit_log_failing", "1 while the audit log cannot be written.")});
    }
    audit_->records.set(static_cast<double>(reading.audit->records));
    audit_->lost.set(static_cast<double>(reading.audit->lost));
    audit_->waiting.Set(static_cast<double>(reading.audit->waiting));
    audit_->is_failing.Set(reading.audit->is_failing ? 1 : 0);
  }
  if (reading.backups) {
    if (!backups_) {
      backups_.emplace(Backups{
          TotalCounter(counter(registry_, "backups_total", "Backups that were made.")),
          TotalCounter(counter(registry_, "backup_failures_total", "Backups that could not be made.")),
          gauge(registry_, "backup_last_timestamp_seconds", "When the last backup was made; 0: none since start.")});
    }
    backups_->made.set(static_cast<double>(reading.backups->made));
    backups_->failed.set(static_cast<double>(reading.backups->failed));
    backups_->last.Set(reading.backups->last_unix_s);
  }
  if (reading.traces) {
    if (!traces_) {
      traces_.emplace(Traces{
          TotalCounter(counter(registry_, "sextant:trace_spans_exported_total", "Spans that the collector has taken.")),
          TotalCounter(counter(registry_, "sextant:trace_spans_dropped_total",
                               "Spans that found no room in the queue, or that the collector refused.")),
          TotalCounter(
              counter(registry_, "sextant:trace_export_failures_total", "Posts to the collector that did not work.")),
          gauge(registry_, "sextant:trace_exporter_up", "1 while the last post to the collector of traces worked.")});
    }
    traces_->exported.set(static_cast<double>(reading.traces->exported));
    traces_->dropped.set(static_cast<double>(reading.traces->dropped));
    traces_->failures.set(static_cast<double>(reading.traces->failures));
    traces_->is_up.Set(reading.traces->is_up ? 1 : 0);
  }
}

}  // namespace sextant

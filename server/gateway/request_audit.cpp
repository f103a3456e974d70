#include "server/gateway/request_audit.h"

#include <chrono>
#include <utility>

#include "server/gateway/identity.h"

namespace sextant {

RequestAudit::RequestAudit(std::unique_ptr<AuditLog> log, const Clock& clock)
    : log_(std::move(log)), clock_(clock), refusals_(kRefusalsPerSecond, kRefusalBurst, clock.now_ns()) {}

RequestAudit::~RequestAudit() {
  const std::lock_guard lock(mutex_);
  flush_unrecorded();
}

void RequestAudit::flush_unrecorded() {
  if (num_unrecorded_ == 0) return;
  AuditEvent event;
  event.action = "authorise.more";
  event.outcome = "refused";
  event.detail = std::to_string(std::exchange(num_unrecorded_, 0)) + " more refusals, not recorded one by one";
  log_->record(event);
}

void RequestAudit::record(const AuditEvent& event) {
  if (event.outcome == "refused") {
    const std::lock_guard lock(mutex_);
    if (!refusals_.try_take(1, clock_.now_ns())) {
      ++num_unrecorded_;
      return;
    }
    flush_unrecorded();
  }
  log_->record(event);
}

void RequestAudit::on_request(const http::RequestRecord& record) {
  if (record.notes == nullptr || !record.notes->is_served) return;
  const http::RequestNotes& notes = *record.notes;
  AuditEvent event;
  if (notes.identity != nullptr) {
    event.who = notes.identity->key_id;
    event.tenant = notes.identity->tenant;
  }
  event.client_address = record.client_address;
  event.request_id = record.request_id;
  event.action = "request";
  event.target = std::string(record.method) + " " + std::string(record.pattern);
  event.outcome = record.client_gone || record.status >= 400 ? "failed" : "done";
  event.detail = record.client_gone ? "the client went before the end" : notes.finish_reason;
  event.prompt_tokens = notes.prompt_tokens;
  event.completion_tokens = notes.completion_tokens;
  event.model = notes.model;
  event.status = record.status;
  event.duration_ms = static_cast<int64_t>(record.duration_s * 1e3);
  event.prompt = notes.prompt;
  log_->record(event);
}

bool RequestAudit::may_work() const {
  const AuditLog::Stats stats = log_->stats();
  return !stats.is_failing && !stats.is_crowded;
}

}  // namespace sextant

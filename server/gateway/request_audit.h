// RequestAudit: what of a server's life goes into its audit log: each request that was let through to work, once, when it has
// ended; each admin action; each refusal, of which no flood may fill the log: so many a second, and the number of the others.
// Any thread; never waits for the disk.
#pragma once

#include <memory>
#include <mutex>

#include "engine/base/clock.h"
#include "server/gateway/audit_log.h"
#include "server/gateway/token_bucket.h"
#include "server/http/listener.h"

namespace sextant {

class RequestAudit final : public AuditSink {
 public:
  static constexpr double kRefusalsPerSecond = 50, kRefusalBurst = 500;

  explicit RequestAudit(std::unique_ptr<AuditLog> log, const Clock& clock = SteadyClock::instance());
  ~RequestAudit() override;

  void record(const AuditEvent& event) override;
  void on_request(const http::RequestRecord& record);

  // False: the log cannot take what is done now. A server that must not work unseen refuses work.
  bool may_work() const;
  AuditLog& log() { return *log_; }

 private:
  void flush_unrecorded();  // under mutex_

  const std::unique_ptr<AuditLog> log_;
  const Clock& clock_;
  std::mutex mutex_;
  TokenBucket refusals_;         // guarded by mutex_
  uint64_t num_unrecorded_ = 0;  // likewise
};

}  // namespace sextant

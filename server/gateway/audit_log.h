// AuditLog: who did what, when and with what outcome, as files of JSON lines that are only appended to and whose records are
// chained by hashes (audit_record.h): what is changed, taken out or put in between is found. What is cut off at the end is found
// by who keeps the last hash elsewhere: it is in the report of verify_audit.
// record() only queues; a thread of its own writes, flushes to disk once for all that waits, starts a new file at a size, and
// deletes files that are older than they may be. What does not fit the queue is counted, and the count recorded. A disk that takes
// nothing (full, say) is tried again each second: what was half written is cut off, and what waits goes on waiting.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "server/gateway/audit_record.h"

namespace sextant {

struct AuditOptions {
  std::string dir = {};
  std::string key_file = {};          // empty: not encrypted
  int64_t retention_days = 0;         // 0: for ever
  int64_t max_file_bytes = 64 << 20;  // then a new file begins
  size_t queue_capacity = 8192;
  std::function<int64_t()> now_ms = {};  // empty: the wall clock
};

struct AuditReport {
  size_t num_files = 0;
  int64_t num_records = 0, num_erased = 0, num_unread = 0;  // unread: encrypted, and no key was given
  int64_t first_seq = 0, last_seq = 0;                      // first_seq above 1: older ones were deleted
  std::string head = kAuditStart;                           // hash of the last record
  std::vector<std::string> problems;                        // file, line and what is wrong; at most 100
};

class AuditLog final : public AuditSink {
 public:
  // Makes the folder (this user's alone) when it is absent, goes on behind what is there, and cuts off a line that a crash
  // left half written, which it records. Another process that writes there is an error.
  static Result<std::unique_ptr<AuditLog>> open(AuditOptions options);
  ~AuditLog() override;  // writes what waits

  void record(const AuditEvent& event) override;
  // Waits until all that was recorded before is on disk, or could not be written. The error of the last try, if any.
  Status flush();

  struct Stats {
    uint64_t num_recorded = 0, num_lost = 0;  // lost: did not fit the queue
    bool is_failing = false;                  // the last try to write failed, or what came since did not fit
    bool is_crowded = false;                  // half of the queue is full
    uint64_t num_waiting = 0;                 // for the disk, now
  };
  Stats stats() const;
  const AuditOptions& options() const { return options_; }

  // As the functions below, of what is on disk now, beside the writing.
  Result<AuditReport> verify();
  Status export_records(const std::string& tenant, int64_t after_seq, int64_t limit,
                        const std::function<void(const nlohmann::json& record)>& sink);
  Result<int64_t> erase(const std::string& tenant);  // nothing is written meanwhile

 private:
  AuditLog(AuditOptions options, std::optional<AuditKey> key);
  Status resume();
  void run();
  Status write(const std::deque<AuditEvent>& events, size_t* num_written);
  Status write_lines(const std::string& lines);
  void append(AuditEvent event, std::string& lines);
  Status begin_file();
  void delete_old_files();
  int64_t now_ms() const;

  const AuditOptions options_;
  const std::optional<AuditKey> key_;
  std::mutex disk_mutex_;
  // The writing thread's, once it runs; with erase() under disk_mutex_.
  int lock_ = -1, file_ = -1;
  int64_t file_bytes_ = 0, next_seq_ = 1, swept_ms_ = 0;
  bool may_be_torn_ = false;
  std::string head_ = kAuditStart;

  mutable std::mutex mutex_;
  std::condition_variable wake_, written_;
  std::deque<AuditEvent> queue_;  // guarded, and what follows
  uint64_t num_recorded_ = 0, num_written_ = 0, num_dropped_ = 0, num_lost_ = 0;
  size_t num_writing_ = 0;  // taken out of the queue and not yet on disk
  uint64_t num_tries_ = 0;  // of writing
  int num_flushing_ = 0;    // they do not want to wait for company
  bool stopping_ = false;
  Status error_;
  std::thread thread_;  // last
};

// `is_written`: somebody writes there, and the last line may come apart.
Result<AuditReport> verify_audit(const std::string& dir, const std::optional<AuditKey>& key, bool is_written = false);

// Each record's body with seq and unix_ms, in order; of one tenant when `tenant` is not empty. Erased ones are left out. At most
// `limit` (0: all) from behind `after_seq`.
Status export_audit(const std::string& dir, const std::optional<AuditKey>& key, const std::string& tenant,
                    const std::function<void(const nlohmann::json& record)>& sink, int64_t after_seq = 0,
                    int64_t limit = 0);

// Erases the bodies of a tenant's records; the chain still verifies. No log may be open there. Gives how many.
Result<int64_t> erase_audit(const std::string& dir, const std::optional<AuditKey>& key, const std::string& tenant);

}  // namespace sextant

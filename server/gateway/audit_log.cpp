#include "server/gateway/audit_log.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <utility>

#include "engine/base/log.h"

namespace sextant {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int64_t kSweepMs = 3'600'000;
constexpr int64_t kDayMs = 86'400'000;
constexpr size_t kMaxProblems = 100;
constexpr std::chrono::milliseconds kGather{20}, kRetry{1000};

Status failed(const std::string& what, const std::string& path) {
  return unavailable("audit log: " + what + " " + path + ": " + std::strerror(errno));
}

std::string file_name(int64_t first_seq) {
  char text[40];
  std::snprintf(text, sizeof text, "audit-%015lld.jsonl", static_cast<long long>(first_seq));
  return text;
}

int64_t first_seq_of(const fs::path& path) { return std::atoll(path.filename().string().substr(6).c_str()); }

// In the order of their records.
Result<std::vector<fs::path>> files_of(const std::string& dir) {
  std::vector<fs::path> out;
  std::error_code error;
  for (fs::directory_iterator at(dir, error); !error && at != fs::directory_iterator(); at.increment(error)) {
    const std::string name = at->path().filename().string();
    if (name.starts_with("audit-") && name.ends_with(".jsonl") && name.size() == file_name(1).size())
      out.push_back(at->path());
  }
  if (error) return not_found("audit log: " + dir + " cannot be read: " + error.message());
  std::sort(out.begin(), out.end());
  return out;
}

// Calls visit(line, number) for each line; a last one without its newline is `torn`.
Status each_line(const fs::path& path,
                 const std::function<void(const std::string& line, int64_t number, bool torn)>& visit) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return failed("cannot read", path.string());
  int64_t number = 0;
  for (std::string line; std::getline(in, line);) visit(line, ++number, in.eof());
  return in.bad() ? failed("cannot read", path.string()) : ok_status();
}

// One writer at a time. The descriptor, which holds the lock until it is closed.
Result<int> lock_of(const std::string& dir) {
  const std::string path = dir + "/.lock";
  const int lock = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock < 0) return failed("cannot open", path);
  if (::flock(lock, LOCK_EX | LOCK_NB) == 0) return lock;
  ::close(lock);
  return unavailable("audit log: another process writes to " + dir);
}

// Under the lock of the folder.
Result<int64_t> erase_in(const std::string& dir, const std::optional<AuditKey>& key, const std::string& tenant);

}  // namespace

AuditLog::AuditLog(AuditOptions options, std::optional<AuditKey> key) : options_(std::move(options)), key_(key) {}

Result<std::unique_ptr<AuditLog>> AuditLog::open(AuditOptions options) {
  ASSIGN_OR_RETURN(std::optional<AuditKey> key, read_audit_key(options.key_file));
  std::error_code error;
  if (fs::create_directories(options.dir, error)) fs::permissions(options.dir, fs::perms::owner_all, error);
  if (error) return unavailable("audit log: cannot make " + options.dir + ": " + error.message());
  std::unique_ptr<AuditLog> log(new AuditLog(std::move(options), key));
  RETURN_IF_ERROR(log->resume());
  log->thread_ = std::thread([raw = log.get()] { raw->run(); });
  return log;
}

AuditLog::~AuditLog() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
  if (file_ >= 0) ::close(file_);
  if (lock_ >= 0) ::close(lock_);
}

int64_t AuditLog::now_ms() const {
  if (options_.now_ms) return options_.now_ms();
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

Status AuditLog::resume() {
  ASSIGN_OR_RETURN(lock_, lock_of(options_.dir));
  ASSIGN_OR_RETURN(const std::vector<fs::path> files, files_of(options_.dir));
  if (files.empty()) return begin_file();
  const fs::path& last = files.back();
  int64_t whole = 0;
  bool torn = false;
  std::string line;
  RETURN_IF_ERROR(each_line(last, [&](const std::string& text, int64_t, bool is_torn) {
    torn = is_torn;
    if (is_torn) return;
    line = text;
    whole += static_cast<int64_t>(text.size()) + 1;
  }));
  if (line.empty()) {
    // A file that was only just begun: its name and the file before say where the chain stands.
    next_seq_ = first_seq_of(last);
    if (files.size() > 1)
      RETURN_IF_ERROR(each_line(files[files.size() - 2], [&](const std::string& text, int64_t, bool) { line = text; }));
  }
  if (!line.empty()) {
    const auto record = parse_audit_record(line);
    if (!record.ok())
      return data_loss("audit log: the last line of " + last.string() +
                       " is no record; move the folder away, and keep it");
    next_seq_ = record->seq + 1;
    head_ = record->hash();
  }
  file_ = ::open(last.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  if (file_ < 0) return failed("cannot open", last.string());
  file_bytes_ = whole;
  if (!torn) return ok_status();
  if (::ftruncate(file_, whole) != 0) return failed("cannot repair", last.string());
  std::string lines;
  AuditEvent event;
  event.action = "audit.repair";
  event.outcome = "done";
  event.detail = "a line that was half written was cut off";
  append(event, lines);
  return write_lines(lines);
}

Status AuditLog::begin_file() {
  const std::string path = options_.dir + "/" + file_name(next_seq_);
  const int file = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file < 0) return failed("cannot make", path);
  if (file_ >= 0) ::close(file_);
  file_ = file;
  file_bytes_ = 0;
  if (const int dir = ::open(options_.dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); dir >= 0) {
    ::fsync(dir);
    ::close(dir);
  }
  return ok_status();
}

void AuditLog::record(const AuditEvent& event) {
  bool is_first = false;
  {
    const std::lock_guard lock(mutex_);
    if (queue_.size() + num_writing_ >= options_.queue_capacity) {
      ++num_dropped_;
      ++num_lost_;
      return;
    }
    is_first = queue_.empty() || queue_.size() == options_.queue_capacity / 2;
    queue_.push_back(event);
    if (queue_.back().unix_ms == 0) queue_.back().unix_ms = now_ms();
    ++num_recorded_;
  }
  if (is_first) wake_.notify_one();
}

Status AuditLog::flush() {
  std::unique_lock lock(mutex_);
  const uint64_t all = num_recorded_;
  const uint64_t tries = num_tries_;
  ++num_flushing_;
  wake_.notify_one();
  // One that had begun before this call does not count as a failure to write what came after.
  written_.wait(lock, [&] { return num_written_ >= all || (!error_.ok() && num_tries_ > tries + 1); });
  --num_flushing_;
  return error_;
}

AuditLog::Stats AuditLog::stats() const {
  const std::lock_guard lock(mutex_);
  return {num_recorded_ + num_lost_, num_lost_, !error_.ok() || num_dropped_ > 0,
          queue_.size() + num_writing_ >= options_.queue_capacity / 2, queue_.size() + num_writing_};
}

void AuditLog::run() {
  std::unique_lock lock(mutex_);
  const auto is_urgent = [&] { return stopping_ || num_flushing_ > 0 || queue_.size() >= options_.queue_capacity / 2; };
  for (;;) {
    wake_.wait(lock, [&] { return stopping_ || !queue_.empty() || num_dropped_ > 0; });
    if (queue_.empty() && num_dropped_ == 0) return;
    // One flush to disk for all that come within a moment; after a failure, not at once again.
    if (error_.ok()) {
      wake_.wait_for(lock, kGather, is_urgent);
    } else {
      wake_.wait_for(lock, kRetry, [&] { return stopping_ || num_flushing_ > 0; });
    }
    std::deque<AuditEvent> events;
    events.swap(queue_);
    num_writing_ = events.size();
    const uint64_t dropped = num_dropped_;
    lock.unlock();
    size_t num_done = 0;
    Status status = write(events, &num_done);
    if (status.ok() && dropped > 0) {
      AuditEvent event;
      event.action = "audit.dropped";
      event.outcome = "failed";
      event.detail = std::to_string(dropped) + " records did not fit the queue";
      size_t num_noted = 0;
      status = write({event}, &num_noted);
    }
    if (status.ok()) {
      const std::lock_guard disk(disk_mutex_);
      delete_old_files();
    }
    lock.lock();
    num_writing_ = 0;
    num_written_ += num_done;
    if (num_done < events.size()) {  // the rest waits on, before what has come since
      events.erase(events.begin(), events.begin() + static_cast<std::ptrdiff_t>(num_done));
      events.insert(events.end(), std::make_move_iterator(queue_.begin()), std::make_move_iterator(queue_.end()));
      events.swap(queue_);
    }
    ++num_tries_;
    if (status.ok()) num_dropped_ -= dropped;
    const bool had_failed = !error_.ok();
    if (!status.ok() && !had_failed) LOG_ERROR << status.message() << "; it is tried again each second";
    if (status.ok() && had_failed) LOG_WARNING << "the audit log can be written again";
    error_ = status;
    written_.notify_all();
    if (!status.ok() && stopping_) {
      LOG_ERROR << "audit log: " << queue_.size() << " records are lost: they could not be written before the end";
      return;
    }
  }
}

void AuditLog::append(AuditEvent event, std::string& lines) {
  if (event.unix_ms == 0) event.unix_ms = now_ms();
  const AuditRecord record = make_audit_record(event, next_seq_++, head_, key_);
  head_ = record.hash();
  lines += record.line();
}

// *num_written: so many of them are on disk, whole. What is not stays out of the chain.
Status AuditLog::write(const std::deque<AuditEvent>& events, size_t* num_written) {
  const std::lock_guard disk(disk_mutex_);
  std::string lines;
  std::string head = head_;
  int64_t seq = next_seq_;
  const auto write_out = [&](size_t num_events) {
    Status status = write_lines(lines);
    if (status.ok()) {
      head = head_;
      seq = next_seq_;
      *num_written = num_events;
    } else {
      head_ = head;
      next_seq_ = seq;
    }
    lines.clear();
    return status;
  };
  for (size_t i = 0; i < events.size(); ++i) {
    if (file_bytes_ + static_cast<int64_t>(lines.size()) >= options_.max_file_bytes) {
      RETURN_IF_ERROR(write_out(i));
      RETURN_IF_ERROR(begin_file());
    }
    append(events[i], lines);
  }
  return write_out(events.size());
}

Status AuditLog::write_lines(const std::string& lines) {
  // After a failure there may be half a line behind what counts.
  if (may_be_torn_ && ::ftruncate(file_, file_bytes_) != 0) return failed("cannot repair", options_.dir);
  may_be_torn_ = true;
  for (size_t done = 0; done < lines.size();) {
    const ssize_t count = ::write(file_, lines.data() + done, lines.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      const Status status = failed("cannot write in", options_.dir);
      if (::ftruncate(file_, file_bytes_) == 0) may_be_torn_ = false;
      return status;
    }
    done += static_cast<size_t>(count);
  }
  if (::fdatasync(file_) != 0) return failed("cannot flush", options_.dir);
  may_be_torn_ = false;
  file_bytes_ += static_cast<int64_t>(lines.size());
  return ok_status();
}

Result<AuditReport> AuditLog::verify() {
  RETURN_IF_ERROR(flush());
  return verify_audit(options_.dir, key_, true);
}

Status AuditLog::export_records(const std::string& tenant, int64_t after_seq, int64_t limit,
                                const std::function<void(const json& record)>& sink) {
  RETURN_IF_ERROR(flush());
  return export_audit(options_.dir, key_, tenant, sink, after_seq, limit);
}

Result<int64_t> AuditLog::erase(const std::string& tenant) {
  RETURN_IF_ERROR(flush());
  const std::lock_guard disk(disk_mutex_);
  const Result<int64_t> erased = erase_in(options_.dir, key_, tenant);
  // The file that is written to may be another one now, by the same name.
  ASSIGN_OR_RETURN(const std::vector<fs::path> files, files_of(options_.dir));
  if (files.empty()) return data_loss("audit log: the files in " + options_.dir + " are gone");
  const int file = ::open(files.back().c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  if (file < 0) return failed("cannot open", files.back().string());
  ::close(file_);
  file_ = file;
  file_bytes_ = ::lseek(file_, 0, SEEK_END);
  return erased;
}

void AuditLog::delete_old_files() {
  const int64_t now = now_ms();
  if (options_.retention_days <= 0 || now - swept_ms_ < kSweepMs) return;
  swept_ms_ = now;
  const auto files = files_of(options_.dir);
  if (!files.ok()) return;
  // A file may go when its last record may: all but the one that is written to.
  std::string deleted;
  for (size_t i = 0; i + 1 < files->size(); ++i) {
    std::string last;
    if (!each_line((*files)[i], [&](const std::string& line, int64_t, bool) { last = line; }).ok()) break;
    const auto record = parse_audit_record(last);
    if (!record.ok() || record->unix_ms >= now - options_.retention_days * kDayMs) break;
    std::error_code error;
    if (!fs::remove((*files)[i], error)) break;
    deleted = "records up to " + std::to_string(record->seq) + " were older than " +
              std::to_string(options_.retention_days) + " days";
  }
  if (deleted.empty()) return;
  const std::string head = head_;
  std::string lines;
  AuditEvent event;
  event.action = "audit.retention";
  event.outcome = "done";
  event.detail = deleted;
  append(event, lines);
  if (Status status = write_lines(lines); !status.ok()) {
    LOG_ERROR << status.message();
    head_ = head;
    --next_seq_;
  }
}

Result<AuditReport> verify_audit(const std::string& dir, const std::optional<AuditKey>& key, bool is_written) {
  ASSIGN_OR_RETURN(const std::vector<fs::path> files, files_of(dir));
  AuditReport report;
  report.num_files = files.size();
  for (const fs::path& path : files) {
    RETURN_IF_ERROR(each_line(path, [&](const std::string& line, int64_t number, bool torn) {
      const auto problem = [&](const std::string& what) {
        if (report.problems.size() < kMaxProblems)
          report.problems.push_back(path.filename().string() + ":" + std::to_string(number) + ": " + what);
      };
      if (torn && is_written && path == files.back()) return;
      if (torn) return problem("the line is cut off");
      const auto record = parse_audit_record(line);
      if (!record.ok()) return problem(record.status().message());
      const bool first = report.num_records == 0;
      if (first && record->seq == 1 && record->prev != kAuditStart) problem("the chain does not begin where it should");
      if (!first && record->seq != report.last_seq + 1)
        problem("record " + std::to_string(record->seq) + " follows " + std::to_string(report.last_seq));
      if (!first && record->prev != report.head) problem("does not follow the record before: one of them was changed");
      if (first) report.first_seq = record->seq;
      if (number == 1 && path.filename().string() != file_name(record->seq))
        problem("the file's name is another record's");
      report.last_seq = record->seq;
      report.head = record->hash();
      ++report.num_records;
      if (record->erased()) {
        ++report.num_erased;
      } else if (record->encrypted() && !key) {
        ++report.num_unread;
      } else if (const auto body = open_audit_body(*record, key); !body.ok()) {
        problem(body.status().message());
      }
    }));
  }
  return report;
}

Status export_audit(const std::string& dir, const std::optional<AuditKey>& key, const std::string& tenant,
                    const std::function<void(const json& record)>& sink, int64_t after_seq, int64_t limit) {
  ASSIGN_OR_RETURN(const std::vector<fs::path> files, files_of(dir));
  Status status;
  int64_t num_given = 0;
  const auto is_full = [&] { return limit > 0 && num_given >= limit; };
  for (size_t i = 0; i < files.size() && !is_full(); ++i) {
    // A file's name is its first record's number.
    if (i + 1 < files.size() && first_seq_of(files[i + 1]) <= after_seq + 1) continue;
    RETURN_IF_ERROR(each_line(files[i], [&](const std::string& line, int64_t, bool) {
      if (is_full()) return;
      const auto record = parse_audit_record(line);
      if (!record.ok() || record->erased() || record->seq <= after_seq) return;
      auto body = open_audit_body(*record, key);
      if (!body.ok()) {
        if (status.ok()) status = body.status();
        return;
      }
      if (!tenant.empty() && body->value("tenant", "") != tenant) return;
      body->erase("salt");
      (*body)["seq"] = record->seq;
      (*body)["unix_ms"] = record->unix_ms;
      ++num_given;
      sink(*body);
    }));
  }
  return status;
}

Result<int64_t> erase_audit(const std::string& dir, const std::optional<AuditKey>& key, const std::string& tenant) {
  ASSIGN_OR_RETURN(const int lock, lock_of(dir));
  const std::unique_ptr<const int, void (*)(const int*)> held(&lock, [](const int* each) { ::close(*each); });
  return erase_in(dir, key, tenant);
}

namespace {
Result<int64_t> erase_in(const std::string& dir, const std::optional<AuditKey>& key, const std::string& tenant) {
  ASSIGN_OR_RETURN(const std::vector<fs::path> files, files_of(dir));
  int64_t erased = 0;
  for (const fs::path& path : files) {
    std::string out;
    int64_t here = 0;
    Status status;
    RETURN_IF_ERROR(each_line(path, [&](const std::string& line, int64_t, bool torn) {
      auto record = parse_audit_record(line);
      if (record.ok() && !record->erased()) {
        const auto body = open_audit_body(*record, key);
        if (!body.ok() && record->encrypted() && status.ok()) status = body.status();
        if (body.ok() && body->value("tenant", "") == tenant) {
          record->body = nullptr;
          ++here;
          out += record->line();
          return;
        }
      }
      out += line + (torn ? "" : "\n");
    }));
    if (!status.ok()) return status;
    if (here == 0) continue;
    // Whole or not at all: beside it, flushed, then in its place.
    const fs::path beside = path.string() + ".erasing";
    const int file = ::open(beside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file < 0) return failed("cannot make", beside.string());
    bool ok = true;
    for (size_t done = 0; ok && done < out.size();) {
      const ssize_t count = ::write(file, out.data() + done, out.size() - done);
      ok = count > 0;
      done += ok ? static_cast<size_t>(count) : 0;
    }
    ok = ok && ::fsync(file) == 0;
    ::close(file);
    if (!ok || ::rename(beside.c_str(), path.c_str()) != 0) return failed("cannot write", beside.string());
    erased += here;
  }
  return erased;
}
}  // namespace

}  // namespace sextant

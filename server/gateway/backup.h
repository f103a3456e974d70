// Backups of what a server keeps: a folder for each, `backup-YYYYMMDDTHHMMSS.mmmZ`, with a copy of the state database that
// SQLite makes beside its writers, the configuration (secrets are not in it), the knowledge base where one is kept as a file, and
// MANIFEST.json: name, bytes and SHA-256 of each file. It is made under another name, flushed, then renamed: one that is there is
// whole. Blocking: not on I/O threads. Must not know HTTP.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <nlohmann/json.hpp>

#include "engine/base/result.h"
#include "server/gateway/state_store.h"

namespace sextant {

struct BackupSource {
  StateStore* state = nullptr;  // null: there is none
  std::string config;           // JSON text; empty: none
  std::string knowledge_base;   // a file; empty: none
  std::string version;          // of the program
};
struct Backup {
  std::string path;             // of its folder
  std::string created;          // "2026-01-31T10:00:00.000Z"
  std::string manifest_sha256;  // known elsewhere, it shows that the manifest was not changed either
  int64_t num_bytes = 0;
  std::vector<std::string> files;
  nlohmann::ordered_json to_json() const;
};

// Makes one in `dir` (made when absent, this user's alone) and deletes all but the newest `keep`. Times are milliseconds of Unix.
Result<Backup> make_backup(const BackupSource& source, const std::string& dir, int64_t keep, int64_t unix_ms);
// Oldest first; what is half made is none.
Result<std::vector<std::string>> list_backups(const std::string& dir);
// Every file is there, as long as it was and with the SHA-256 that it had, the copy of the database is sound, and nothing else
// lies there; else an error that says what is wrong.
Result<Backup> check_backup(const std::string& path);
// Puts a checked backup's state into `state_dir`, which must have none unless `replace`: then that is kept beside it, renamed. The
// configuration and the knowledge base are written to `state_dir` too: config.restored.json, kb.restored.sqlite. `expected_sha256`:
// of the manifest; empty: any.
Result<Backup> restore_backup(const std::string& path, const std::string& state_dir, bool replace,
                              const std::string& expected_sha256, int64_t unix_ms);

// A thread that makes a backup each `interval_s`, the first at once, and when asked. A failure is logged and tried again then.
class BackupKeeper {
 public:
  struct Options {
    std::string dir;
    int64_t interval_s = 300;  // 0: only when asked
    int64_t keep = 24;
  };
  struct Stats {
    uint64_t num_made = 0, num_failed = 0;
    int64_t last_unix_ms = 0;  // of the last that was made; 0: none
  };
  BackupKeeper(Options options, BackupSource source);
  ~BackupKeeper();
  Result<Backup> make_now();  // blocks
  Result<std::vector<std::string>> list() const { return list_backups(options_.dir); }
  Stats stats() const;

 private:
  void run();

  const Options options_;
  const BackupSource source_;
  std::mutex making_;  // one at a time
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  Stats stats_;            // guarded by mutex_
  bool stopping_ = false;  // likewise
  std::thread thread_;     // last
};

}  // namespace sextant

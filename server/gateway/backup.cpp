#include "server/gateway/backup.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <set>

#include "database/database.h"
#include "engine/base/log.h"

namespace sextant {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using nlohmann::ordered_json;

constexpr const char* kManifest = "MANIFEST.json";
constexpr const char* kState = "state.sqlite";
constexpr const char* kConfig = "config.json";
constexpr const char* kKnowledgeBase = "kb.sqlite";
constexpr std::string_view kPrefix = "backup-";
constexpr int64_t kMostManifestBytes = 1 << 20;

Status failed(const std::string& what, const std::string& path) {
  return unavailable("backup: " + what + " " + path + ": " + std::strerror(errno));
}

std::string time_text(int64_t unix_ms, const char* format) {
  const std::time_t seconds = unix_ms / 1000;
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char text[40], with_ms[48];
  std::strftime(text, sizeof text, format, &parts);
  std::snprintf(with_ms, sizeof with_ms, "%s.%03dZ", text, static_cast<int>(unix_ms % 1000));
  return with_ms;
}

bool is_name(const std::string& name) {
  return name.starts_with(kPrefix) && name.size() == kPrefix.size() + 20 && name.back() == 'Z';
}

Status flush_file(const std::string& path, int flags = O_RDONLY) {
  const int file = ::open(path.c_str(), flags | O_CLOEXEC);
  if (file < 0) return failed("cannot open", path);
  const bool is_flushed = ::fsync(file) == 0;
  const Status status = is_flushed ? ok_status() : failed("cannot flush", path);
  ::close(file);
  return status;
}

Status write_whole(const std::string& path, const std::string& text) {
  {
    std::ofstream out(path, std::ios::binary | std::ios::trunc);
    if (!(out << text) || !out.flush()) return failed("cannot write", path);
  }
  ::chmod(path.c_str(), 0600);
  return flush_file(path);
}

Result<std::string> read_whole(const std::string& path, int64_t most) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return not_found("backup: " + path + " cannot be read");
  std::string text(static_cast<size_t>(most) + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(in.gcount()));
  if (static_cast<int64_t>(text.size()) > most) return data_loss("backup: " + path + " is too large");
  return text;
}

std::string hex_of(const Sha256& hash) {
  std::string out;
  for (const unsigned char byte : hash) {
    out += "0123456789abcdef"[byte >> 4];
    out += "0123456789abcdef"[byte & 15];
  }
  return out;
}

Result<std::string> sha256_of_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return not_found("backup: " + path + " is missing");
  const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  if (in.bad()) return failed("cannot read", path);
  return hex_of(sha256_of(text));
}

Status copy_database(Database& database, const std::string& to) {
  if (database.kind() != "sqlite")
    return unsupported("the state is in PostgreSQL: back it up with pg_dump, or its continuous archiving");
  RETURN_IF_ERROR(database.execute("VACUUM INTO $1", {to}));
  ::chmod(to.c_str(), 0600);
  return flush_file(to);
}

Status check_database(const std::string& path) {
  ASSIGN_OR_RETURN(const auto database, open_sqlite(path, "backup"));
  ASSIGN_OR_RETURN(const auto rows, database->query("PRAGMA integrity_check"));
  if (rows.size() == 1 && rows[0].size() == 1 && rows[0][0] == "ok") return ok_status();
  return data_loss("backup: " + path + " is not sound, says SQLite");
}

}  // namespace

ordered_json Backup::to_json() const {
  return {{"path", path},
          {"created", created},
          {"bytes", num_bytes},
          {"files", files},
          {"manifest_sha256", manifest_sha256}};
}

Result<std::vector<std::string>> list_backups(const std::string& dir) {
  std::vector<std::string> out;
  std::error_code error;
  for (fs::directory_iterator at(dir, error); !error && at != fs::directory_iterator(); at.increment(error))
    if (is_name(at->path().filename().string())) out.push_back(at->path().string());
  if (error) return not_found("backup: " + dir + " cannot be read: " + error.message());
  std::sort(out.begin(), out.end());
  return out;
}

Result<Backup> make_backup(const BackupSource& source, const std::string& dir, int64_t keep, int64_t unix_ms) {
  std::error_code error;
  if (fs::create_directories(dir, error)) fs::permissions(dir, fs::perms::owner_all, error);
  if (error) return unavailable("backup: cannot make " + dir + ": " + error.message());
  const std::string path = dir + "/" + std::string(kPrefix) + time_text(unix_ms, "%Y%m%dT%H%M%S");
  const std::string half = path + ".half";
  // What an earlier process left half made is of no use.
  for (fs::directory_iterator at(dir, error); !error && at != fs::directory_iterator(); at.increment(error)) {
    const std::string name = at->path().filename().string();
    std::error_code ignored;
    if (name.starts_with(kPrefix) && name.ends_with(".half")) fs::remove_all(at->path(), ignored);
  }
  if (fs::exists(path)) return unavailable("backup: " + path + " is there already");
  if (::mkdir(half.c_str(), 0700) != 0) return failed("cannot make", half);

  Backup backup;
  const auto fill = [&]() -> Status {
    if (source.state != nullptr) {
      RETURN_IF_ERROR(source.state->copy_to(half + "/" + kState));
      ::chmod((half + "/" + kState).c_str(), 0600);
      RETURN_IF_ERROR(flush_file(half + "/" + kState));
      backup.files.push_back(kState);
    }
    if (!source.config.empty()) {
      RETURN_IF_ERROR(write_whole(half + "/" + kConfig, source.config));
      backup.files.push_back(kConfig);
    }
    if (!source.knowledge_base.empty() && fs::is_regular_file(source.knowledge_base)) {
      ASSIGN_OR_RETURN(const auto database, open_sqlite(source.knowledge_base, "knowledge base"));
      RETURN_IF_ERROR(copy_database(*database, half + "/" + kKnowledgeBase));
      backup.files.push_back(kKnowledgeBase);
    }
    backup.created = time_text(unix_ms, "%Y-%m-%dT%H:%M:%S");
    ordered_json manifest = {
        {"format", 1}, {"created", backup.created}, {"version", source.version}, {"files", ordered_json::array()}};
    for (const std::string& file : backup.files) {
      ASSIGN_OR_RETURN(const std::string hash, sha256_of_file(half + "/" + file));
      const auto size = static_cast<int64_t>(fs::file_size(half + "/" + file));
      manifest["files"].push_back({{"name", file}, {"bytes", size}, {"sha256", hash}});
      backup.num_bytes += size;
    }
    const std::string text = manifest.dump(2) + "\n";
    backup.manifest_sha256 = hex_of(sha256_of(text));
    RETURN_IF_ERROR(write_whole(half + "/" + kManifest, text));
    RETURN_IF_ERROR(flush_file(half, O_RDONLY | O_DIRECTORY));
    if (::rename(half.c_str(), path.c_str()) != 0) return failed("cannot name", path);
    return flush_file(dir, O_RDONLY | O_DIRECTORY);
  };
  if (const Status status = fill(); !status.ok()) {
    fs::remove_all(half, error);
    return status;
  }
  backup.path = path;
  ASSIGN_OR_RETURN(const std::vector<std::string> all, list_backups(dir));
  for (size_t i = 0; keep > 0 && i + static_cast<size_t>(keep) < all.size(); ++i) fs::remove_all(all[i], error);
  return backup;
}

Result<Backup> check_backup(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, read_whole(path + "/" + kManifest, kMostManifestBytes));
  const json manifest = json::parse(text, nullptr, false);
  const auto bad = [&](const std::string& what) { return data_loss("backup: " + path + ": " + what); };
  if (!manifest.is_object() || manifest.value("format", json()) != 1 || !manifest.value("files", json()).is_array())
    return bad(std::string(kManifest) + " is no manifest of this version's");
  Backup backup;
  backup.path = path;
  backup.manifest_sha256 = hex_of(sha256_of(text));
  const json created = manifest.value("created", json());
  if (created.is_string()) backup.created = created.get<std::string>();
  std::set<std::string> names = {kManifest};
  for (const json& file : manifest["files"]) {
    if (!file.is_object() || !file.value("name", json()).is_string() ||
        !file.value("bytes", json()).is_number_integer() || !file.value("sha256", json()).is_string())
      return bad(std::string(kManifest) + " lists a file without name, bytes or sha256");
    const std::string name = file["name"];
    if (name != kState && name != kConfig && name != kKnowledgeBase)
      return bad("'" + name + "' is no file of a backup");
    if (!names.insert(name).second) return bad(name + " is listed twice");
    const std::string at = path + "/" + name;
    std::error_code error;
    if (fs::symlink_status(at, error).type() != fs::file_type::regular) return bad(name + " is missing");
    if (static_cast<int64_t>(fs::file_size(at, error)) != file["bytes"].get<int64_t>())
      return bad(name + " has another size than it had");
    ASSIGN_OR_RETURN(const std::string hash, sha256_of_file(at));
    if (hash != file["sha256"].get<std::string>()) return bad(name + " was changed");
    backup.files.push_back(name);
    backup.num_bytes += file["bytes"].get<int64_t>();
  }
  std::error_code error;
  for (fs::directory_iterator at(path, error); !error && at != fs::directory_iterator(); at.increment(error))
    if (!names.contains(at->path().filename().string())) return bad(at->path().filename().string() + " is not of it");
  return backup;
}

Result<Backup> restore_backup(const std::string& path, const std::string& state_dir, bool replace,
                              const std::string& expected_sha256, int64_t unix_ms) {
  ASSIGN_OR_RETURN(Backup backup, check_backup(path));
  if (!expected_sha256.empty() && expected_sha256 != backup.manifest_sha256)
    return data_loss("backup: the SHA-256 of " + path + "/" + kManifest + " is " + backup.manifest_sha256 + ", not " +
                     expected_sha256);
  if (std::ranges::find(backup.files, kState) == backup.files.end())
    return invalid_argument("backup: " + path + " has no state in it");
  std::error_code error;
  if (fs::create_directories(state_dir, error)) fs::permissions(state_dir, fs::perms::owner_all, error);
  if (error) return unavailable("backup: cannot make " + state_dir + ": " + error.message());
  const std::string target = state_dir + "/" + kState;
  if (fs::exists(target) && !replace)
    return invalid_argument(target +
                            " is there already: stop its server and say --replace to put the backup in its place");
  const std::string stamp = time_text(unix_ms, "%Y%m%dT%H%M%S");
  const auto put = [&](const std::string& file, const std::string& name) -> Status {
    const std::string half = state_dir + "/" + name + ".half";
    std::error_code copying;
    fs::copy_file(path + "/" + file, half, fs::copy_options::overwrite_existing, copying);
    if (copying) return unavailable("backup: cannot write " + half + ": " + copying.message());
    ::chmod(half.c_str(), 0600);
    if (file == kState) {
      RETURN_IF_ERROR(check_database(half));
      // A journal of the old one beside the new one would be replayed into it.
      for (const char* suffix : {"", "-wal", "-shm", "-journal"}) {
        const std::string old = target + suffix;
        if (fs::exists(old) && ::rename(old.c_str(), (old + ".before-" + stamp).c_str()) != 0)
          return failed("cannot move aside", old);
        std::error_code ignored;
        if (*suffix != 0) fs::remove(half + suffix, ignored);
      }
    }
    RETURN_IF_ERROR(flush_file(half));
    const std::string to = state_dir + "/" + name;
    return ::rename(half.c_str(), to.c_str()) == 0 ? ok_status() : failed("cannot name", to);
  };
  for (const std::string& file : backup.files) {
    RETURN_IF_ERROR(put(file, file == kState    ? kState
                              : file == kConfig ? "config.restored.json"
                                                : "kb.restored.sqlite"));
  }
  RETURN_IF_ERROR(flush_file(state_dir, O_RDONLY | O_DIRECTORY));
  return backup;
}

BackupKeeper::BackupKeeper(Options options, BackupSource source)
    : options_(std::move(options)), source_(std::move(source)) {
  if (options_.interval_s > 0) thread_ = std::thread([this] { run(); });
}

BackupKeeper::~BackupKeeper() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

Result<Backup> BackupKeeper::make_now() {
  const std::lock_guard making(making_);
  const int64_t unix_ms =
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch())
          .count();
  Result<Backup> backup = make_backup(source_, options_.dir, options_.keep, unix_ms);
  const std::lock_guard lock(mutex_);
  if (backup.ok()) {
    ++stats_.num_made;
    stats_.last_unix_ms = unix_ms;
  } else {
    ++stats_.num_failed;
  }
  return backup;
}

BackupKeeper::Stats BackupKeeper::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

void BackupKeeper::run() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    lock.unlock();
    if (const auto backup = make_now(); !backup.ok()) LOG_ERROR << backup.status().message();
    lock.lock();
    wake_.wait_for(lock, std::chrono::seconds(options_.interval_s), [&] { return stopping_; });
  }
}

}  // namespace sextant

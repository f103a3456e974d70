// A database in one file. WAL, so that readers do not wait for a writer.
#include <sqlite3.h>

#include <filesystem>

#include "database/database.h"

namespace sextant {
namespace {

class SqliteDatabase final : public Database {
 public:
  SqliteDatabase(sqlite3* handle, std::string what) : handle_(handle), what_(std::move(what)) {}
  ~SqliteDatabase() override { sqlite3_close_v2(handle_); }
  SqliteDatabase(const SqliteDatabase&) = delete;
  SqliteDatabase& operator=(const SqliteDatabase&) = delete;

  std::string kind() const override { return "sqlite"; }
  Status begin_write() override { return execute("BEGIN IMMEDIATE"); }

  Result<std::vector<SqlRow>> query(const std::string& sql, const std::vector<SqlValue>& parameters) override {
    sqlite3_stmt* statement = nullptr;
    if (sqlite3_prepare_v2(handle_, sql.c_str(), static_cast<int>(sql.size()), &statement, nullptr) != SQLITE_OK)
      return error();
    const std::unique_ptr<sqlite3_stmt, int (*)(sqlite3_stmt*)> owner(statement, sqlite3_finalize);
    for (size_t i = 0; i < parameters.size(); ++i) {
      const int index = sqlite3_bind_parameter_index(statement, ("$" + std::to_string(i + 1)).c_str());
      if (index == 0) continue;
      const SqlValue& value = parameters[i];
      const int bound =
          value ? sqlite3_bind_text64(statement, index, value->data(), value->size(), SQLITE_TRANSIENT, SQLITE_UTF8)
                : sqlite3_bind_null(statement, index);
      if (bound != SQLITE_OK) return error();
    }
    std::vector<SqlRow> rows;
    for (;;) {
      const int step = sqlite3_step(statement);
      if (step == SQLITE_DONE) return rows;
      if (step != SQLITE_ROW) return error();
      SqlRow row;
      for (int c = 0; c < sqlite3_column_count(statement); ++c) {
        const unsigned char* text = sqlite3_column_text(statement, c);
        if (text == nullptr) {
          row.emplace_back();
        } else {
          row.emplace_back(std::string(reinterpret_cast<const char*>(text),
                                       static_cast<size_t>(sqlite3_column_bytes(statement, c))));
        }
      }
      rows.push_back(std::move(row));
    }
  }

 private:
  Status error() const {
    const int code = sqlite3_errcode(handle_) & 0xFF;
    const std::string message = what_ + ": " + sqlite3_errmsg(handle_);
    if (code == SQLITE_NOTADB || code == SQLITE_CORRUPT) return data_loss(message);
    if (code == SQLITE_BUSY || code == SQLITE_FULL || code == SQLITE_READONLY) return unavailable(message);
    return internal_error(message);
  }

  sqlite3* handle_;
  const std::string what_;
};

}  // namespace

Result<std::unique_ptr<Database>> open_sqlite(const std::string& path, const std::string& what) {
  if (path != ":memory:") {
    std::error_code ignored;  // opening says what is wrong
    const std::filesystem::path folder = std::filesystem::path(path).parent_path();
    if (!folder.empty()) std::filesystem::create_directories(folder, ignored);
  }
  sqlite3* handle = nullptr;
  const int opened = sqlite3_open_v2(path.c_str(), &handle,
                                     SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_FULLMUTEX, nullptr);
  auto database = std::make_unique<SqliteDatabase>(handle, what);
  if (opened != SQLITE_OK) return unavailable("cannot open the " + what + " " + path + ": " + sqlite3_errstr(opened));
  sqlite3_busy_timeout(handle, 10'000);
  for (const char* setting : {"PRAGMA journal_mode=WAL", "PRAGMA synchronous=NORMAL"})
    RETURN_IF_ERROR(database->execute(setting));
  return std::unique_ptr<Database>(std::move(database));
}

}  // namespace sextant

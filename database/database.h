// Database: the few things that the knowledge base and the server's state ask of SQLite and PostgreSQL, in the SQL that
// both understand (parameters $1, $2...; text in and out). One connection; not for two threads at once.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/result.h"

namespace sextant {

using SqlValue = std::optional<std::string>;  // nothing: NULL
using SqlRow = std::vector<SqlValue>;

class Database {
 public:
  virtual ~Database() = default;
  virtual Result<std::vector<SqlRow>> query(const std::string& sql, const std::vector<SqlValue>& parameters = {}) = 0;
  // Begins a transaction that no other writer runs beside.
  virtual Status begin_write() = 0;
  virtual std::string kind() const = 0;  // "sqlite", "postgresql"

  Status execute(const std::string& sql, const std::vector<SqlValue>& parameters = {}) {
    auto rows = query(sql, parameters);
    return rows.ok() ? ok_status() : rows.status();
  }
};

// "postgresql://user@host/name", a path of a file (made, with its folder, when absent), or ":memory:". `what` is its name
// in messages: "knowledge base".
Result<std::unique_ptr<Database>> open_database(const std::string& location, const std::string& what);

Result<std::unique_ptr<Database>> open_sqlite(const std::string& path, const std::string& what);
Result<std::unique_ptr<Database>> open_postgres(const std::string& url, const std::string& what);

}  // namespace sextant

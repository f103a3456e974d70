// A database in PostgreSQL, by URL.
#include <libpq-fe.h>

#include "database/database.h"

namespace sextant {
namespace {

// Any number, the same for all who write: held to the end of a transaction.
constexpr const char* kWriterLock = "SELECT pg_advisory_xact_lock(8371046223951)";

class PostgresDatabase final : public Database {
 public:
  PostgresDatabase(PGconn* connection, std::string what) : connection_(connection), what_(std::move(what)) {}
  ~PostgresDatabase() override { PQfinish(connection_); }
  PostgresDatabase(const PostgresDatabase&) = delete;
  PostgresDatabase& operator=(const PostgresDatabase&) = delete;

  std::string kind() const override { return "postgresql"; }
  Status begin_write() override {
    RETURN_IF_ERROR(execute("BEGIN"));
    return execute(kWriterLock);
  }

  Result<std::vector<SqlRow>> query(const std::string& sql, const std::vector<SqlValue>& parameters) override {
    if (PQstatus(connection_) == CONNECTION_BAD) PQreset(connection_);  // a server that was away is asked again
    std::vector<const char*> values;
    for (const SqlValue& value : parameters) values.push_back(value ? value->c_str() : nullptr);
    const std::unique_ptr<PGresult, void (*)(PGresult*)> result(
        PQexecParams(connection_, sql.c_str(), static_cast<int>(values.size()), nullptr, values.data(), nullptr,
                     nullptr, 0),
        PQclear);
    const ExecStatusType status = PQresultStatus(result.get());
    if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)
      return unavailable(what_ + ": " + PQerrorMessage(connection_));
    std::vector<SqlRow> rows;
    for (int r = 0; r < PQntuples(result.get()); ++r) {
      SqlRow row;
      for (int c = 0; c < PQnfields(result.get()); ++c) {
        if (PQgetisnull(result.get(), r, c) != 0) {
          row.emplace_back();
        } else {
          row.emplace_back(
              std::string(PQgetvalue(result.get(), r, c), static_cast<size_t>(PQgetlength(result.get(), r, c))));
        }
      }
      rows.push_back(std::move(row));
    }
    return rows;
  }

 private:
  PGconn* connection_;
  const std::string what_;
};

}  // namespace

Result<std::unique_ptr<Database>> open_postgres(const std::string& url, const std::string& what) {
  PGconn* connection = PQconnectdb(url.c_str());
  auto database = std::make_unique<PostgresDatabase>(connection, what);
  // The message names host and reason, never the password.
  if (PQstatus(connection) != CONNECTION_OK)
    return unavailable("cannot open the " + what + ": " + PQerrorMessage(connection));
  PQsetNoticeProcessor(
      connection, [](void*, const char*) {}, nullptr);
  RETURN_IF_ERROR(database->execute("SET client_encoding TO 'UTF8'"));
  return std::unique_ptr<Database>(std::move(database));
}

}  // namespace sextant

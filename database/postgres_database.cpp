// A database in PostgreSQL, by URL.
#include <libpq-fe.h>

#include "database/database.h"

namespace sextant {
namespace {

// Any number, the same for all who write: held to the end of a transaction.
constexpr const char* kWriterLock = "SELECT pg_advisory_xact_lock(8371046223951)";

// Nothing waits for a server that is gone for longer than these: connecting (seconds), bytes that nobody acknowledges
// (milliseconds), a statement or the lock it waits for. What the URL says of the first two wins.
constexpr const char* kConnectTimeout = "5";
constexpr const char* kUserTimeout = "10000";
constexpr const char* kStatementTimeout = "SET statement_timeout TO 30000";

class PostgresDatabase final : public Database {
 public:
  PostgresDatabase(PGconn* connection, std::string what) : connection_(connection), what_(std::move(what)) {}
  ~PostgresDatabase() override { PQfinish(connection_); }
  PostgresDatabase(const PostgresDatabase&) = delete;
  PostgresDatabase& operator=(const PostgresDatabase&) = delete;

  std::string kind() const override { return "postgresql"; }
  Status begin_write() override {
    RETURN_IF_ERROR(execute("BEGIN"));
    is_in_transaction_ = true;
    Status locked = execute(kWriterLock);
    if (!locked.ok()) (void)execute("ROLLBACK");
    return locked;
  }
  Status prepare() { return run(kStatementTimeout, {}).status(); }

  Result<std::vector<SqlRow>> query(const std::string& sql, const std::vector<SqlValue>& parameters) override {
    const bool belongs_to_transaction = is_in_transaction_;
    if (sql == "COMMIT" || sql == "ROLLBACK") is_in_transaction_ = false;
    // What follows would be done outside of the transaction that was lost, and a COMMIT would seem to have worked.
    if (belongs_to_transaction && PQstatus(connection_) == CONNECTION_BAD)
      return unavailable(what_ + ": the connection was lost inside a transaction");
    if (PQstatus(connection_) == CONNECTION_BAD) {  // a server that was away is asked again
      PQreset(connection_);
      if (PQstatus(connection_) == CONNECTION_OK) RETURN_IF_ERROR(prepare());
    }
    return run(sql, parameters);
  }

 private:
  Result<std::vector<SqlRow>> run(const std::string& sql, const std::vector<SqlValue>& parameters) {
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

  PGconn* connection_;
  bool is_in_transaction_ = false;
  const std::string what_;
};

}  // namespace

Result<std::unique_ptr<Database>> open_postgres(const std::string& url, const std::string& what) {
  // From left to right; the URL's own come after the defaults, but for the encoding.
  const char* const names[] = {"connect_timeout", "tcp_user_timeout", "dbname", "client_encoding", nullptr};
  const char* const values[] = {kConnectTimeout, kUserTimeout, url.c_str(), "UTF8", nullptr};
  PGconn* connection = PQconnectdbParams(names, values, 1);
  auto database = std::make_unique<PostgresDatabase>(connection, what);
  // The message names host and reason, never the password.
  if (PQstatus(connection) != CONNECTION_OK)
    return unavailable("cannot open the " + what + ": " + PQerrorMessage(connection));
  PQsetNoticeProcessor(
      connection, [](void*, const char*) {}, nullptr);
  RETURN_IF_ERROR(database->prepare());
  return std::unique_ptr<Database>(std::move(database));
}

}  // namespace sextant

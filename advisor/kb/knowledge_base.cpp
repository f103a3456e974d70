#include "advisor/kb/knowledge_base.h"

#include <openssl/evp.h>

#include <cstdlib>
#include <set>

#include "advisor/kb/importers.h"
#include "engine/base/check.h"

namespace sextant::advisor {
namespace {

struct KindNames {
  KbKind kind;
  std::string_view name;
  const char* table;
};
constexpr KindNames kKinds[] = {{KbKind::kBenchmark, "benchmarks", "kb_benchmarks"},
                                {KbKind::kGpu, "gpus", "kb_gpus"},
                                {KbKind::kPrice, "prices", "kb_prices"},
                                {KbKind::kModel, "models", "kb_models"},
                                {KbKind::kUseCase, "use-cases", "kb_use_cases"},
                                {KbKind::kOutcome, "outcomes", "kb_outcomes"}};

const KindNames& names_of(KbKind kind) { return kKinds[static_cast<size_t>(kind)]; }

// Each entry brings the schema from its index to the next; entries never change once shipped.
std::vector<std::vector<std::string>> migrations() {
  std::vector<std::string> first = {"CREATE TABLE kb_state (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
                                    "INSERT INTO kb_state (name, value) VALUES ('revision', '0')"};
  for (const KindNames& kind : kKinds) {
    const std::string table = kind.table;
    first.push_back(
        "CREATE TABLE " + table +
        " (id TEXT NOT NULL, document TEXT NOT NULL, added_revision BIGINT NOT NULL, removed_revision BIGINT,"
        " PRIMARY KEY (id, added_revision))");
    first.push_back("CREATE INDEX " + table + "_readable ON " + table + " (removed_revision, id)");
  }
  // Plans that were made, so that they are found by their id. No knowledge: revisions do not count them.
  const std::vector<std::string> second = {
      "CREATE TABLE kb_plans (id TEXT PRIMARY KEY, document TEXT NOT NULL, used_at BIGINT NOT NULL)",
      "CREATE INDEX kb_plans_by_use ON kb_plans (used_at)"};
  return {first, second};
}

}  // namespace

std::string sha256_hex(std::string_view bytes) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned length = 0;
  CHECK(EVP_Digest(bytes.data(), bytes.size(), digest, &length, EVP_sha256(), nullptr) == 1);
  std::string hex;
  for (unsigned i = 0; i < length; ++i) {
    hex += "0123456789abcdef"[digest[i] >> 4];
    hex += "0123456789abcdef"[digest[i] & 15];
  }
  return hex;
}

std::string_view kb_kind_name(KbKind kind) { return names_of(kind).name; }

std::optional<KbKind> parse_kb_kind(std::string_view name) {
  for (const KindNames& kind : kKinds)
    if (kind.name == name) return kind.kind;
  return std::nullopt;
}

std::string default_kb_location() {
  if (const char* location = std::getenv("SEXTANT_KB"); location != nullptr && *location != 0) return location;
  if (const char* data = std::getenv("XDG_DATA_HOME"); data != nullptr && *data == '/')
    return std::string(data) + "/sextant/kb.sqlite";
  const char* home = std::getenv("HOME");
  return std::string(home != nullptr && *home != 0 ? home : ".") + "/.local/share/sextant/kb.sqlite";
}

Result<KnowledgeBase> KnowledgeBase::open(const std::string& location) {
  Result<std::unique_ptr<Database>> database = open_database(location, "knowledge base");
  if (!database.ok()) return database.status();
  KnowledgeBase kb(std::move(database).value());
  RETURN_IF_ERROR(kb.migrate());
  const Result<int64_t> revision = kb.revision();
  if (!revision.ok()) return revision.status();
  if (*revision == 0) {
    Result<std::vector<KbDocument>> shipped = shipped_documents();
    if (!shipped.ok()) return shipped.status();
    const Result<ImportResult> filled = kb.import(*shipped);
    if (!filled.ok()) return filled.status();
  }
  return kb;
}

Status KnowledgeBase::migrate() {
  RETURN_IF_ERROR(database_->begin_write());
  const auto steps = [&]() -> Status {
    RETURN_IF_ERROR(database_->execute("CREATE TABLE IF NOT EXISTS kb_migrations (version BIGINT PRIMARY KEY)"));
    const auto applied = database_->query("SELECT COALESCE(MAX(version), 0) FROM kb_migrations");
    if (!applied.ok()) return applied.status();
    const size_t version = static_cast<size_t>(std::strtoull((*applied)[0][0]->c_str(), nullptr, 10));
    const auto all = migrations();
    if (version > all.size())
      return unsupported("the knowledge base has schema " + std::to_string(version) + ", this program knows up to " +
                         std::to_string(all.size()) + ": use a newer sextant");
    for (size_t v = version; v < all.size(); ++v) {
      for (const std::string& statement : all[v]) RETURN_IF_ERROR(database_->execute(statement));
      RETURN_IF_ERROR(database_->execute("INSERT INTO kb_migrations (version) VALUES ($1)", {std::to_string(v + 1)}));
    }
    return ok_status();
  }();
  const Status ended = database_->execute(steps.ok() ? "COMMIT" : "ROLLBACK");
  return steps.ok() ? ended : steps;
}

Result<ImportResult> KnowledgeBase::import(const std::vector<KbDocument>& documents) {
  RETURN_IF_ERROR(database_->begin_write());
  Result<ImportResult> result = import_in_transaction(documents);
  const Status ended = database_->execute(result.ok() ? "COMMIT" : "ROLLBACK");
  if (result.ok() && !ended.ok()) return ended;
  return result;
}

Status KnowledgeBase::keep_plan(const std::string& id, const std::string& document, int64_t now_s) {
  if (document.size() > kMaxPlanBytes) return ok_status();
  // The id says what the document says: within a day nothing needs writing again.
  const auto fresh = database_->query("SELECT 1 FROM kb_plans WHERE id = $1 AND used_at > CAST($2 AS BIGINT)",
                                      {id, std::to_string(now_s - 86400)});
  if (!fresh.ok()) return fresh.status();
  if (!fresh->empty()) return ok_status();
  RETURN_IF_ERROR(database_->begin_write());
  const auto steps = [&]() -> Status {
    const std::string now = std::to_string(now_s);
    RETURN_IF_ERROR(
        database_->execute("INSERT INTO kb_plans (id, document, used_at) VALUES ($1, $2, CAST($3 AS BIGINT)) "
                           "ON CONFLICT (id) DO UPDATE SET document = $2, used_at = CAST($3 AS BIGINT)",
                           {id, document, now}));
    RETURN_IF_ERROR(database_->execute("DELETE FROM kb_plans WHERE used_at < CAST($1 AS BIGINT)",
                                       {std::to_string(now_s - kPlanSeconds)}));
    return database_->execute(
        "DELETE FROM kb_plans WHERE id NOT IN (SELECT id FROM kb_plans ORDER BY used_at DESC, id LIMIT CAST($1 AS "
        "BIGINT))",
        {std::to_string(kMaxPlans)});
  }();
  const Status ended = database_->execute(steps.ok() ? "COMMIT" : "ROLLBACK");
  return steps.ok() ? ended : steps;
}

Result<std::optional<std::string>> KnowledgeBase::find_plan(const std::string& id, int64_t now_s) {
  const auto rows = database_->query("SELECT document FROM kb_plans WHERE id = $1 AND used_at >= CAST($2 AS BIGINT)",
                                     {id, std::to_string(now_s - kPlanSeconds)});
  if (!rows.ok()) return rows.status();
  if (rows->empty()) return std::optional<std::string>();
  return std::optional<std::string>((*rows)[0][0].value_or(""));
}

Result<ImportResult> KnowledgeBase::import_in_transaction(const std::vector<KbDocument>& documents) {
  const Result<int64_t> current = revision();
  if (!current.ok()) return current.status();
  ImportResult result;
  result.revision = *current;
  const std::string next = std::to_string(*current + 1);
  std::set<std::pair<KbKind, std::string>> seen;
  for (const KbDocument& document : documents) {
    if (document.id.empty() || document.id.size() > 512) return invalid_argument("an id has 1 to 512 bytes", "id");
    // Of two of one id in one import the first stands: files repeat rows.
    if (!seen.insert({document.kind, document.id}).second) {
      ++result.unchanged;
      continue;
    }
    const std::string table = names_of(document.kind).table;
    const std::string text = document.body.dump();
    const auto there = database_->query("SELECT document FROM " + table + " WHERE id = $1 AND removed_revision IS NULL",
                                        {document.id});
    if (!there.ok()) return there.status();
    if (!there->empty() && (*there)[0][0] == text) {
      ++result.unchanged;
      continue;
    }
    if (!there->empty()) {
      RETURN_IF_ERROR(database_->execute(
          "UPDATE " + table + " SET removed_revision = CAST($2 AS BIGINT) WHERE id = $1 AND removed_revision IS NULL",
          {document.id, next}));
    }
    RETURN_IF_ERROR(database_->execute(
        "INSERT INTO " + table + " (id, document, added_revision) VALUES ($1, $2, CAST($3 AS BIGINT))",
        {document.id, text, next}));
    ++(there->empty() ? result.added : result.replaced);
  }
  if (result.added + result.replaced > 0) {
    result.revision = *current + 1;
    RETURN_IF_ERROR(database_->execute("UPDATE kb_state SET value = $1 WHERE name = 'revision'", {next}));
  }
  return result;
}

Result<std::vector<KbDocument>> KnowledgeBase::list(KbKind kind, size_t limit, const std::string& after,
                                                    std::optional<int64_t> at) {
  std::string sql = std::string("SELECT id, document FROM ") + names_of(kind).table + " WHERE id > $1";
  std::vector<SqlValue> parameters = {after};
  if (at) {
    sql +=
        " AND added_revision <= CAST($2 AS BIGINT) AND (removed_revision IS NULL OR removed_revision > CAST($2 AS "
        "BIGINT))";
    parameters.push_back(std::to_string(*at));
  } else {
    sql += " AND removed_revision IS NULL";
  }
  // One order whatever the database's locale is.
  sql += database_->kind() == "postgresql" ? " ORDER BY id COLLATE \"C\"" : " ORDER BY id";
  if (database_->kind() == "postgresql") sql.replace(sql.find("id > $1"), 7, "id COLLATE \"C\" > $1");
  if (limit > 0) sql += " LIMIT " + std::to_string(limit);
  const auto rows = database_->query(sql, parameters);
  if (!rows.ok()) return rows.status();
  std::vector<KbDocument> documents;
  for (const SqlRow& row : *rows) {
    KbDocument document{kind, *row[0], nlohmann::json::parse(*row[1], nullptr, false)};
    if (document.body.is_discarded())
      return data_loss("knowledge base: " + std::string(kb_kind_name(kind)) + " '" + *row[0] + "' is not JSON");
    documents.push_back(std::move(document));
  }
  return documents;
}

Result<std::optional<KbDocument>> KnowledgeBase::find(KbKind kind, const std::string& id) {
  const auto rows = database_->query(
      std::string("SELECT document FROM ") + names_of(kind).table + " WHERE id = $1 AND removed_revision IS NULL",
      {id});
  if (!rows.ok()) return rows.status();
  if (rows->empty()) return std::optional<KbDocument>();
  nlohmann::json body = nlohmann::json::parse(*(*rows)[0][0], nullptr, false);
  if (body.is_discarded()) return data_loss("knowledge base: '" + id + "' is not JSON");
  return std::optional<KbDocument>(KbDocument{kind, id, std::move(body)});
}

Result<int64_t> KnowledgeBase::revision() {
  const auto rows = database_->query("SELECT value FROM kb_state WHERE name = 'revision'");
  if (!rows.ok()) return rows.status();
  if (rows->empty()) return data_loss("the knowledge base has no revision");
  return std::strtoll((*rows)[0][0]->c_str(), nullptr, 10);
}

Result<std::string> KnowledgeBase::revision_name(std::optional<int64_t> at) {
  const Result<int64_t> current = revision();
  if (!current.ok()) return current.status();
  std::string all;
  for (const KbKind kind : kKbKinds) {
    const auto documents = list(kind, 0, "", at);
    if (!documents.ok()) return documents.status();
    for (const KbDocument& document : *documents) {
      all += std::string(kb_kind_name(kind)) + '\0' + document.id + '\0' + document.body.dump() + '\n';
    }
  }
  return std::to_string(at.value_or(*current)) + "-" + sha256_hex(all).substr(0, 16);
}

}  // namespace sextant::advisor

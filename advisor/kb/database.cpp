#include "advisor/kb/database.h"

namespace sextant::advisor {

Result<std::unique_ptr<Database>> open_database(const std::string& location) {
  if (location.starts_with("postgresql://") || location.starts_with("postgres://")) return open_postgres(location);
  if (location.find("://") != std::string::npos)
    return invalid_argument(
        "a knowledge base is a file or postgresql://..., not '" + location.substr(0, location.find("://")) + "://'",
        "kb");
  return open_sqlite(location);
}

}  // namespace sextant::advisor

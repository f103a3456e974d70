#include "database/database.h"

namespace sextant {

Result<std::unique_ptr<Database>> open_database(const std::string& location, const std::string& what) {
  if (location.starts_with("postgresql://") || location.starts_with("postgres://"))
    return open_postgres(location, what);
  if (location.find("://") != std::string::npos)
    return invalid_argument("the " + what + " is a file or postgresql://..., not '" +
                            location.substr(0, location.find("://")) + "://'");
  return open_sqlite(location, what);
}

}  // namespace sextant

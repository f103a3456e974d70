// Router: method and path to handler. Built once at start, then immutable; find() from any thread.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/http/exchange.h"

namespace sextant::http {

class Router {
 public:
  // `path` is exact ("/v1/models") or ends in "/*" (any rest). Adding a pair twice is our bug (CHECK).
  void add(std::string_view method, std::string_view path, Handler handler);

  struct Match {
    const Handler* handler = nullptr;
    std::string_view pattern;     // for metrics labels: bounded cardinality
    bool path_exists = false;     // with no handler: 405 instead of 404
    std::string allowed_methods;  // for 405's Allow header
  };
  // HEAD finds GET's handler.
  Match find(std::string_view method, std::string_view path) const;
  // Method and path of each, in the order they were added.
  std::vector<std::pair<std::string, std::string>> routes() const;

 private:
  struct Route {
    std::string path;
    bool is_prefix = false;
    std::map<std::string, Handler, std::less<>> methods;
  };
  std::vector<Route> routes_;
};

}  // namespace sextant::http

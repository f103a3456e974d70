// The advisor's HTTP face without HTTP: a request as method, path, query and body, and its answer. It reads the knowledge base
// once and again whenever its revision has moved. Any thread; calls may take long (a first one trains), so not on I/O threads.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "advisor/world.h"

namespace sextant::advisor {

struct FaceRequest {
  std::string method;
  std::string path;
  std::string query;  // raw, without '?'
  std::string body;
};

struct FaceAnswer {
  int status = 200;
  std::string body;  // JSON
};

class Faces {
 public:
  struct Options {
    std::string kb_location;
    std::string version;
    std::optional<std::string> cache_directory;
    std::function<std::string()> today;  // the date by which prices are judged when a request names none
  };
  explicit Faces(Options options) : options_(std::move(options)) {}

  struct Route {
    const char* method;
    const char* path;
  };
  static const std::vector<Route>& routes();

  // Opens the knowledge base, which is made and filled when there is none, and trains; answer() does it when it was not done.
  Status open();
  // What health there is to log at start: opens the knowledge base, trains nothing.
  Result<HealthReport> check();
  // A plan that recommendations made, here or in another process on the same knowledge base; nothing when it is not kept.
  Result<std::optional<std::string>> find_plan(const std::string& id);
  // For one of the routes; nothing a body holds ends more than its own request.
  FaceAnswer answer(const FaceRequest& request);

 private:
  Result<std::shared_ptr<const World>> world();
  Result<std::shared_ptr<const World>> world_of(const std::string& as_of, std::optional<int64_t> revision);
  Status open_locked();
  FaceAnswer handle(const FaceRequest& request);
  FaceAnswer specification(const nlohmann::json& body);
  FaceAnswer predict(const nlohmann::json& body);
  FaceAnswer recommendations(const nlohmann::json& body);
  FaceAnswer compare(const nlohmann::json& body);
  FaceAnswer list(KbKind kind, const std::string& query);
  FaceAnswer add(KbKind kind, const nlohmann::json& body);
  FaceAnswer health();

  Options options_;
  std::mutex mutex_;  // of what follows
  std::optional<KnowledgeBase> kb_;
  std::shared_ptr<const World> world_;
};

// {"error": {message, type, param, code, details}}; details has each error with its message, param and code.
FaceAnswer error_answer(int status, const std::vector<Status>& errors);

// OpenAPI 3.1 of the routes. The two below describe a route of somebody else's in the same words.
nlohmann::ordered_json openapi_document(const std::string& version);
nlohmann::ordered_json openapi_reference(const std::string& schema);
nlohmann::ordered_json openapi_post(const char* id, const char* summary, const std::string& body, const char* done,
                                    const std::string& answer);

// What a body of these routes holds, as JSON Schema; reading refuses whatever does not match.
nlohmann::ordered_json prediction_schema();

// Plans of scenarios side by side, each against the first.
nlohmann::ordered_json compare_plans(const std::vector<std::pair<std::string, nlohmann::ordered_json>>& plans);
std::string comparison_text(const nlohmann::ordered_json& comparison);

}  // namespace sextant::advisor

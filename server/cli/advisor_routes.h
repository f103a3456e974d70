// The advisor's transport-free face behind HTTP routes: work goes to a small pool, answers come back on their exchange.
// Construct before the I/O threads start handling, destroy after they have been joined.
#pragma once

#include <memory>
#include <vector>

#include "advisor/faces/faces.h"
#include "server/cli/manifests.h"
#include "server/http/router.h"
#include "server/openai/text_pool.h"

namespace sextant::cli {

class AdvisorRoutes {
 public:
  explicit AdvisorRoutes(advisor::Faces::Options options, size_t num_threads = 2, size_t max_queued = 128)
      : faces_(std::move(options)), pool_(num_threads, max_queued, kMaxQueuedBytes) {}

  // The advisor's own, and manifests'.
  static std::vector<advisor::Faces::Route> routes();
  // The handlers point at this object.
  void add_to(http::Router& router);
  // Logs what the knowledge base's health is, from the pool: a line that counts, and one for each of the first rules broken.
  void log_health();
  advisor::Faces& faces() { return faces_; }

 private:
  static constexpr size_t kMaxQueuedBytes = 64u << 20;  // of bodies that wait
  void handle(std::shared_ptr<http::Exchange> exchange);

  advisor::Faces faces_;
  const Manifests manifests_{[this](const std::string& id) { return faces_.find_plan(id); }};
  openai::TextPool pool_;  // last: its jobs use the faces
};

// The knowledge base of SEXTANT_KB or the user's own, today's date, this version.
advisor::Faces::Options default_faces(const std::string& kb_location);
std::string today_text();
// OpenAPI 3.1 of all of them.
std::string openapi_text(const std::string& version);

}  // namespace sextant::cli

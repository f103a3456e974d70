// POST /advisor/v1/manifests without HTTP: {"plan": {...}} or {"plan_id": "..."}, "options" as the flags of `sextant deploy render`,
// "format" json or tar; files by name out. Plans that were given are remembered by their id, the latest of them. Any thread.
#pragma once

#include <deque>
#include <mutex>
#include <string>
#include <utility>

#include "advisor/faces/faces.h"

namespace sextant::cli {

class Manifests {
 public:
  static constexpr advisor::Faces::Route kRoute = {"POST", "/advisor/v1/manifests"};

  struct Answer {
    int status = 200;
    std::string body;
    bool is_tar = false;
  };
  Answer answer(const std::string& body);
  // An answer of /advisor/v1/recommendations.
  void remember(const std::string& plan_text);

 private:
  static constexpr size_t kMaxPlans = 64;
  std::mutex mutex_;
  std::deque<std::pair<std::string, std::string>> plans_;  // id, document; the latest last
};

}  // namespace sextant::cli

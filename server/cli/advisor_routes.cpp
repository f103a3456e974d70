#include "server/cli/advisor_routes.h"

#include <boost/asio/post.hpp>
#include <chrono>
#include <cstdio>
#include <map>

#include "engine/base/log.h"
#include "server/cli/command_line.h"
#include "server/http/error_body.h"

namespace sextant::cli {

std::vector<advisor::Faces::Route> AdvisorRoutes::routes() {
  std::vector<advisor::Faces::Route> all = advisor::Faces::routes();
  all.push_back(Manifests::kRoute);
  return all;
}

std::string openapi_text(const std::string& version) {
  nlohmann::ordered_json document = advisor::openapi_document(version);
  Manifests::describe(document);
  return document.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

void AdvisorRoutes::add_to(http::Router& router) {
  for (const advisor::Faces::Route& route : routes())
    router.add(route.method, route.path,
               [this](std::shared_ptr<http::Exchange> exchange) { handle(std::move(exchange)); });
}

void AdvisorRoutes::handle(std::shared_ptr<http::Exchange> exchange) {
  const boost::asio::any_io_executor executor = exchange->executor();
  // The exchange is released on its own executor, never on a pool thread.
  auto job = [this, executor, exchange]() mutable {
    const http::HttpRequest& request = exchange->request();
    Manifests::Answer answer;
    if (request.path == Manifests::kRoute.path) {
      answer = manifests_.answer(request.body);
    } else if (request.path == "/advisor/v1/openapi.json") {
      answer.body = openapi_text(version_text());
    } else {
      advisor::FaceAnswer of_face = faces_.answer({request.method, request.path, request.query, request.body});
      answer = {of_face.status, std::move(of_face.body), false};
    }
    boost::asio::post(executor, [exchange = std::move(exchange), answer = std::move(answer)]() mutable {
      http::HttpResponse response;
      response.status = answer.status;
      response.body = std::move(answer.body);
      if (answer.is_tar) response.content_type = "application/x-tar";
      if (answer.status == 503) response.headers.push_back({"Retry-After", "1"});
      exchange->respond(std::move(response));
    });
  };
  const size_t num_bytes = exchange->request().body.size();
  if (!pool_.try_submit(std::move(job), num_bytes))
    exchange->respond(
        http::error_response(503, "The advisor has too many requests waiting. Try again later.", {}, "queue_full"));
}

void AdvisorRoutes::log_health() {
  auto job = [this] {
    const auto report = faces_.check();
    if (!report.ok()) {
      LOG_WARNING << "knowledge base: " << report.status().message();
      return;
    }
    std::map<std::string, std::pair<size_t, std::string>> rules;  // how many, and the first's words
    for (const advisor::HealthIssue& issue : report->issues) {
      auto& [count, first] = rules[issue.rule];
      if (++count == 1) first = issue.kind + " " + issue.id + ": " + issue.message;
    }
    LOG_INFO << "knowledge base: " << report->benchmarks << " benchmarks, " << report->models << " models, "
             << report->gpus << " GPUs, " << report->prices << " prices; " << report->quarantined.size()
             << " benchmarks quarantined, " << report->issues.size() << " findings (sextant kb health lists them)";
    for (const auto& [rule, found] : rules)
      LOG_WARNING << "knowledge base, " << rule << " (" << found.first << "): " << found.second;
  };
  if (!pool_.try_submit(std::move(job), 0)) LOG_WARNING << "knowledge base: not checked, the advisor is busy";
}

std::string today_text() {
  const auto day = std::chrono::year_month_day(std::chrono::floor<std::chrono::days>(std::chrono::system_clock::now()));
  char text[32];
  std::snprintf(text, sizeof text, "%04d-%02u-%02u", static_cast<int>(day.year()), static_cast<unsigned>(day.month()),
                static_cast<unsigned>(day.day()));
  return text;
}

advisor::Faces::Options default_faces(const std::string& kb_location) {
  return {.kb_location = kb_location.empty() ? advisor::default_kb_location() : kb_location,
          .version = version_text(),
          .cache_directory = std::nullopt,
          .today = today_text};
}

}  // namespace sextant::cli

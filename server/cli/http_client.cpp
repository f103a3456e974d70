#include "server/cli/http_client.h"

#include <curl/curl.h>

#include <memory>

#include <nlohmann/json.hpp>

namespace sextant::cli {
namespace {

constexpr size_t kMaxBodyBytes = 8 << 20;
constexpr long kConnectTimeoutS = 10;

struct Transfer {
  CURL* curl;
  const ClientRequest& request;
  ClientResponse response;
};

size_t on_body(char* data, size_t, size_t num_bytes, void* context) {
  auto& transfer = *static_cast<Transfer*>(context);
  curl_easy_getinfo(transfer.curl, CURLINFO_RESPONSE_CODE, &transfer.response.status);
  if (transfer.response.status == 200 && transfer.request.on_data) {
    transfer.request.on_data({data, num_bytes});
  } else if (transfer.response.body.size() + num_bytes > kMaxBodyBytes) {
    return 0;  // ends the transfer
  } else {
    transfer.response.body.append(data, num_bytes);
  }
  return num_bytes;
}

int on_progress(void* context, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  const auto& transfer = *static_cast<Transfer*>(context);
  return transfer.request.cancelled && transfer.request.cancelled() ? 1 : 0;
}

}  // namespace

Result<ClientResponse> send_request(const ClientRequest& request) {
  static const CURLcode initialised = curl_global_init(CURL_GLOBAL_DEFAULT);
  const std::unique_ptr<CURL, void (*)(CURL*)> curl(curl_easy_init(), curl_easy_cleanup);
  if (initialised != CURLE_OK || !curl) return internal_error("libcurl could not be started");
  curl_slist* list = curl_slist_append(nullptr, "Content-Type: application/json");
  if (!request.api_key.empty()) list = curl_slist_append(list, ("Authorization: Bearer " + request.api_key).c_str());
  const std::unique_ptr<curl_slist, void (*)(curl_slist*)> headers(list, curl_slist_free_all);

  Transfer transfer{curl.get(), request, {}};
  curl_easy_setopt(curl.get(), CURLOPT_URL, request.url.c_str());
  curl_easy_setopt(curl.get(), CURLOPT_PROTOCOLS_STR, "http,https");
  // As OpenSSL and the curl command do: who signs a server's certificate.
  if (const char* authorities = std::getenv("SSL_CERT_FILE"); authorities != nullptr && *authorities != '\0')
    curl_easy_setopt(curl.get(), CURLOPT_CAINFO, authorities);
  curl_easy_setopt(curl.get(), CURLOPT_HTTPHEADER, headers.get());
  curl_easy_setopt(curl.get(), CURLOPT_CONNECTTIMEOUT, kConnectTimeoutS);
  curl_easy_setopt(curl.get(), CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl.get(), CURLOPT_WRITEFUNCTION, on_body);
  curl_easy_setopt(curl.get(), CURLOPT_WRITEDATA, &transfer);
  curl_easy_setopt(curl.get(), CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(curl.get(), CURLOPT_XFERINFOFUNCTION, on_progress);
  curl_easy_setopt(curl.get(), CURLOPT_XFERINFODATA, &transfer);
  if (!request.json_body.empty()) {
    curl_easy_setopt(curl.get(), CURLOPT_POSTFIELDS, request.json_body.c_str());
    curl_easy_setopt(curl.get(), CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.json_body.size()));
  }
  const CURLcode code = curl_easy_perform(curl.get());
  if (code == CURLE_ABORTED_BY_CALLBACK) return Status(StatusCode::kCancelled, "interrupted");
  if (code != CURLE_OK) {
    const bool no_server = code == CURLE_COULDNT_CONNECT || code == CURLE_COULDNT_RESOLVE_HOST;
    return unavailable(request.url + ": " + curl_easy_strerror(code) +
                       (no_server ? " (is a server running there? `sextant serve MODEL` starts one)" : ""));
  }
  curl_easy_getinfo(curl.get(), CURLINFO_RESPONSE_CODE, &transfer.response.status);
  return std::move(transfer.response);
}

std::string join_url(std::string base, std::string_view path) {
  while (base.ends_with('/')) base.pop_back();
  if (base.ends_with("/v1") && path.starts_with("/v1")) base.resize(base.size() - 3);
  if (base.find("://") == std::string::npos) base = "http://" + base;
  return base + std::string(path);
}

std::string error_text(const ClientResponse& response) {
  const nlohmann::json body = nlohmann::json::parse(response.body, nullptr, false);
  if (body.is_object() && body.contains("error")) {
    const nlohmann::json& error = body["error"];
    if (error.is_object() && error.contains("message") && error["message"].is_string()) return error["message"];
    if (error.is_string()) return error;
  }
  return "HTTP status " + std::to_string(response.status) +
         (response.body.empty() ? "" : ": " + response.body.substr(0, 200));
}

Result<std::vector<std::string>> list_server_models(const std::string& base_url, const std::string& api_key,
                                                    std::function<bool()> cancelled) {
  ClientRequest request;
  request.url = join_url(base_url, "/v1/models");
  request.api_key = api_key;
  request.cancelled = std::move(cancelled);
  ASSIGN_OR_RETURN(const ClientResponse response, send_request(request));
  if (response.status != 200) return unavailable(request.url + ": " + error_text(response));
  const nlohmann::json body = nlohmann::json::parse(response.body, nullptr, false);
  std::vector<std::string> ids;
  if (body.is_object() && body.contains("data") && body["data"].is_array()) {
    for (const nlohmann::json& model : body["data"]) {
      if (model.is_object() && model.contains("id") && model["id"].is_string()) ids.push_back(model["id"]);
    }
  }
  if (ids.empty()) return unavailable(request.url + ": the answer lists no models: is this an OpenAI-style server?");
  return ids;
}

}  // namespace sextant::cli

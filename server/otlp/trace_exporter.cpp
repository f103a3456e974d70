#include "server/otlp/trace_exporter.h"

#include <curl/curl.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "engine/base/log.h"

namespace sextant::otlp {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr size_t kMaxAnswerBytes = 64 * 1024;

struct Call {
  std::string answer;
  const std::atomic<bool>* cancelled = nullptr;
};

size_t on_bytes(char* bytes, size_t size, size_t count, void* context) {
  auto& call = *static_cast<Call*>(context);
  if (call.answer.size() + size * count > kMaxAnswerBytes) return 0;
  call.answer.append(bytes, size * count);
  return size * count;
}

int on_progress(void* context, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  return static_cast<const Call*>(context)->cancelled->load(std::memory_order_relaxed) ? 1 : 0;
}

// What OTLP says is to be tried again (OTLP 1.x, "Retryable Response Codes").
bool is_retryable(int status) { return status == 429 || status == 502 || status == 503 || status == 504; }

// Spans that the collector took none of, though it said 200.
uint64_t num_rejected(const std::string& answer) {
  const nlohmann::json document = nlohmann::json::parse(answer, nullptr, false);
  if (!document.is_object() || !document.contains("partialSuccess") || !document["partialSuccess"].is_object())
    return 0;
  const nlohmann::json rejected = document["partialSuccess"].value("rejectedSpans", nlohmann::json(0));
  if (rejected.is_number_unsigned()) return rejected.get<uint64_t>();
  return rejected.is_string() ? std::strtoull(rejected.get_ref<const std::string&>().c_str(), nullptr, 10) : 0;
}

}  // namespace

Result<std::string> traces_url(const std::string& endpoint) {
  const auto refuse = [](const std::string& why) {
    return invalid_argument("otlp_traces_endpoint " + why, "otlp_traces_endpoint");
  };
  if (!endpoint.starts_with("http://") && !endpoint.starts_with("https://"))
    return refuse("must be a URL of OTLP over HTTP, such as http://collector:4318/v1/traces (gRPC is not spoken)");
  const std::unique_ptr<CURLU, void (*)(CURLU*)> parsed(curl_url(), curl_url_cleanup);
  if (!parsed || curl_url_set(parsed.get(), CURLUPART_URL, endpoint.c_str(), 0) != CURLUE_OK)
    return refuse("is not a URL");
  const auto part = [&](CURLUPart which) {
    char* text = nullptr;
    const bool is_there = curl_url_get(parsed.get(), which, &text, 0) == CURLUE_OK;
    std::string value = is_there ? text : "";
    curl_free(text);
    return value;
  };
  if (!part(CURLUPART_USER).empty() || !part(CURLUPART_PASSWORD).empty())
    return refuse("holds a user or a password, which would be printed; OTEL_EXPORTER_OTLP_HEADERS is for secrets");
  const std::string path = part(CURLUPART_PATH);
  if (!path.empty() && path != "/") return endpoint;
  curl_url_set(parsed.get(), CURLUPART_PATH, "/v1/traces", 0);
  return part(CURLUPART_URL);
}

Result<std::vector<std::pair<std::string, std::string>>> parse_headers(const std::string& list) {
  std::vector<std::pair<std::string, std::string>> headers;
  std::string_view rest = list;
  while (!rest.empty()) {
    const size_t comma = std::min(rest.find(','), rest.size());
    std::string_view entry = rest.substr(0, comma);
    rest.remove_prefix(std::min(comma + 1, rest.size()));
    while (!entry.empty() && entry.front() == ' ') entry.remove_prefix(1);
    while (!entry.empty() && entry.back() == ' ') entry.remove_suffix(1);
    if (entry.empty()) continue;
    const size_t equals = entry.find('=');
    const auto is_token = [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
    };
    // The value may be a secret: it is in no message.
    const auto refuse = [] {
      return invalid_argument("OTEL_EXPORTER_OTLP_HEADERS must be name=value,name=value", "otlp_traces_endpoint");
    };
    if (equals == std::string_view::npos || equals == 0 || !std::ranges::all_of(entry.substr(0, equals), is_token))
      return refuse();
    int num_bytes = 0;
    const std::string value(entry.substr(equals + 1));
    char* const decoded = curl_easy_unescape(nullptr, value.c_str(), static_cast<int>(value.size()), &num_bytes);
    const std::string text = decoded != nullptr ? std::string(decoded, static_cast<size_t>(num_bytes)) : "";
    curl_free(decoded);
    if (std::ranges::any_of(text, [](char c) { return (c >= 0 && c < ' ') || c == 0x7f; })) return refuse();
    headers.emplace_back(entry.substr(0, equals), text);
  }
  return headers;
}

TraceExporter::TraceExporter(Options options) : options_(std::move(options)), thread_([this] { run(); }) {}

TraceExporter::~TraceExporter() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    end_ = steady_clock::now() + options_.flush_time;
  }
  wake_.notify_all();
  // A post that began before has that long too.
  {
    std::unique_lock lock(mutex_);
    wake_.wait_until(lock, end_, [&] { return queue_.empty(); });
  }
  is_cancelled_ = true;
  thread_.join();
}

void TraceExporter::add(RequestTrace trace) {
  {
    const std::lock_guard lock(mutex_);
    if (queue_.size() < options_.queue_capacity && !stopping_) {
      queue_.push_back(std::move(trace));
      if (queue_.size() == options_.batch_size) wake_.notify_all();
      return;
    }
  }
  drop(trace);
}

TraceExporter::Stats TraceExporter::stats() const {
  return {num_exported_.load(std::memory_order_relaxed), num_dropped_.load(std::memory_order_relaxed),
          num_failures_.load(std::memory_order_relaxed), is_up_.load(std::memory_order_relaxed)};
}

void TraceExporter::run() {
  milliseconds retry = options_.first_retry;
  std::unique_lock lock(mutex_);
  steady_clock::time_point not_before{};
  for (;;) {
    wake_.wait_for(lock, options_.batch_delay, [&] {
      return stopping_ || (queue_.size() >= options_.batch_size && steady_clock::now() >= not_before);
    });
    if (stopping_ && (queue_.empty() || steady_clock::now() >= end_ || is_cancelled_)) break;
    if (queue_.empty() || (steady_clock::now() < not_before && !stopping_)) continue;
    // It stays in the queue, and counts for its bound, until it is on the other side.
    const size_t num = std::min(queue_.size(), options_.batch_size);
    const std::vector<RequestTrace> batch(queue_.begin(), queue_.begin() + static_cast<std::ptrdiff_t>(num));
    lock.unlock();
    const Outcome outcome = send(batch);
    lock.lock();
    if (outcome == Outcome::kDone) {
      queue_.erase(queue_.begin(), queue_.begin() + static_cast<std::ptrdiff_t>(num));
      retry = options_.first_retry;
      not_before = {};
      if (stopping_ && queue_.empty()) break;
    } else {
      if (stopping_) break;
      not_before = steady_clock::now() + retry;
      retry = std::min(2 * retry, options_.longest_retry);
    }
  }
  for (const RequestTrace& trace : queue_) drop(trace);
  queue_.clear();
  lock.unlock();
  wake_.notify_all();
}

TraceExporter::Outcome TraceExporter::send(const std::vector<RequestTrace>& batch) {
  const Result<std::pair<int, std::string>> answer = post(render_spans(batch, options_.resource));
  uint64_t num = 0;
  for (const RequestTrace& trace : batch) num += num_spans(trace);
  const bool is_taken = answer.ok() && answer->first >= 200 && answer->first < 300;
  if (is_taken) {
    const uint64_t rejected = std::min(num, num_rejected(answer->second));
    num_exported_.fetch_add(num - rejected, std::memory_order_relaxed);
    num_dropped_.fetch_add(rejected, std::memory_order_relaxed);
  } else {
    num_failures_.fetch_add(1, std::memory_order_relaxed);
  }
  if (is_taken != is_up_.exchange(is_taken)) {
    if (is_taken) {
      LOG_INFO << "the collector of traces answers again";
    } else {
      LOG_WARNING << "traces cannot be sent to " << options_.url << ": "
                  << (answer.ok() ? "status " + std::to_string(answer->first) : answer.status().message())
                  << "; requests are served as ever";
    }
  }
  if (is_taken) return Outcome::kDone;
  if (!answer.ok() || is_retryable(answer->first)) return Outcome::kAgain;
  num_dropped_.fetch_add(num, std::memory_order_relaxed);  // it will never take these
  return Outcome::kDone;
}

Result<std::pair<int, std::string>> TraceExporter::post(const std::string& body) {
  if (options_.post) return options_.post(body);
  static const CURLcode initialised = curl_global_init(CURL_GLOBAL_DEFAULT);
  const std::unique_ptr<CURL, void (*)(CURL*)> curl(curl_easy_init(), curl_easy_cleanup);
  if (initialised != CURLE_OK || !curl) return internal_error("libcurl could not be started");
  Call call;
  call.cancelled = &is_cancelled_;
  std::unique_ptr<curl_slist, void (*)(curl_slist*)> headers(nullptr, curl_slist_free_all);
  const auto add_header = [&](const std::string& line) {
    curl_slist* const longer = curl_slist_append(headers.get(), line.c_str());
    if (longer == nullptr) return;
    (void)headers.release();
    headers.reset(longer);
  };
  add_header("Content-Type: application/json");
  add_header("Expect:");
  for (const auto& [name, value] : options_.headers) add_header(name + ": " + value);
  curl_easy_setopt(curl.get(), CURLOPT_URL, options_.url.c_str());
  curl_easy_setopt(curl.get(), CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl.get(), CURLOPT_FOLLOWLOCATION, 0L);
  curl_easy_setopt(curl.get(), CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl.get(), CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(options_.timeout.count() / 2));
  curl_easy_setopt(curl.get(), CURLOPT_TIMEOUT_MS, static_cast<long>(options_.timeout.count()));
  curl_easy_setopt(curl.get(), CURLOPT_HTTPHEADER, headers.get());
  curl_easy_setopt(curl.get(), CURLOPT_POSTFIELDS, body.data());
  curl_easy_setopt(curl.get(), CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body.size()));
  curl_easy_setopt(curl.get(), CURLOPT_WRITEFUNCTION, on_bytes);
  curl_easy_setopt(curl.get(), CURLOPT_WRITEDATA, &call);
  curl_easy_setopt(curl.get(), CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(curl.get(), CURLOPT_XFERINFOFUNCTION, on_progress);
  curl_easy_setopt(curl.get(), CURLOPT_XFERINFODATA, &call);
  const CURLcode code = curl_easy_perform(curl.get());
  if (code != CURLE_OK) return unavailable(curl_easy_strerror(code));
  long status = 0;
  curl_easy_getinfo(curl.get(), CURLINFO_RESPONSE_CODE, &status);
  return std::pair(static_cast<int>(status), std::move(call.answer));
}

}  // namespace sextant::otlp

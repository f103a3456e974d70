#include "server/fleet/forward.h"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <cstdlib>
#include <utility>

#include "engine/base/log.h"
#include "server/http/error_body.h"
#include "server/http/sse_writer.h"

namespace sextant::fleet {
namespace {

constexpr uint64_t kMostCollectedBytes = 1 << 20;  // of an answer with a length; a longer one is passed on in pieces
constexpr size_t kMostBufferedBytes = 256 * 1024;  // for a client that reads slowly; then the server is held back

std::string lower(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

// Events of a stream: each is a token, or a few.
int64_t num_events(std::string_view bytes) {
  int64_t count = 0;
  for (size_t at = bytes.find("\n\n"); at != bytes.npos; at = bytes.find("\n\n", at + 2)) ++count;
  return count;
}

std::chrono::milliseconds ms_of(double seconds) {
  return std::chrono::milliseconds(static_cast<int64_t>(seconds * 1e3));
}

http::HttpResponse response_of(http::UpstreamHead head) {
  http::HttpResponse response;
  response.status = head.status;
  response.content_type = std::move(head.content_type);
  response.headers = std::move(head.headers);
  return response;
}

bool is_failure(int status) { return status == 500 || status == 502 || status == 504; }
bool is_busy(int status) { return status == 503 || status == 429; }

}  // namespace

Forward::Forward(std::shared_ptr<Fleet> fleet, std::shared_ptr<http::Exchange> exchange)
    : fleet_(std::move(fleet)), exchange_(std::move(exchange)) {}

Forward::~Forward() { release(Outcome::kCancelled, ""); }

void Forward::start() {
  Result<RequestFacts> facts = read_request_facts(exchange_->request().body);
  if (!facts.ok()) return exchange_->respond(http::error_response(facts.status()));
  facts_ = std::move(facts).value();
  pool_ = fleet_->find(facts_.model);
  if (pool_ == nullptr) {
    if (facts_.model.empty()) return refuse(400, "model must be given: this server has several", "missing_model");
    return refuse(404, "The model '" + facts_.model.substr(0, 200) + "' does not exist.", "model_not_found");
  }
  exchange_->on_disconnect([self = shared_from_this()] { self->on_client_gone(); });
  exchange_->on_cancel([self = shared_from_this()] { self->on_cancel(); });
  fleet_->add_waiting(shared_from_this());
  attempt();
}

void Forward::attempt() {
  const int64_t now = steady_ns();
  const RequestLoad load{facts_.estimated_tokens(pool_->pool->config().default_max_tokens), facts_.prompt};
  pick_ = pool_->pool->pick(load, tried_, now);
  if (!pick_ && pool_->failover != nullptr) {
    pool_ = pool_->failover;
    tried_.clear();
    fleet_->metrics().on_failover(pool_->pool->config().name);
    return attempt();
  }
  if (!pick_) {
    if (busy_answer_) {
      exchange_->respond(std::move(*busy_answer_));
      return done();
    }
    const std::string& model = pool_->pool->config().model;
    return refuse(503, "No server of '" + model + "' can be had now.", "no_server", pool_->pool->retry_after_s(now));
  }
  tried_.insert(pick_->member);
  tokens_left_ = load.tokens;
  picked_ns_ = now;
  has_head_ = has_body_ = collects_ = paused_ = false;
  collected_.clear();
  if (pick_->knows_prefix) fleet_->metrics().on_prefix_hit(pool_->pool->config().name);
  const PoolConfig& config = pool_->pool->config();
  const http::UpstreamTimeouts timeouts{ms_of(config.connect_timeout_s), ms_of(config.first_byte_timeout_s),
                                        ms_of(config.idle_timeout_s)};
  const auto self = shared_from_this();
  call_ = fleet_->client().start(
      exchange_->executor(), pick_->endpoint, request_for(*pool_), timeouts,
      {.on_head = [self](http::UpstreamHead head) { self->on_head(std::move(head)); },
       .on_body = [self](std::string_view bytes) { self->on_body(bytes); },
       .on_end = [self](http::UpstreamEnd end, const std::string& reason) { self->on_end(end, reason); }});
}

http::UpstreamRequest Forward::request_for(const Fleet::NamedPool& pool) const {
  const http::HttpRequest& request = exchange_->request();
  http::UpstreamRequest out;
  out.method = request.method;
  out.target = request.path + (request.query.empty() ? "" : "?" + request.query);
  for (const http::Header& header : request.headers) {
    const std::string name = lower(header.name);
    const bool ours =
        name == "x-request-id" || name == "x-forwarded-for" || (name == "authorization" && !pool.api_key.empty());
    if (!ours) out.headers.push_back(header);
  }
  if (!pool.api_key.empty()) out.headers.push_back({"Authorization", "Bearer " + pool.api_key});
  out.headers.push_back({"X-Request-Id", request.request_id});
  std::string forwarded(request.header("X-Forwarded-For"));
  forwarded += (forwarded.empty() ? "" : ", ") + request.client_address;
  out.headers.push_back({"X-Forwarded-For", std::move(forwarded)});
  const PoolConfig& config = pool.pool->config();
  const std::string& model = config.upstream_model.empty() ? config.model : config.upstream_model;
  if (model == facts_.model) {
    out.body = std::shared_ptr<const std::string>(exchange_, &request.body);
  } else {
    out.body = std::make_shared<const std::string>(with_model(request.body, facts_, model));
  }
  return out;
}

void Forward::on_head(http::UpstreamHead head) {
  if ((is_failure(head.status) && head.status != 500) || head.status == 503) {
    const std::string reason = "it answered " + std::to_string(head.status);
    call_->cancel();
    release(is_busy(head.status) ? Outcome::kBusy : Outcome::kFailed, reason);
    http::HttpResponse answer = http::error_response(
        head.status,
        "The server of this model " + std::string(head.status == 503 ? "has too much to do; try again." : "failed."));
    for (const http::Header& header : head.headers)
      if (lower(header.name) == "retry-after")
        http::set_retry_after(answer, std::strtod(header.value.c_str(), nullptr));
    busy_answer_ = std::move(answer);
    if (retry(head.status == 503 ? "busy" : "bad_gateway", true)) return;
    exchange_->respond(std::move(*busy_answer_));
    return done();
  }
  head_ = std::move(head);
  has_head_ = true;
  collects_ = head_.content_length && *head_.content_length <= kMostCollectedBytes;
}

void Forward::on_body(std::string_view bytes) {
  if (!std::exchange(has_body_, true)) {
    const int64_t now = steady_ns();
    fleet_->remove_waiting(this);
    pool_->pool->first_byte_came(pick_->member, !collects_, now - picked_ns_, now);
    if (!collects_) {
      fleet_->metrics().on_first_byte(pool_->pool->config().name, static_cast<double>(now - picked_ns_) * 1e-9);
    }
  }
  if (collects_) {
    collected_ += bytes;
    return;
  }
  if (!is_stream_) begin_stream();
  if (const int64_t came = std::min(num_events(bytes), tokens_left_ - 1); came > 0) {
    pool_->pool->tokens_came(pick_->member, came);
    tokens_left_ -= came;
  }
  exchange_->write_now(std::string(bytes));
  if (!paused_ && exchange_->buffered_bytes() > kMostBufferedBytes) {
    paused_ = true;
    call_->pause();
  }
}

void Forward::begin_stream() {
  is_stream_ = true;
  exchange_->on_drained([self = shared_from_this()] {
    if (!std::exchange(self->paused_, false) || !self->call_) return;
    self->call_->resume();
  });
  http::UpstreamHead head = head_;
  exchange_->start_stream(response_of(std::move(head)));
}

void Forward::on_end(http::UpstreamEnd end, const std::string& reason) {
  call_.reset();
  if (end == http::UpstreamEnd::kComplete) {
    const int status = head_.status;
    const Outcome outcome = is_failure(status) ? Outcome::kFailed : is_busy(status) ? Outcome::kBusy : Outcome::kGood;
    release(outcome, "it answered " + std::to_string(status));
    if (is_stream_) {
      exchange_->finish_stream();
    } else {
      finish_whole();
    }
    return done();
  }
  release(Outcome::kFailed, reason);
  if (is_stream_) return lose_stream(reason);
  const bool seen = end != http::UpstreamEnd::kNotSent;
  if (retry(seen ? "no_answer" : "no_connection", seen)) return;
  if (end == http::UpstreamEnd::kTimeout)
    return refuse(504, "The server of this model did not answer in time.", "upstream_timeout");
  refuse(502, "The server of this model was lost before it answered.", "upstream_lost");
}

void Forward::finish_whole() {
  http::HttpResponse response = response_of(std::move(head_));
  response.body = std::move(collected_);
  exchange_->respond(std::move(response));
}

// The client has had a part: it must not look whole.
void Forward::lose_stream(const std::string& reason) {
  LOG_WARNING << "request " << exchange_->request().request_id << ": its stream broke: " << reason;
  const nlohmann::ordered_json error = {
      {"error",
       {{"message", "The server of this stream was lost; what came is not the whole answer."},
        {"type", "server_error"},
        {"param", nullptr},
        {"code", "upstream_lost"}}}};
  const std::string type = lower(head_.content_type);
  if (type.starts_with("text/event-stream")) exchange_->write(http::sse_event(error.dump()));
  if (type.find("json") != type.npos) exchange_->write(error.dump() + "\n");
  exchange_->abort_stream();
  fleet_->metrics().on_broken_stream(pool_->pool->config().name);
  done();
}

bool Forward::retry(const char* why, bool seen) {
  if (done_ || !exchange_) return false;
  if (seen && !pool_->pool->may_retry()) {
    fleet_->metrics().on_retry(pool_->pool->config().name, "over_budget");
    return false;
  }
  fleet_->metrics().on_retry(pool_->pool->config().name, why);
  attempt();
  return true;
}

void Forward::release(Outcome outcome, const std::string& reason) {
  if (!pick_) return;
  fleet_->metrics().on_attempt(pool_->pool->config().name, pick_->endpoint.authority(), outcome);
  pool_->pool->finish(*pick_, tokens_left_, outcome, reason, steady_ns());
  pick_.reset();
}

void Forward::refuse(int status, const std::string& message, const char* code, double retry_after_s) {
  http::HttpResponse response =
      http::error_response(status, message, code == std::string("missing_model") ? "model" : "", code);
  http::set_retry_after(response, retry_after_s);
  exchange_->respond(std::move(response));
  done();
}

void Forward::done() {
  if (std::exchange(done_, true)) return;
  fleet_->remove_waiting(this);
}

void Forward::on_client_gone() {
  if (call_) std::exchange(call_, nullptr)->cancel();
  release(Outcome::kCancelled, "");
  done();
}

// Of a WebSocket, whose client stays and waits for an end.
void Forward::on_cancel() {
  if (done_) return;
  if (call_) std::exchange(call_, nullptr)->cancel();
  release(Outcome::kCancelled, "");
  if (!is_stream_) {
    head_ = {};
    head_.status = 200;
    head_.content_type = "application/x-ndjson";
    begin_stream();
  }
  exchange_->write(nlohmann::ordered_json{{"delta", "[DONE]"}, {"index", 0}, {"finish_reason", "abort"}}.dump() + "\n");
  exchange_->finish_stream();
  done();
}

void Forward::on_member_down() {
  boost::asio::post(exchange_->executor(), [self = shared_from_this()] {
    if (self->done_ || self->has_body_ || !self->call_ || !self->pick_) return;
    if (!self->pool_->pool->is_down(self->pick_->member)) return;
    std::exchange(self->call_, nullptr)->cancel();
    self->release(Outcome::kCancelled, "");
    if (!self->retry("down", true))
      self->refuse(502, "The server of this model was lost before it answered.", "upstream_lost");
  });
}

}  // namespace sextant::fleet

#include "bench/client/stream_reader.h"

#include <nlohmann/json.hpp>

#include "bench/client/chunk_scanner.h"

namespace sextant::bench {
namespace {

constexpr size_t kMaxLineBytes = 16 << 20;
constexpr size_t kMaxErrorBody = 64 << 10;
constexpr size_t kMaxShown = 200;

}  // namespace

const char* outcome_name(OutcomeKind kind) {
  switch (kind) {
    case OutcomeKind::kNotSent: return "not_sent";
    case OutcomeKind::kFinished: return "finished";
    case OutcomeKind::kInterrupted: return "interrupted";
    case OutcomeKind::kConnect: return "connect";
    case OutcomeKind::kTimeout: return "timeout";
    case OutcomeKind::kHttpStatus: return "http_status";
    case OutcomeKind::kNotStreamed: return "not_streamed";
    case OutcomeKind::kMalformed: return "malformed";
    case OutcomeKind::kStreamError: return "stream_error";
    case OutcomeKind::kCutShort: return "cut_short";
    case OutcomeKind::kEmpty: return "empty";
  }
  return "unknown";
}

std::string error_message_of(std::string_view body) {
  const nlohmann::json json = nlohmann::json::parse(body, nullptr, false);
  std::string text;
  if (json.is_object()) {
    const nlohmann::json& error = json.contains("error") ? json["error"] : json;
    if (error.is_string()) text = error.get<std::string>();
    for (const char* key : {"message", "detail"}) {
      if (text.empty() && error.is_object() && error.contains(key) && error[key].is_string()) text = error[key];
    }
  }
  if (text.empty()) text = std::string(body.substr(0, kMaxShown * 2));
  std::string line;
  for (const char c : text) {
    if (line.size() >= kMaxShown) {
      line += "...";
      break;
    }
    line += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? ' ' : c;
  }
  return line;
}

StreamReader::StreamReader(bool keep_text)
    : keep_text_(keep_text), response_([this](std::string_view bytes) { on_body(bytes); }) {}

void StreamReader::begin(RequestOutcome* outcome) {
  outcome_ = outcome;
  response_.reset();
  failed_ = false;
  pending_.clear();
  data_.clear();
  has_data_ = false;
  other_body_.clear();
}

void StreamReader::fail(OutcomeKind kind, std::string message) {
  if (failed_) return;
  failed_ = true;
  outcome_->kind = kind;
  outcome_->message = std::move(message);
  outcome_->end_ns = now_ns_;
}

bool StreamReader::append(std::string_view bytes, int64_t now_ns) {
  now_ns_ = now_ns;
  if (!response_.append(bytes)) fail(OutcomeKind::kMalformed, response_.error());
  return !failed_;
}

void StreamReader::close(int64_t now_ns) {
  now_ns_ = now_ns;
  if (!response_.close()) fail(OutcomeKind::kCutShort, response_.error());
}

void StreamReader::on_body(std::string_view bytes) {
  if (failed_) return;
  if (response_.status() != 200 || !response_.is_event_stream()) {
    other_body_.append(bytes.substr(0, kMaxErrorBody - std::min(other_body_.size(), kMaxErrorBody)));
    return;
  }
  if (!pending_.empty()) {
    const size_t end = bytes.find('\n');
    if (end == std::string_view::npos) {
      pending_.append(bytes);
      if (pending_.size() > kMaxLineBytes) fail(OutcomeKind::kMalformed, "an event is longer than 16 MiB");
      return;
    }
    pending_.append(bytes.substr(0, end));
    bytes.remove_prefix(end + 1);
    std::string line;
    line.swap(pending_);
    on_line(line);
  }
  size_t end;
  while (!failed_ && (end = bytes.find('\n')) != std::string_view::npos) {
    on_line(bytes.substr(0, end));
    bytes.remove_prefix(end + 1);
  }
  pending_.append(bytes);
}

// The SSE rules that matter here: "data:" lines make an event, an empty line ends it, the rest is ignored.
void StreamReader::on_line(std::string_view line) {
  if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  if (line.empty()) {
    if (has_data_) {
      std::string data;
      data.swap(data_);
      has_data_ = false;
      on_event(data);
    }
    return;
  }
  if (!line.starts_with("data:")) return;
  line.remove_prefix(5);
  if (line.starts_with(' ')) line.remove_prefix(1);
  if (has_data_) data_ += '\n';
  data_ += line;
  has_data_ = true;
}

void StreamReader::on_event(std::string_view data) {
  RequestOutcome& o = *outcome_;
  if (data == "[DONE]") {
    o.saw_done = true;
    return;
  }
  ChunkFacts facts;
  if (!scan_chunk(data, &facts)) {
    fail(OutcomeKind::kMalformed, "a chunk of the stream is not a JSON object: " + error_message_of(data));
    return;
  }
  if (!facts.error.empty()) {
    fail(OutcomeKind::kStreamError, error_message_of(data));
    return;
  }
  if (facts.has_text || facts.num_token_ids > 0) {
    if (o.num_events == 0) {
      o.first_ns = now_ns_;
    } else {
      o.gaps_ms.push_back(static_cast<float>(static_cast<double>(now_ns_ - o.last_ns) * 1e-6));
    }
    o.last_ns = now_ns_;
    ++o.num_events;
    if (keep_text_ && !facts.text.empty()) o.text.append(facts.text);
  }
  if (facts.has_token_ids) {
    o.counts_by_ids = true;
    o.token_ids += facts.num_token_ids;
  }
  if (!facts.finish_reason.empty()) {
    o.finish_reason = facts.finish_reason.substr(0, 32);
    if (o.num_events > 0) o.last_ns = now_ns_;
  }
  if (facts.prompt_tokens >= 0) o.usage_prompt_tokens = facts.prompt_tokens;
  if (facts.completion_tokens >= 0) o.usage_completion_tokens = facts.completion_tokens;
  if (facts.cached_tokens >= 0) o.usage_cached_tokens = facts.cached_tokens;
}

void StreamReader::finish(int64_t now_ns) {
  RequestOutcome& o = *outcome_;
  now_ns_ = now_ns;
  o.status = response_.status();
  if (o.end_ns == 0) o.end_ns = now_ns;
  if (failed_) return;
  if (!response_.done()) {
    fail(OutcomeKind::kCutShort, "the answer did not end");
    return;
  }
  if (o.status != 200) {
    fail(OutcomeKind::kHttpStatus, "HTTP " + std::to_string(o.status) + ": " + error_message_of(other_body_));
  } else if (!response_.is_event_stream()) {
    fail(OutcomeKind::kNotStreamed,
         "the server answered \"stream\": true with " +
             (response_.content_type().empty() ? "no content type" : response_.content_type()) +
             " instead of text/event-stream: it does not stream");
  } else if (!o.saw_done && o.finish_reason.empty()) {
    fail(OutcomeKind::kCutShort, "the stream ended without [DONE] and without a finish_reason");
  } else if (o.num_events == 0) {
    fail(OutcomeKind::kEmpty, "the answer holds no token");
  } else {
    o.kind = OutcomeKind::kFinished;
  }
}

}  // namespace sextant::bench

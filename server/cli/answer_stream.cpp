#include "server/cli/answer_stream.h"

#include <nlohmann/json.hpp>

namespace sextant::cli {
namespace {

// A server that never ends a line must not fill our memory.
constexpr size_t kMaxLineBytes = 16 << 20;

}  // namespace

void AnswerStream::append(std::string_view bytes) {
  while (!bytes.empty() && error_.empty()) {
    const size_t end = bytes.find('\n');
    buffer_.append(bytes.substr(0, end));
    if (buffer_.size() > kMaxLineBytes) {
      error_ = "the server sent a line that does not end";
      return;
    }
    if (end == std::string_view::npos) return;
    bytes.remove_prefix(end + 1);
    std::string line;
    line.swap(buffer_);
    if (line.ends_with('\r')) line.pop_back();
    handle_line(line);
  }
}

void AnswerStream::handle_line(std::string_view line) {
  if (line.empty()) {
    if (has_data_) handle_event(data_);
    data_.clear();
    has_data_ = false;
    return;
  }
  if (!line.starts_with("data:")) return;  // comments and other fields
  line.remove_prefix(5);
  if (line.starts_with(' ')) line.remove_prefix(1);
  if (has_data_) data_ += '\n';
  data_ += line;
  has_data_ = true;
}

void AnswerStream::handle_event(const std::string& data) {
  if (data == "[DONE]") {
    done_ = true;
    return;
  }
  const nlohmann::json chunk = nlohmann::json::parse(data, nullptr, false);
  if (!chunk.is_object()) {
    error_ = "the server sent an event that is not a JSON object: " + data.substr(0, 100);
    return;
  }
  if (chunk.contains("error") && !chunk["error"].is_null()) {
    const nlohmann::json& error = chunk["error"];
    const bool has_message = error.is_object() && error.contains("message") && error["message"].is_string();
    error_ = has_message ? error["message"].get<std::string>()
                         : error.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    return;
  }
  if (!chunk.contains("choices") || !chunk["choices"].is_array()) return;
  for (const nlohmann::json& choice : chunk["choices"]) {
    if (!choice.is_object()) continue;
    if (choice.contains("finish_reason") && choice["finish_reason"].is_string())
      finish_reason_ = choice["finish_reason"];
    if (!choice.contains("delta") || !choice["delta"].is_object()) continue;
    const nlohmann::json& delta = choice["delta"];
    if (!delta.contains("content") || !delta["content"].is_string()) continue;
    const auto piece = delta["content"].get<std::string>();
    if (piece.empty()) continue;
    text_ += piece;
    on_text_(piece);
  }
}

}  // namespace sextant::cli

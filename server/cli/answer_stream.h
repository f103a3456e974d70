// AnswerStream: from the bytes of a streamed chat answer (server-sent events of OpenAI's chunks), however they are cut,
// to its text. Takes what any server sends; must not know sockets or terminals.
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace sextant::cli {

class AnswerStream {
 public:
  // Called with each piece of the answer's text.
  explicit AnswerStream(std::function<void(std::string_view)> on_text) : on_text_(std::move(on_text)) {}

  void append(std::string_view bytes);

  const std::string& text() const { return text_; }                    // the whole answer so far
  const std::string& error() const { return error_; }                  // what went wrong in the stream; empty: nothing
  const std::string& finish_reason() const { return finish_reason_; }  // empty until the server says
  bool done() const { return done_; }                                  // "[DONE]" came

 private:
  void handle_line(std::string_view line);
  void handle_event(const std::string& data);

  std::function<void(std::string_view)> on_text_;
  std::string buffer_;  // an unfinished line
  std::string data_;    // of an unfinished event
  bool has_data_ = false;
  std::string text_;
  std::string error_;
  std::string finish_reason_;
  bool done_ = false;
};

}  // namespace sextant::cli

// What a router reads: answers of the servers behind it, in pieces as the first byte says, and the facts of a request's body.
// An answer read in pieces is the answer read at once; a body whose facts are found is rewritten into one with the same.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "server/fleet/request_facts.h"
#include "server/http/upstream_answer.h"

namespace {

using namespace sextant;

struct Read {
  std::string error, body;
  bool complete = false;
  int status = 0;
};

Read read(std::string_view bytes, size_t piece) {
  http::UpstreamAnswer answer(false, 4096);
  Read out;
  while (!bytes.empty() && out.error.empty()) {
    const size_t count = std::min(piece, bytes.size());
    out.error = answer.feed(bytes.substr(0, count));
    bytes.remove_prefix(count);
    if (out.error.empty()) out.body += answer.take_body();
  }
  if (out.error.empty()) out.error = answer.feed_end();
  if (out.error.empty()) out.body += answer.take_body();
  out.complete = out.error.empty() && answer.is_complete();
  if (answer.has_head()) out.status = answer.take_head().status;
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] % 2 == 0) {
    const Read whole = read(text, text.size());
    const Read pieces = read(text, 1 + data[0] / 2);
    if (whole.complete != pieces.complete ||
        (whole.complete && (whole.body != pieces.body || whole.status != pieces.status)))
      abort();
    return 0;
  }
  const Result<fleet::RequestFacts> facts = fleet::read_request_facts(text);
  if (!facts.ok()) return 0;
  if (facts->estimated_tokens(256) < 1) abort();
  const std::string renamed = fleet::with_model(text, *facts, "another \"model\"");
  const Result<fleet::RequestFacts> again = fleet::read_request_facts(renamed);
  if (!again.ok() || again->model != "another \"model\"" || again->prompt != facts->prompt) abort();
  const auto parsed = nlohmann::json::parse(text, nullptr, false);
  if (parsed.is_object() && parsed.contains("model") && parsed["model"].is_string() && parsed["model"] != facts->model)
    abort();
  return 0;
}

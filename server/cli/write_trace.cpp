#include "server/cli/write_trace.h"

#include <cerrno>
#include <cstring>

#include "engine/base/log.h"

namespace sextant::cli {
namespace {

// Ids are checked on their way in (http/request_id.h) and paths are not: anything but plain ASCII becomes '?'.
void append_quoted(std::string& line, std::string_view text) {
  line += '"';
  for (const char c : text) line += c >= 0x20 && c < 0x7f && c != '"' && c != '\\' ? c : '?';
  line += '"';
}

}  // namespace

Result<std::unique_ptr<WriteTrace>> WriteTrace::open(const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "we");
  if (file == nullptr) {
    return invalid_argument("trace_file '" + path + "' cannot be written: " + std::strerror(errno), "trace_file");
  }
  std::setvbuf(file, nullptr, _IOFBF, 1 << 20);
  return std::unique_ptr<WriteTrace>(new WriteTrace(file, path));
}

WriteTrace::~WriteTrace() {
  if (std::fclose(file_) != 0) LOG_ERROR << path_ << ": the trace is not complete: " << std::strerror(errno);
}

void WriteTrace::record(const http::SocketEvent& event) {
  using Kind = http::SocketEvent::Kind;
  std::string line = "{\"t_ns\":" + std::to_string(event.time_ns) + ",\"event\":\"";
  line += event.kind == Kind::kRequest ? "request" : event.kind == Kind::kWrite ? "write" : "end";
  line += "\",\"id\":";
  append_quoted(line, event.request_id);
  if (event.kind == Kind::kRequest) {
    line += ",\"path\":";
    append_quoted(line, event.path);
  }
  if (event.kind != Kind::kEnd) line += ",\"bytes\":" + std::to_string(event.num_bytes);
  if (event.kind == Kind::kWrite) line += ",\"tokens\":" + std::to_string(event.num_tokens);
  line += "}\n";
  const std::lock_guard lock(mutex_);
  const bool written = std::fwrite(line.data(), 1, line.size(), file_) == line.size();
  // An answer's end goes to the disk, so that whoever got it finds it in the file.
  const bool flushed = event.kind != Kind::kEnd || std::fflush(file_) == 0;
  if ((!written || !flushed) && !failed_) {
    failed_ = true;
    LOG_ERROR << path_ << ": the trace is not complete: " << std::strerror(errno);
  }
}

}  // namespace sextant::cli

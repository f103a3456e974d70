// WriteTrace: the truth about what the server sent and when, as JSON lines: what clients measure is checked against it.
//   {"t_ns":1,"event":"request","id":"...","path":"/v1/completions","bytes":80}
//   {"t_ns":2,"event":"write","id":"...","bytes":310,"tokens":1}
//   {"t_ns":3,"event":"end","id":"..."}
// t_ns is CLOCK_MONOTONIC, which all processes of a machine share. Any thread.
#pragma once

#include <cstdio>
#include <memory>
#include <mutex>
#include <string>

#include "engine/base/result.h"
#include "server/http/listener.h"

namespace sextant::cli {

class WriteTrace {
 public:
  static Result<std::unique_ptr<WriteTrace>> open(const std::string& path);
  ~WriteTrace();
  WriteTrace(const WriteTrace&) = delete;
  WriteTrace& operator=(const WriteTrace&) = delete;

  void record(const http::SocketEvent& event);

 private:
  WriteTrace(std::FILE* file, std::string path) : file_(file), path_(std::move(path)) {}

  std::mutex mutex_;
  std::FILE* file_;
  const std::string path_;
  bool failed_ = false;
};

}  // namespace sextant::cli

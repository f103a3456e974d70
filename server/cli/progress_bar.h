// ProgressBar: how far a download is, on stderr: a line that is redrawn on a terminal, a plain line now and then elsewhere.
// One thread. Time is passed in, so that tests can hold it still.
#pragma once

#include <cstdint>
#include <cstdio>
#include <deque>
#include <optional>
#include <string>

#include "engine/base/clock.h"

namespace sextant::cli {

class ProgressBar {
 public:
  // `out` and `clock` outlive this object.
  ProgressBar(std::FILE* out, bool is_terminal, const Clock& clock = SteadyClock::instance());
  ~ProgressBar();  // finish()

  void update(const std::string& label, uint64_t done, std::optional<uint64_t> total);
  void finish();  // ends the redrawn line

  // "model.safetensors  42%  1.2 GiB of 2.9 GiB  38.1 MiB/s  45 s left"
  std::string text(const std::string& label, uint64_t done, std::optional<uint64_t> total) const;

 private:
  struct Sample {
    int64_t time_ns;
    uint64_t done;
  };
  double bytes_per_s() const;

  std::FILE* out_;
  const bool is_terminal_;
  const Clock& clock_;
  std::deque<Sample> samples_;  // of the last seconds: the rate follows the network
  int64_t last_shown_ns_ = 0;
  bool shown_ = false;
  size_t shown_width_ = 0;
};

// "38.1 MiB"
std::string human_bytes(double bytes);
// "45 s", "3 min 20 s", "2 h 5 min"
std::string human_duration(double seconds);

}  // namespace sextant::cli

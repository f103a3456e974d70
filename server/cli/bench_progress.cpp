#include "server/cli/bench_progress.h"

#include <algorithm>

#include "engine/base/clock.h"
#include "server/cli/progress_bar.h"

namespace sextant::cli {
namespace {

std::string number(const char* format, double value) {
  char text[40];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

}  // namespace

std::string BenchProgress::text(const bench::BenchPoint& point, const bench::LiveCounts& counts) {
  const size_t done = counts.num_finished + counts.num_failed;
  std::string text = point.label + ": " + std::to_string(done) + "/" + std::to_string(counts.num_planned) + " done, " +
                     std::to_string(counts.num_running) + " running, " + std::to_string(counts.num_failed) + " failed";
  if (counts.elapsed_s > 0.5) text += ", " + number("%.3g", static_cast<double>(done) / counts.elapsed_s) + " req/s";
  if (counts.num_finished > 0) {
    text += ", TTFT " + number("%.3g", counts.ttft_sum_ms / static_cast<double>(counts.num_finished)) + " ms";
  }
  text += ", " + human_duration(counts.elapsed_s);
  // By the share of requests that ended, or by the time limit, whichever ends the run first.
  double left_s = -1;
  if (done > 0 && done < counts.num_planned) {
    left_s = counts.elapsed_s * static_cast<double>(counts.num_planned - done) / static_cast<double>(done);
  }
  if (point.load.duration_s) {
    const double until_s = std::max(0.0, *point.load.duration_s - counts.elapsed_s);
    left_s = left_s < 0 ? until_s : std::min(left_s, until_s);
  }
  if (left_s > 0) text += ", about " + human_duration(left_s) + " left";
  return text;
}

void BenchProgress::note(const std::string& text) {
  if (quiet_) return;
  clear();
  std::fprintf(out_, "%s\n", text.c_str());
}

void BenchProgress::update(const bench::BenchPoint& point, size_t point_number, const bench::LiveCounts& counts) {
  if (quiet_) return;
  const int64_t now = SteadyClock::instance().now_ns();
  const int64_t interval = is_terminal_ ? 200'000'000 : 5'000'000'000;
  if (last_shown_ns_ == 0 && !is_terminal_) last_shown_ns_ = now;
  if (now - last_shown_ns_ < interval) return;
  last_shown_ns_ = now;
  const std::string line = (point_number > 1 ? "[" + std::to_string(point_number) + "] " : "") + text(point, counts);
  if (!is_terminal_) {
    std::fprintf(out_, "%s\n", line.c_str());
    return;
  }
  const size_t width = line.size();
  std::fprintf(out_, "\r%s%s", line.c_str(), std::string(width < shown_width_ ? shown_width_ - width : 0, ' ').c_str());
  std::fflush(out_);
  shown_width_ = width;
}

void BenchProgress::clear() {
  if (shown_width_ > 0) std::fprintf(out_, "\r%s\r", std::string(shown_width_, ' ').c_str());
  shown_width_ = 0;
}

}  // namespace sextant::cli

#include "server/cli/progress_bar.h"

#include <algorithm>
#include <cmath>

namespace sextant::cli {
namespace {

constexpr int64_t kSecondNs = 1'000'000'000;
constexpr int64_t kRateWindowNs = 5 * kSecondNs;
constexpr int64_t kTerminalIntervalNs = kSecondNs / 10;
constexpr int64_t kPlainIntervalNs = 5 * kSecondNs;

}  // namespace

std::string human_bytes(double bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  size_t unit = 0;
  while (bytes >= 1024 && unit + 1 < std::size(kUnits)) {
    bytes /= 1024;
    ++unit;
  }
  char text[32];
  std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.1f %s", bytes, kUnits[unit]);
  return text;
}

std::string human_duration(double seconds) {
  const auto whole = static_cast<int64_t>(std::clamp(std::ceil(seconds), 0.0, 1e9));
  if (whole < 60) return std::to_string(whole) + " s";
  if (whole < 3600) return std::to_string(whole / 60) + " min " + std::to_string(whole % 60) + " s";
  return std::to_string(whole / 3600) + " h " + std::to_string(whole % 3600 / 60) + " min";
}

ProgressBar::ProgressBar(std::FILE* out, bool is_terminal, const Clock& clock)
    : out_(out), is_terminal_(is_terminal), clock_(clock) {}

ProgressBar::~ProgressBar() { finish(); }

double ProgressBar::bytes_per_s() const {
  if (samples_.size() < 2) return 0;
  const double seconds = static_cast<double>(samples_.back().time_ns - samples_.front().time_ns) * 1e-9;
  if (seconds <= 0 || samples_.back().done < samples_.front().done) return 0;
  return static_cast<double>(samples_.back().done - samples_.front().done) / seconds;
}

std::string ProgressBar::text(const std::string& label, uint64_t done, std::optional<uint64_t> total) const {
  std::string line = label;
  const double rate = bytes_per_s();
  if (total && *total > 0) {
    const double share = std::min(1.0, static_cast<double>(done) / static_cast<double>(*total));
    line += "  " + std::to_string(static_cast<int>(share * 100)) + "%  " + human_bytes(static_cast<double>(done)) +
            " of " + human_bytes(static_cast<double>(*total));
  } else {
    line += "  " + human_bytes(static_cast<double>(done));
  }
  if (rate > 0) {
    line += "  " + human_bytes(rate) + "/s";
    if (total && *total > done) line += "  " + human_duration(static_cast<double>(*total - done) / rate) + " left";
  }
  return line;
}

void ProgressBar::update(const std::string& label, uint64_t done, std::optional<uint64_t> total) {
  const int64_t now_ns = clock_.now_ns();
  if (!samples_.empty() && done < samples_.back().done) samples_.clear();  // begun anew
  samples_.push_back({now_ns, done});
  while (samples_.size() > 2 && now_ns - samples_.front().time_ns > kRateWindowNs) samples_.pop_front();
  const bool is_last = total && done >= *total;
  const int64_t interval_ns = is_terminal_ ? kTerminalIntervalNs : kPlainIntervalNs;
  if (shown_ && !is_last && now_ns - last_shown_ns_ < interval_ns) return;
  shown_ = true;
  last_shown_ns_ = now_ns;
  std::string line = text(label, done, total);
  if (!is_terminal_) {
    std::fprintf(out_, "%s\n", line.c_str());
  } else {
    const size_t width = line.size();
    if (width < shown_width_) line.append(shown_width_ - width, ' ');  // over the rest of a longer line
    shown_width_ = width;
    std::fprintf(out_, "\r%s", line.c_str());
  }
  std::fflush(out_);
}

void ProgressBar::finish() {
  if (is_terminal_ && shown_) std::fputc('\n', out_);
  shown_ = false;
}

}  // namespace sextant::cli

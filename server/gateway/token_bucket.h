// TokenBucket: so many units per second, and a burst of them at once. Pure: the caller gives the time (nanoseconds that
// never go back) and holds the lock.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace sextant {

class TokenBucket {
 public:
  // Full at `now_ns`.
  TokenBucket(double per_s, double burst, int64_t now_ns)
      : per_s_(per_s), burst_(burst), level_(burst), updated_ns_(now_ns) {}

  // Its limits changed; what is there stays, up to the burst.
  void set_limits(double per_s, double burst, int64_t now_ns) {
    if (per_s == per_s_ && burst == burst_) return;
    refill(now_ns);
    per_s_ = per_s;
    burst_ = burst;
    level_ = std::min(level_, burst);
  }
  bool try_take(double amount, int64_t now_ns) {
    refill(now_ns);
    if (level_ + kRounding < amount) return false;
    level_ -= amount;
    return true;
  }
  // What was taken elsewhere.
  void take_up_to(double amount, int64_t now_ns) {
    refill(now_ns);
    level_ = std::max(0.0, level_ - amount);
  }
  // What was taken and not used.
  void give_back(double amount, int64_t now_ns) {
    refill(now_ns);
    level_ = std::min(burst_, level_ + amount);
  }
  double level(int64_t now_ns) {
    refill(now_ns);
    return level_;
  }
  // Until `amount` is there; more than the burst never is.
  double seconds_until(double amount, int64_t now_ns) {
    refill(now_ns);
    return std::max(0.0, (amount - level_) / per_s_);
  }
  double burst() const { return burst_; }
  bool is_full(int64_t now_ns) const {
    return level_ + per_s_ * static_cast<double>(std::max<int64_t>(0, now_ns - updated_ns_)) * 1e-9 >= burst_;
  }

 private:
  // Sums of many small refills miss a whole unit by less than this: a double has 53 bits and bursts stay below 2^31.
  static constexpr double kRounding = 1e-6;
  void refill(int64_t now_ns) {
    if (now_ns <= updated_ns_) return;
    level_ = std::min(burst_, level_ + per_s_ * static_cast<double>(now_ns - updated_ns_) * 1e-9);
    updated_ns_ = now_ns;
  }

  double per_s_, burst_, level_;
  int64_t updated_ns_;
};

}  // namespace sextant

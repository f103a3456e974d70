#include "bench/run/goals.h"

#include <cmath>
#include <cstdlib>
#include <sstream>

namespace sextant::bench {
namespace {

constexpr Latency kLatencies[] = {Latency::kTtft, Latency::kTpot, Latency::kItl, Latency::kE2e};

std::optional<Latency> latency_of(std::string_view name) {
  for (const Latency latency : kLatencies) {
    if (name == latency_name(latency)) return latency;
  }
  if (name == "e2el") return Latency::kE2e;  // vLLM's spelling
  return std::nullopt;
}

// "300", "300ms", "2s"
std::optional<double> milliseconds(std::string_view text) {
  double unit = 1;
  if (text.ends_with("ms")) {
    text.remove_suffix(2);
  } else if (text.ends_with("s")) {
    text.remove_suffix(1);
    unit = 1000;
  }
  const std::string copy(text);
  char* end = nullptr;
  const double value = std::strtod(copy.c_str(), &end);
  if (copy.empty() || end != copy.c_str() + copy.size() || !std::isfinite(value) || value <= 0) return std::nullopt;
  return value * unit;
}

std::vector<std::string> words_of(std::string_view text) {
  std::string spaced(text);
  for (char& c : spaced) c = c == ',' ? ' ' : c;
  std::istringstream in(spaced);
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

}  // namespace

const char* latency_name(Latency latency) {
  switch (latency) {
    case Latency::kTtft: return "ttft";
    case Latency::kTpot: return "tpot";
    case Latency::kItl: return "itl";
    case Latency::kE2e: return "e2e";
  }
  return "";
}

std::string RunGoal::text() const {
  std::ostringstream out;
  out << latency_name(latency) << ":";
  if (quantile) {
    out << "p" << *quantile * 100;
  } else {
    out << "mean";
  }
  out << "<" << limit_ms << "ms";
  return out.str();
}

Result<std::vector<RequestLimit>> parse_goodput(std::string_view text) {
  std::vector<RequestLimit> limits;
  for (const std::string& word : words_of(text)) {
    const size_t colon = word.find(':');
    const auto latency = latency_of(word.substr(0, colon));
    const auto limit = colon == std::string::npos ? std::nullopt : milliseconds(word.substr(colon + 1));
    if (!latency || *latency == Latency::kItl || !limit) {
      return invalid_argument(
          "goodput must be limits such as \"ttft:300 tpot:50 e2e:2000\" in milliseconds; '" + word + "' is none",
          "goodput");
    }
    limits.push_back({*latency, *limit});
  }
  return limits;
}

Result<std::vector<RunGoal>> parse_slo(std::string_view text) {
  std::vector<RunGoal> goals;
  for (const std::string& word : words_of(text)) {
    const auto bad = [&] {
      return invalid_argument(
          "slo must be goals such as \"ttft:p95<300ms tpot:p95<50ms e2e:mean<2s\"; '" + word + "' is none", "slo");
    };
    const size_t colon = word.find(':'), less = word.find('<');
    if (colon == std::string::npos || less == std::string::npos || less < colon) return bad();
    const auto latency = latency_of(word.substr(0, colon));
    const std::string statistic = word.substr(colon + 1, less - colon - 1);
    std::string_view limit_text = std::string_view(word).substr(less + 1);
    if (limit_text.starts_with('=')) limit_text.remove_prefix(1);
    const auto limit = milliseconds(limit_text);
    if (!latency || !limit) return bad();
    RunGoal goal{*latency, std::nullopt, *limit};
    if (statistic != "mean") {
      char* end = nullptr;
      const double percent = statistic.size() > 1 && statistic[0] == 'p' ? std::strtod(statistic.c_str() + 1, &end) : 0;
      if (!(percent > 0) || percent >= 100 || *end != '\0') return bad();
      goal.quantile = percent / 100;
    }
    goals.push_back(goal);
  }
  return goals;
}

}  // namespace sextant::bench

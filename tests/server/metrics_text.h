// MetricsText: the Prometheus text format as numbers to look up.
#pragma once

#include <gtest/gtest.h>
#include <cstdlib>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <string>

namespace sextant {

class MetricsText {
 public:
  explicit MetricsText(const std::string& text) {
    std::istringstream lines(text);
    std::string line;
    while (std::getline(lines, line)) {
      if (line.empty()) continue;
      std::istringstream words(line);
      if (line.starts_with("# ")) {
        std::string hash, kind, name, rest;
        words >> hash >> kind >> name >> rest;
        if (kind == "TYPE") {
          EXPECT_TRUE(types_.emplace(name, rest).second) << name << " is declared twice";
        } else {
          EXPECT_EQ(kind, "HELP") << line;
          EXPECT_FALSE(rest.empty()) << line;
        }
        continue;
      }
      const size_t space = line.rfind(' ');
      if (space == std::string::npos) {
        ADD_FAILURE() << "not a sample: " << line;
        continue;
      }
      EXPECT_TRUE(samples_.emplace(line.substr(0, space), std::strtod(line.c_str() + space, nullptr)).second)
          << "twice: " << line;
    }
  }

  // By the exact sample, labels in the order of their names: name{a="b",c="d"}.
  double value(const std::string& sample) const {
    const auto found = samples_.find(sample);
    if (found == samples_.end()) {
      ADD_FAILURE() << "there is no " << sample;
      return -1;
    }
    return found->second;
  }
  bool has(const std::string& sample) const { return samples_.contains(sample); }
  std::string type(const std::string& name) const {
    const auto found = types_.find(name);
    return found == types_.end() ? std::string() : found->second;
  }
  const std::map<std::string, std::string>& types() const { return types_; }
  const std::map<std::string, double>& samples() const { return samples_; }

 private:
  std::map<std::string, std::string> types_;
  std::map<std::string, double> samples_;
};

}  // namespace sextant

// What a PromQL expression names, read from its tokens: enough to hold queries to what a server exports; promtool parses the
// grammar. Pure; must not know which metrics there are.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace sextant::deploy {

struct PromqlSelector {
  std::string metric;               // empty: a selector by labels alone
  std::vector<std::string> labels;  // that its matchers name
  std::string function;             // the call whose argument begins with it: "rate", or empty
};

struct PromqlReading {
  std::vector<PromqlSelector> selectors;
  // Calls of histogram_quantile whose argument is not sum by (..., le, ...) (rate(..._bucket[...])), of classic histograms.
  std::vector<std::string> bad_quantiles;
  std::string error;  // not even tokens, or brackets that do not match
};

PromqlReading read_promql(std::string_view text);

}  // namespace sextant::deploy

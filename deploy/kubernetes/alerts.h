// Recording rules and alerts of one deployment, each with series that make it fire and clear, so that promtool can try them.
// Pure. The corrections against the requirements' rules: quantiles over sum by (le) (rate(..._bucket)), errors as a share.
#pragma once

#include <string>
#include <vector>

#include "deploy/kubernetes/objects.h"

namespace sextant::deploy {

struct Alert {
  std::string name, expr, wait, severity, summary, meaning, action;
  // promtool's notation, one value a minute: at `fires` minutes the alert is firing, at `clears` it is not.
  struct Series {
    std::string series, values;
  };
  std::vector<Series> series;
  int fires = 0, clears = 0;
  std::vector<std::pair<std::string, std::string>>
      labels;  // that the firing alert has beside severity, namespace and service
};

std::vector<Alert> alerts_of(const Target& target);
// {"groups": [...]}: the form of Prometheus' own files, and the spec of a PrometheusRule.
Object rule_groups_of(const Target& target);
// A file for `promtool test rules` beside "rules.yaml".
Object rule_tests_of(const Target& target);

}  // namespace sextant::deploy

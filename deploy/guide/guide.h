// What people read and what a pipeline runs, from the same Target as everything else: the operations guide and the CI/CD workflow.
// Every number stands in the plan or the options, or is computed from them here. Pure; any thread.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "deploy/bundle.h"
#include "deploy/kubernetes/alerts.h"
#include "deploy/target.h"

namespace sextant::deploy {

inline constexpr double kRecoveryTimeSeconds = 15 * 60;  // requirements 004: RTO
inline constexpr double kRecoveryPointSeconds = 5 * 60;  // RPO

// OPERATIONS.md and .github/workflows/deploy.yaml.
void add_guide(const Target& target, const std::vector<Alert>& alerts, Bundle& bundle);

std::string operations_guide(const Target& target, const std::vector<Alert>& alerts);
nlohmann::ordered_json workflow_of(const Target& target);

// A text within Markdown: nothing in it is markup, a link, HTML or a table's end.
std::string markdown_text(const std::string& text);
std::string markdown_code(const std::string& text);
// A text within a workflow: "${{" begins no expression.
std::string workflow_text(const std::string& text);

}  // namespace sextant::deploy

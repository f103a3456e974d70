// The command line: the program's verbs, and what all of them share: help, exit codes, messages for flags and verbs that
// do not exist. One file per verb defines it; this one knows none of them.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/base/status.h"

namespace CLI {
class App;
}

namespace sextant::cli {

enum ExitCode : int {
  kExitDone = 0,
  kExitFailed = 1,
  kExitBadInput = 2,
  kExitLimitMissed = 3,  // an SLO was missed, or nothing meets it
  kExitInterrupted = 130,
};

class Verb {
 public:
  virtual ~Verb() = default;
  virtual std::string name() const = 0;         // "serve", or two words: "bench serve" is in the group "bench"
  virtual std::string description() const = 0;  // one line for the list of verbs
  virtual std::string examples() const = 0;     // lines for the end of --help
  virtual void declare(CLI::App& app) = 0;      // flags and arguments, stored in the verb
  // Called when `declare`d arguments were parsed; `bad_flags` are messages about those that do not exist, for verbs that
  // list all errors at once. Gives the exit code.
  virtual int run(const std::vector<Status>& bad_flags) = 0;
};

// Errors as a list on stderr, each beginning with its flag: "sextant serve: --port must be ...". Gives kExitBadInput.
int report_bad_input(const std::string& verb, const std::vector<Status>& errors);

// Parses and runs one verb; gives the process's exit code.
int run_command_line(int argc, const char* const* argv, std::span<const std::unique_ptr<Verb>> verbs);

// "0.1.0"
std::string version_text();

}  // namespace sextant::cli

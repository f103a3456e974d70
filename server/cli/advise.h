// The verbs `advise ...`: the capacity advisor on the command line. Each knows only advisor/ and the terminal.
#pragma once

#include <memory>

#include "server/cli/command_line.h"

namespace sextant::cli {

std::unique_ptr<Verb> make_advise_predict_verb();
std::unique_ptr<Verb> make_advise_fit_verb();
std::unique_ptr<Verb> make_advise_accuracy_verb();
std::unique_ptr<Verb> make_advise_plan_verb();
std::unique_ptr<Verb> make_advise_compare_verb();
std::unique_ptr<Verb> make_advisor_verb();

}  // namespace sextant::cli

// `sextant chat`: a conversation in the terminal with any server that speaks OpenAI's chat API.
#pragma once

#include <memory>

#include "server/cli/command_line.h"

namespace sextant::cli {

std::unique_ptr<Verb> make_chat_verb();

}  // namespace sextant::cli

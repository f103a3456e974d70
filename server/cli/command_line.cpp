#include "server/cli/command_line.h"

#include <algorithm>
#include <cstdio>
#include <map>

#include <CLI/CLI.hpp>

#include "engine/base/nearest.h"
#include "server/cli/settings.h"

namespace sextant::cli {
namespace {

std::vector<std::string> flags_of(const CLI::App& app) {
  std::vector<std::string> flags;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) flags.push_back("--" + name);
  }
  return flags;
}

// What CLI11 could not place. A word behind an unknown flag is that flag's value, not an error of its own.
std::vector<Status> unknown_arguments(const CLI::App& app, const std::vector<std::string>& words) {
  const std::vector<std::string> flags = flags_of(app);
  std::vector<Status> errors;
  for (const std::string& word : words) {
    if (word.size() < 2 || word[0] != '-') continue;
    const std::string flag = word.substr(0, word.find('='));
    const auto nearest = nearest_name(flag, flags);
    errors.push_back(invalid_argument("unknown flag " + flag + (nearest ? "; did you mean " + *nearest + "?" : "")));
  }
  if (errors.empty() && !words.empty()) {
    errors.push_back(invalid_argument("unexpected argument '" + words.front() + "'"));
  }
  return errors;
}

std::string program_help(const CLI::App& app, std::span<const std::unique_ptr<Verb>> verbs) {
  std::string text = app.get_description() + "\n\nUsage: sextant VERB [arguments]\n\nVerbs:\n";
  size_t width = 0;
  for (const auto& verb : verbs) width = std::max(width, verb->name().size());
  for (const auto& verb : verbs) {
    text += "  " + verb->name() + std::string(width + 3 - verb->name().size(), ' ') + verb->description() + "\n";
  }
  return text +
         "\n`sextant VERB --help` lists a verb's arguments, with examples.\n"
         "Exit codes: 0 done, 1 failed, 2 bad input, 3 a limit was missed, 130 interrupted.\n";
}

// Verbs of two words: "bench" is the group of "bench serve" and its like.
bool is_group(const std::string& word, std::span<const std::unique_ptr<Verb>> verbs) {
  return std::any_of(verbs.begin(), verbs.end(),
                     [&](const auto& verb) { return verb->name().starts_with(word + " "); });
}

std::string group_help(const std::string& group, std::span<const std::unique_ptr<Verb>> verbs) {
  std::string text = "Usage: sextant " + group + " VERB [arguments]\n\nVerbs:\n";
  size_t width = 0;
  for (const auto& verb : verbs) width = std::max(width, verb->name().size());
  for (const auto& verb : verbs) {
    if (!verb->name().starts_with(group + " ")) continue;
    text += "  " + verb->name() + std::string(width + 3 - verb->name().size(), ' ') + verb->description() + "\n";
  }
  return text + "\n`sextant " + group + " VERB --help` lists a verb's arguments, with examples.\n";
}

int unknown_verb(const std::string& word, std::span<const std::unique_ptr<Verb>> verbs) {
  std::vector<std::string> names;
  for (const auto& verb : verbs) names.push_back(verb->name());
  const bool is_flag = word.starts_with("-");
  const auto nearest = is_flag ? std::nullopt : nearest_name(word, names);
  std::fprintf(stderr, "sextant: unknown %s '%s'%s\nsextant --help lists what there is\n", is_flag ? "flag" : "verb",
               word.c_str(), nearest ? ("; did you mean '" + *nearest + "'?").c_str() : "");
  return kExitBadInput;
}

}  // namespace

std::string version_text() { return SEXTANT_VERSION; }

int report_bad_input(const std::string& verb, const std::vector<Status>& errors) {
  for (const Status& error : errors) {
    std::string message = error.message();
    // Settings are named by their key; on the command line they are flags.
    if (!error.param().empty() && message.starts_with(error.param() + " ")) {
      message = flag_of(error.param()) + message.substr(error.param().size());
    }
    std::fprintf(stderr, "sextant %s: %s\n", verb.c_str(), message.c_str());
  }
  return kExitBadInput;
}

int run_command_line(int argc, const char* const* argv, std::span<const std::unique_ptr<Verb>> verbs) {
  CLI::App app("Sextant serves language models over the OpenAI API.", "sextant");
  app.set_help_flag("-h,--help", "this text");
  const std::string word = argc > 1 ? argv[1] : "";
  if (word.empty()) {
    std::fputs(program_help(app, verbs).c_str(), stderr);
    return kExitBadInput;
  }
  if (word == "--help" || word == "-h" || word == "help") {
    std::fputs(program_help(app, verbs).c_str(), stdout);
    return kExitDone;
  }
  std::string wanted = word == "--version" ? "version" : word;
  int num_words = 1;  // of the verb
  if (is_group(word, verbs)) {
    const std::string second = argc > 2 ? argv[2] : "";
    if (second == "--help" || second == "-h" || second == "help") {
      std::fputs(group_help(word, verbs).c_str(), stdout);
      return kExitDone;
    }
    if (second.empty()) {
      std::fputs(group_help(word, verbs).c_str(), stderr);
      return kExitBadInput;
    }
    wanted = word + " " + second;
    num_words = 2;
  }
  const auto chosen =
      std::find_if(verbs.begin(), verbs.end(), [&](const auto& verb) { return verb->name() == wanted; });
  if (chosen == verbs.end()) return unknown_verb(wanted, verbs);

  Verb& verb = **chosen;
  CLI::App verb_app(verb.description(), "sextant " + verb.name());
  verb_app.set_help_flag("-h,--help", "this text");
  verb_app.footer("Examples:\n" + verb.examples());
  verb_app.get_formatter()->column_width(40);
  verb_app.allow_extras();
  verb.declare(verb_app);
  // CLI11 takes the words in reverse.
  std::vector<std::string> words(argv + 1 + num_words, argv + argc);
  std::reverse(words.begin(), words.end());
  try {
    verb_app.parse(std::move(words));
  } catch (const CLI::CallForHelp&) {
    std::fputs(verb_app.help().c_str(), stdout);
    return kExitDone;
  } catch (const CLI::Error& error) {
    std::fprintf(stderr, "sextant %s: %s\nsextant %s --help lists its arguments\n", verb.name().c_str(), error.what(),
                 verb.name().c_str());
    return kExitBadInput;
  }
  return verb.run(unknown_arguments(verb_app, verb_app.remaining()));
}

}  // namespace sextant::cli

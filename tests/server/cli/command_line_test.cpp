#include "server/cli/command_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <CLI/CLI.hpp>

namespace sextant::cli {
namespace {

using testing::HasSubstr;

// Records what it was run with.
struct Seen {
  int num_runs = 0;
  int64_t number = 0;
  std::string word;
  bool flag = false;
  std::vector<std::string> bad_flags;
};

class ProbeVerb final : public Verb {
 public:
  ProbeVerb(std::string name, Seen& seen) : name_(std::move(name)), seen_(seen) {}
  std::string name() const override { return name_; }
  std::string description() const override { return "probes"; }
  std::string examples() const override { return "  sextant " + name_ + " --number 3\n"; }
  void declare(CLI::App& app) override {
    app.add_option("word", seen_.word, "a word");
    app.add_option("--number", seen_.number, "a number");
    app.add_flag("--print-config", seen_.flag, "print");
  }
  int run(const std::vector<Status>& bad_flags) override {
    ++seen_.num_runs;
    for (const Status& error : bad_flags) seen_.bad_flags.push_back(error.message());
    return bad_flags.empty() ? kExitDone : report_bad_input(name_, bad_flags);
  }

 private:
  std::string name_;
  Seen& seen_;
};

class CommandLineTest : public testing::Test {
 protected:
  int run(std::vector<const char*> words) {
    words.insert(words.begin(), "sextant");
    std::vector<std::unique_ptr<Verb>> verbs;
    verbs.push_back(std::make_unique<ProbeVerb>("serve", seen_));
    verbs.push_back(std::make_unique<ProbeVerb>("models", other_));
    testing::internal::CaptureStderr();
    testing::internal::CaptureStdout();
    const int code = run_command_line(static_cast<int>(words.size()), words.data(), verbs);
    out_ = testing::internal::GetCapturedStdout();
    err_ = testing::internal::GetCapturedStderr();
    return code;
  }

  Seen seen_;
  Seen other_;
  std::string out_;
  std::string err_;
};

TEST_F(CommandLineTest, RunsTheVerb) {
  EXPECT_EQ(run({"serve", "--number", "4", "hello"}), 0);
  EXPECT_EQ(seen_.num_runs, 1);
  EXPECT_EQ(other_.num_runs, 0);
  EXPECT_EQ(seen_.number, 4);
  EXPECT_EQ(seen_.word, "hello");
}

TEST_F(CommandLineTest, HelpIsOnStdoutAndListsEachVerb) {
  for (const char* word : {"--help", "-h", "help"}) {
    EXPECT_EQ(run({word}), 0);
    EXPECT_THAT(out_, HasSubstr("serve"));
    EXPECT_THAT(out_, HasSubstr("models"));
    EXPECT_THAT(out_, HasSubstr("130 interrupted"));
  }
  EXPECT_EQ(run({"serve", "--help"}), 0);
  EXPECT_THAT(out_, HasSubstr("--number"));
  EXPECT_THAT(out_, HasSubstr("Examples:\n  sextant serve --number 3"));
  EXPECT_EQ(seen_.num_runs, 0);
}

TEST_F(CommandLineTest, NoVerbIsBadInput) {
  EXPECT_EQ(run({}), 2);
  EXPECT_EQ(out_, "");
  EXPECT_THAT(err_, HasSubstr("Usage: sextant VERB"));
}

TEST_F(CommandLineTest, AnUnknownVerbNamesTheNearest) {
  EXPECT_EQ(run({"srve"}), 2);
  EXPECT_THAT(err_, HasSubstr("unknown verb 'srve'; did you mean 'serve'?"));
  EXPECT_EQ(run({"xyzzy"}), 2);
  EXPECT_THAT(err_, HasSubstr("unknown verb 'xyzzy'\n"));
  EXPECT_EQ(run({"--port"}), 2);
  EXPECT_THAT(err_, HasSubstr("unknown flag '--port'"));
}

TEST_F(CommandLineTest, AnUnknownFlagNamesTheNearest) {
  EXPECT_EQ(run({"serve", "--nmber", "4"}), 2);
  EXPECT_THAT(err_, HasSubstr("sextant serve: unknown flag --nmber; did you mean --number?"));
  EXPECT_EQ(run({"serve", "--print-confg=x"}), 2);
  EXPECT_THAT(err_, HasSubstr("unknown flag --print-confg; did you mean --print-config?"));
  EXPECT_EQ(run({"serve", "--quantum-entanglement"}), 2);
  EXPECT_THAT(err_, HasSubstr("unknown flag --quantum-entanglement\n"));
}

TEST_F(CommandLineTest, AllUnknownFlagsAtOnce) {
  EXPECT_EQ(run({"serve", "--aaa", "--bbb", "-z"}), 2);
  EXPECT_EQ(seen_.bad_flags.size(), 3u);
}

TEST_F(CommandLineTest, ValuesThatCannotBeReadAreBadInput) {
  EXPECT_EQ(run({"serve", "--number", "four"}), 2);
  EXPECT_THAT(err_, HasSubstr("four"));
  EXPECT_EQ(run({"serve", "--number"}), 2);
  EXPECT_EQ(run({"serve", "one", "two"}), 2);
  EXPECT_THAT(err_, HasSubstr("unexpected argument 'two'"));
}

TEST(ReportBadInput, NamesTheFlagForTheKey) {
  testing::internal::CaptureStderr();
  EXPECT_EQ(report_bad_input("serve", {invalid_argument("max_model_len must be at least 2", "max_model_len"),
                                       invalid_argument("file.json: unknown key 'x'", "x")}),
            2);
  EXPECT_EQ(testing::internal::GetCapturedStderr(),
            "sextant serve: --max-model-len must be at least 2\nsextant serve: file.json: unknown key 'x'\n");
}

}  // namespace
}  // namespace sextant::cli

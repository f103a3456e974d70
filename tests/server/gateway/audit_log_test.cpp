// The audit log: what was changed, taken out, put in between or cut off is found; files follow one another; what may not be kept goes,
// with the chain whole; nothing of an encrypted one is readable; a crash in the middle of a line costs that line alone.
#include "server/gateway/audit_log.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <thread>

#include "tests/support/scratch_directory.h"

namespace sextant {
namespace {

namespace fs = std::filesystem;

AuditEvent event_of(const std::string& tenant, const std::string& action = "keys.create") {
  AuditEvent event;
  event.unix_ms = 1'700'000'000'000;
  event.who = "k-" + tenant;
  event.tenant = tenant;
  event.action = action;
  event.outcome = "done";
  event.detail = "secret-of-" + tenant + " \"quoted\"\n\xff";
  event.prompt_tokens = 7;
  return event;
}

std::vector<std::string> files_in(const std::string& dir) {
  std::vector<std::string> out;
  for (const auto& at : fs::directory_iterator(dir))
    if (at.path().extension() == ".jsonl") out.push_back(at.path().string());
  std::sort(out.begin(), out.end());
  return out;
}

std::string read_all(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

void write_all(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
}

std::unique_ptr<AuditLog> open_log(AuditOptions options) {
  auto log = AuditLog::open(std::move(options));
  if (!log.ok()) ADD_FAILURE() << log.status().message();
  return log.ok() ? *std::move(log) : nullptr;
}

// Ten records of two tenants.
void fill(const std::string& dir, const std::string& key_file = "", int count = 10) {
  const auto log = open_log({.dir = dir, .key_file = key_file});
  for (int i = 0; i < count; ++i) log->record(event_of(i % 2 == 0 ? "a" : "b"));
  EXPECT_TRUE(log->flush().ok());
}

TEST(AuditLog, ChainsWhatItIsToldAndGoesOnAfterARestart) {
  const ScratchDirectory scratch;
  const std::string dir = scratch.file("audit");
  fill(dir);
  fill(dir);
  const AuditReport report = verify_audit(dir, std::nullopt).value();
  EXPECT_TRUE(report.problems.empty()) << report.problems[0];
  EXPECT_EQ(report.num_records, 20);
  EXPECT_EQ(report.first_seq, 1);
  EXPECT_EQ(report.last_seq, 20);
  EXPECT_EQ(fs::status(dir).permissions() & fs::perms(077), fs::perms::none);
  std::vector<nlohmann::json> of_b;
  ASSERT_TRUE(export_audit(dir, std::nullopt, "b", [&](const nlohmann::json& each) { of_b.push_back(each); }).ok());
  ASSERT_EQ(of_b.size(), 10u);
  EXPECT_EQ(of_b[0]["seq"], 2);
  EXPECT_EQ(of_b[0]["who"], "k-b");
  EXPECT_EQ(of_b[0]["prompt_tokens"], 7);
  EXPECT_EQ(of_b[0]["unix_ms"], 1'700'000'000'000);
}

TEST(AuditLog, EveryChangeIsFound) {
  const ScratchDirectory scratch;
  const std::string dir = scratch.file("audit");
  fill(dir);
  const std::string path = files_in(dir).at(0);
  const std::string good = read_all(path);
  const std::string head = verify_audit(dir, std::nullopt).value().head;
  std::vector<std::string> lines;
  std::istringstream in(good);
  for (std::string line; std::getline(in, line);) lines.push_back(line + "\n");
  const auto problems = [&](const std::string& text) {
    write_all(path, text);
    return verify_audit(dir, std::nullopt).value().problems.size();
  };
  EXPECT_EQ(problems(good), 0u);
  // One character of each kind, anywhere: a digit or letter made another.
  size_t num_tried = 0;
  for (size_t i = 0; i < good.size(); i += 41) {
    if (!std::isalnum(static_cast<unsigned char>(good[i]))) continue;
    std::string changed = good;
    changed[i] = changed[i] == '7' ? '8' : '7';
    const bool of_last = i >= good.size() - lines.back().size();
    write_all(path, changed);
    const AuditReport report = verify_audit(dir, std::nullopt).value();
    // Time of the last record is only in the hash of the last, which somebody else keeps.
    EXPECT_TRUE(!report.problems.empty() || (of_last && report.head != head)) << i << ": " << changed.substr(i, 20);
    ++num_tried;
  }
  EXPECT_GT(num_tried, 40u);
  const auto joined = [&](std::initializer_list<size_t> order) {
    std::string out;
    for (const size_t i : order) out += lines[i];
    return out;
  };
  EXPECT_GT(problems(joined({0, 1, 3, 4})), 0u);
  EXPECT_GT(problems(joined({0, 2, 1, 3})), 0u);
  EXPECT_GT(problems(joined({0, 1, 1, 2})), 0u);
  EXPECT_GT(problems(joined({1, 2, 3})), 0u);  // the file is named after its first record
  EXPECT_GT(problems(good.substr(0, good.size() - 1)), 0u);
  EXPECT_GT(problems("{}\n" + good), 0u);
  EXPECT_GT(problems("\n" + good), 0u);
  // Cut off at the end: the head is another.
  EXPECT_EQ(problems(joined({0, 1, 2})), 0u);
  EXPECT_NE(verify_audit(dir, std::nullopt).value().head, head);
}

TEST(AuditLog, RotatesAndDeletesWhatIsTooOld) {
  const ScratchDirectory scratch;
  const std::string dir = scratch.file("audit");
  std::atomic<int64_t> now = 1'700'000'000'000;
  {
    const auto log =
        open_log({.dir = dir, .retention_days = 30, .max_file_bytes = 2000, .now_ms = [&] { return now.load(); }});
    for (int i = 0; i < 40; ++i) log->record(event_of("a"));
    ASSERT_TRUE(log->flush().ok());
    EXPECT_GT(files_in(dir).size(), 5u);
    EXPECT_TRUE(verify_audit(dir, std::nullopt).value().problems.empty());
    now += 31 * int64_t{86'400'000};
    AuditEvent event = event_of("a");
    event.unix_ms = 0;
    log->record(event);
    ASSERT_TRUE(log->flush().ok());
  }
  const AuditReport report = verify_audit(dir, std::nullopt).value();
  EXPECT_EQ(report.num_files, 1u);
  EXPECT_TRUE(report.problems.empty());
  EXPECT_GT(report.first_seq, 1);
  std::vector<std::string> actions;
  ASSERT_TRUE(
      export_audit(dir, std::nullopt, "", [&](const nlohmann::json& each) { actions.push_back(each["action"]); }).ok());
  EXPECT_EQ(actions.back(), "audit.retention");
}

TEST(AuditLog, ATenantsRecordsAreErasedAndTheChainHolds) {
  const ScratchDirectory scratch;
  const std::string dir = scratch.file("audit");
  fill(dir);
  const std::string head = verify_audit(dir, std::nullopt).value().head;
  {
    const auto log = open_log({.dir = dir});
    EXPECT_FALSE(erase_audit(dir, std::nullopt, "a").ok());  // somebody writes
    EXPECT_FALSE(AuditLog::open({.dir = dir}).ok());
  }
  EXPECT_EQ(erase_audit(dir, std::nullopt, "a").value(), 5);
  EXPECT_EQ(erase_audit(dir, std::nullopt, "a").value(), 0);
  const AuditReport report = verify_audit(dir, std::nullopt).value();
  EXPECT_TRUE(report.problems.empty());
  EXPECT_EQ(report.num_erased, 5);
  EXPECT_EQ(report.head, head);
  const std::string text = read_all(files_in(dir).at(0));
  EXPECT_EQ(text.find("secret-of-a"), std::string::npos);
  EXPECT_NE(text.find("secret-of-b"), std::string::npos);
  fill(dir);
  EXPECT_TRUE(verify_audit(dir, std::nullopt).value().problems.empty());
}

TEST(AuditLog, IsReadableWithItsKeyAlone) {
  const ScratchDirectory scratch;
  const std::string dir = scratch.file("audit");
  const std::string key_file = scratch.write("key", std::string(64, 'a') + "\n");
  const std::string other_file = scratch.write("other", std::string(64, 'b'));
  ::chmod(key_file.c_str(), 0644);
  EXPECT_EQ(read_audit_key(key_file).status().param(), "audit_key_file");
  ::chmod(key_file.c_str(), 0600);
  ::chmod(other_file.c_str(), 0600);
  const auto key = read_audit_key(key_file).value(), other = read_audit_key(other_file).value();
  fill(dir, key_file);
  const std::string path = files_in(dir).at(0), text = read_all(path);
  for (const char* secret : {"secret-of", "keys.create", "k-a"})
    EXPECT_EQ(text.find(secret), std::string::npos) << secret;
  // Without a key the chain is verified, with it the bodies too.
  const AuditReport chain = verify_audit(dir, std::nullopt).value();
  EXPECT_TRUE(chain.problems.empty());
  EXPECT_EQ(chain.num_unread, 10);
  EXPECT_TRUE(verify_audit(dir, key).value().problems.empty());
  EXPECT_EQ(verify_audit(dir, other).value().problems.size(), 10u);
  EXPECT_FALSE(export_audit(dir, other, "", [](const nlohmann::json&) {}).ok());
  EXPECT_FALSE(erase_audit(dir, other, "a").ok());
  EXPECT_EQ(erase_audit(dir, key, "a").value(), 5);
  int64_t left = 0;
  ASSERT_TRUE(export_audit(dir, key, "", [&](const nlohmann::json&) { ++left; }).ok());
  EXPECT_EQ(left, 5);
  for (const char* bad : {"", "abc", "zz"}) {
    const std::string bad_file = scratch.write("bad", bad);
    ::chmod(bad_file.c_str(), 0600);
    EXPECT_FALSE(read_audit_key(bad_file).ok());
  }
  EXPECT_FALSE(read_audit_key(scratch.path()).ok());
}

TEST(AuditLog, ACrashInALineCostsThatLine) {
  const ScratchDirectory scratch;
  const std::string dir = scratch.file("audit");
  fill(dir);
  const std::string path = files_in(dir).at(0);
  const std::string good = read_all(path);
  for (const size_t kept : {good.size() - 1, good.size() - 40, good.size() - 400}) {
    write_all(path, good.substr(0, kept));
    fill(dir, "", 1);
    const AuditReport report = verify_audit(dir, std::nullopt).value();
    EXPECT_TRUE(report.problems.empty()) << report.problems[0];
    std::vector<std::string> actions;
    ASSERT_TRUE(export_audit(dir, std::nullopt, "", [&](const nlohmann::json& each) {
                  actions.push_back(each["action"]);
                }).ok());
    EXPECT_EQ(actions[actions.size() - 2], "audit.repair");
  }
  // What is no log is not written on.
  write_all(path, "something else\n");
  EXPECT_FALSE(AuditLog::open({.dir = dir}).ok());
}

TEST(AuditLog, ManyThreadsAtOnceAndNoneIsLostUnseen) {
  const ScratchDirectory scratch;
  const std::string dir = scratch.file("audit");
  {
    const auto log = open_log({.dir = dir, .queue_capacity = 64});
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t)
      threads.emplace_back([&] {
        for (int i = 0; i < 200; ++i) log->record(event_of("a"));
      });
    for (std::thread& thread : threads) thread.join();
    EXPECT_TRUE(log->flush().ok());
  }
  int64_t written = 0, dropped = 0;
  ASSERT_TRUE(export_audit(dir, std::nullopt, "", [&](const nlohmann::json& each) {
                if (each["action"] == "audit.dropped")
                  dropped += std::stoll(each["detail"].get<std::string>());
                else
                  ++written;
              }).ok());
  EXPECT_EQ(written + dropped, 800);
  EXPECT_TRUE(verify_audit(dir, std::nullopt).value().problems.empty());
}

}  // namespace
}  // namespace sextant

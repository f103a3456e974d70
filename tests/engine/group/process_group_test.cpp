// Groups of threads that take the place of processes: everything goes over loopback TCP. No test waits for a duration to pass
// other than the time-out it is about.
#include "engine/group/process_group.h"

#include <gtest/gtest.h>
#include <future>
#include <latch>

#include "engine/group/frame.h"

namespace sextant {
namespace {

using Group = std::unique_ptr<ProcessGroup>;

ProcessGroup::Options options_of(int num_nodes, int node_rank, uint16_t port = 0) {
  ProcessGroup::Options options;
  options.num_nodes = num_nodes;
  options.node_rank = node_rank;
  options.master_port = port;
  options.secret = "correct horse";
  options.join_timeout_s = 60;
  options.silence_timeout_s = 60;
  options.facts = {{"tensor_parallel_size", "2"}, {"model_revision", "abc"}};
  return options;
}

// A leader that waits, and the port where it does.
struct Leader {
  std::future<Result<Group>> group;
  uint16_t port = 0;
};
Leader start_leader(ProcessGroup::Options options) {
  auto listening = std::make_shared<std::promise<uint16_t>>();
  std::future<uint16_t> port = listening->get_future();
  options.on_listening = [listening](uint16_t at) { listening->set_value(at); };
  Leader leader;
  leader.group = std::async(std::launch::async, [options] { return ProcessGroup::form(options); });
  leader.port = port.get();
  return leader;
}

std::vector<Group> form(int num_nodes, double silence_timeout_s = 60, int ranks_per_node = 1) {
  const auto with = [&](ProcessGroup::Options options) {
    options.silence_timeout_s = silence_timeout_s;
    options.ranks_per_node = ranks_per_node;
    return options;
  };
  Leader leader = start_leader(with(options_of(num_nodes, 0)));
  std::vector<std::future<Result<Group>>> joining;
  for (int node = 1; node < num_nodes; ++node) {
    joining.push_back(std::async(std::launch::async, [options = with(options_of(num_nodes, node, leader.port))] {
      return ProcessGroup::form(options);
    }));
  }
  std::vector<Group> groups;
  Result<Group> first = leader.group.get();
  EXPECT_TRUE(first.ok()) << first.status().message();
  groups.push_back(std::move(*first));
  for (auto& each : joining) {
    Result<Group> joined = each.get();
    EXPECT_TRUE(joined.ok()) << joined.status().message();
    groups.push_back(std::move(*joined));
  }
  return groups;
}

std::string wait_for_failure(ProcessGroup& group) {
  std::promise<std::string> failed;
  group.set_failure_handler([&](const std::string& message) { failed.set_value(message); });
  std::string message = failed.get_future().get();
  group.set_failure_handler({});
  return message;
}

TEST(ProcessGroup, StepsGoOutAndResultsComeBack) {
  std::vector<Group> groups = form(3);
  ASSERT_TRUE(groups[0]->send_step("first").ok());
  ASSERT_TRUE(groups[0]->send_step(std::string(3 << 20, 'x')).ok());
  for (size_t node = 1; node < 3; ++node) {
    EXPECT_EQ(**groups[node]->receive_step(), "first");
    EXPECT_EQ((*groups[node]->receive_step())->size(), size_t{3} << 20);
  }
  ASSERT_TRUE(groups[2]->send_output("tokens").ok());
  EXPECT_EQ(*groups[0]->receive_output(), "tokens");
}

TEST(ProcessGroup, EveryNodeLearnsWhatEachGave) {
  std::vector<Group> groups = form(3);
  for (const char* round : {"a", "b"}) {
    std::vector<std::future<std::vector<std::string>>> all;
    for (const Group& group : groups) {
      all.push_back(std::async(std::launch::async, [&group, round] {
        return *group->exchange(round + std::to_string(group->node_rank()));
      }));
    }
    for (auto& each : all) {
      EXPECT_EQ(each.get(), (std::vector<std::string>{round + std::string("0"), round + std::string("1"),
                                                      round + std::string("2")}));
    }
  }
}

TEST(ProcessGroup, AGroupOfOneNeedsNobody) {
  ProcessGroup::Options options = options_of(1, 0);
  const Result<Group> group = ProcessGroup::form(options);
  ASSERT_TRUE(group.ok());
  EXPECT_EQ(*(*group)->exchange("x"), std::vector<std::string>{"x"});
  EXPECT_TRUE((*group)->send_step("s").ok());
}

TEST(ProcessGroup, TheLeadersGoodbyeIsTheEnd) {
  std::vector<Group> groups = form(2);
  ASSERT_TRUE(groups[0]->send_step("last").ok());
  groups[0].reset();
  EXPECT_EQ(**groups[1]->receive_step(), "last");
  const auto end = groups[1]->receive_step();
  ASSERT_TRUE(end.ok());
  EXPECT_FALSE(end->has_value());
  EXPECT_TRUE(groups[1]->status().ok());
}

TEST(ProcessGroup, AFollowerThatLeavesIsMissed) {
  std::vector<Group> groups = form(3);
  std::future<std::string> on_the_other = std::async(std::launch::async, [&] { return wait_for_failure(*groups[2]); });
  groups[1].reset();
  const std::string message = wait_for_failure(*groups[0]);
  EXPECT_NE(message.find("node 1 (rank 1, 127.0.0.1:"), std::string::npos) << message;
  EXPECT_NE(message.find("is missing"), std::string::npos) << message;
  EXPECT_EQ(on_the_other.get(), message) << "everyone is told who";
  EXPECT_EQ(groups[0]->send_step("more").code(), StatusCode::kDeviceError);
  EXPECT_EQ(groups[2]->receive_step().status().code(), StatusCode::kDeviceError);
}

// A handler that is set while the group fails is called, whichever comes first. The heart holds both up at the same lock, with
// its source that takes its time; who goes on first is the system's choice, so there are several rounds.
TEST(ProcessGroup, NoFailureIsLostBesideANewHandler) {
  for (int round = 0; round < 20; ++round) {
    ProcessGroup::Options options = options_of(1, 0);
    options.silence_timeout_s = 0.1;  // beats every 20 ms
    const Result<Group> formed = ProcessGroup::form(options);
    ASSERT_TRUE(formed.ok());
    ProcessGroup& group = **formed;
    std::latch inside(1);
    std::promise<void> go_on;
    group.set_progress_source([&, asked = false]() mutable {
      if (!std::exchange(asked, true)) {
        inside.count_down();
        go_on.get_future().wait();
      }
      return std::vector<RankProgress>();
    });
    inside.wait();
    std::atomic<int> calls{0};
    std::thread setting([&] { group.set_failure_handler([&](const std::string&) { ++calls; }); });
    std::this_thread::sleep_for(std::chrono::milliseconds(2));  // more often than not it waits at the lock now
    std::thread failing([&] { group.fail("rank 0: the device failed"); });
    while (group.status().ok()) std::this_thread::yield();
    go_on.set_value();
    setting.join();
    failing.join();
    group.set_failure_handler({});
    group.set_progress_source({});
    ASSERT_EQ(calls, 1) << "round " << round;
  }
}

TEST(ProcessGroup, WhoeverWaitsIsWokenByAFailure) {
  std::vector<Group> groups = form(2);
  std::future<Status> output = std::async(std::launch::async, [&] { return groups[0]->receive_output().status(); });
  std::future<Status> step = std::async(std::launch::async, [&] { return groups[1]->receive_step().status(); });
  groups[1]->fail("rank 1: the device failed");
  EXPECT_EQ(output.get().message(), "rank 1: the device failed");
  EXPECT_EQ(step.get().message(), "rank 1: the device failed");
}

TEST(ProcessGroup, DifferencesAreRefusedWithBothValues) {
  Leader leader = start_leader(options_of(2, 0));
  const auto refusal = [&](auto&& change) {
    ProcessGroup::Options options = options_of(2, 1, leader.port);
    change(options);
    const Result<Group> group = ProcessGroup::form(options);
    EXPECT_EQ(group.status().code(), StatusCode::kInvalidArgument);
    return group.status().message();
  };
  std::string message = refusal([](ProcessGroup::Options& o) { o.facts[0].second = "3"; });
  EXPECT_NE(message.find("tensor_parallel_size is '3' on node 1 and '2' on node 0"), std::string::npos) << message;
  message = refusal([](ProcessGroup::Options& o) { o.facts[1].second = "def"; });
  EXPECT_NE(message.find("model_revision is 'def' on node 1 and 'abc' on node 0"), std::string::npos) << message;
  message = refusal([](ProcessGroup::Options& o) { o.facts.pop_back(); });
  EXPECT_NE(message.find("model_revision is not stated on node 1 and 'abc' on node 0"), std::string::npos) << message;
  message = refusal([](ProcessGroup::Options& o) { o.secret = "battery staple"; });
  EXPECT_NE(message.find("SEXTANT_GROUP_SECRET"), std::string::npos) << message;
  EXPECT_EQ(message.find("battery"), std::string::npos) << "a secret is not told";
  message = refusal([](ProcessGroup::Options& o) {
    o.num_nodes = 7;
    o.node_rank = 5;
  });
  EXPECT_NE(message.find("node_rank is 5"), std::string::npos) << message;

  // The leader went on waiting.
  const Result<Group> right = ProcessGroup::form(options_of(2, 1, leader.port));
  EXPECT_TRUE(right.ok()) << right.status().message();
  EXPECT_TRUE(leader.group.get().ok());
}

TEST(ProcessGroup, ARankGivenTwiceIsRefused) {
  Leader leader = start_leader(options_of(3, 0));
  std::future<Result<Group>> first =
      std::async(std::launch::async, [&] { return ProcessGroup::form(options_of(3, 1, leader.port)); });
  Result<Group> joined = first.get();
  ASSERT_TRUE(joined.ok());
  const Result<Group> twice = ProcessGroup::form(options_of(3, 1, leader.port));
  EXPECT_NE(twice.status().message().find("node_rank 1 is given twice"), std::string::npos) << twice.status().message();
  const Result<Group> second = ProcessGroup::form(options_of(3, 2, leader.port));
  EXPECT_TRUE(second.ok());
  EXPECT_TRUE(leader.group.get().ok());
}

TEST(ProcessGroup, ALeaderWithoutTheSecretIsNotFollowed) {
  ProcessGroup::Options options = options_of(2, 0);
  options.secret = "";
  options.join_timeout_s = 60;
  Leader leader = start_leader(options);
  const Result<Group> refused = ProcessGroup::form(options_of(2, 1, leader.port));
  EXPECT_EQ(refused.status().code(), StatusCode::kInvalidArgument);
  options = options_of(2, 1, leader.port);
  options.secret = "";
  const Result<Group> right = ProcessGroup::form(options);
  EXPECT_TRUE(right.ok());
  EXPECT_TRUE(leader.group.get().ok());
}

TEST(ProcessGroup, WhoDoesNotComeIsNamed) {
  ProcessGroup::Options options = options_of(3, 0);
  options.join_timeout_s = 0.2;
  Leader leader = start_leader(options);
  const Result<Group> group = leader.group.get();
  EXPECT_EQ(group.status().code(), StatusCode::kDeadlineExceeded);
  EXPECT_NE(group.status().message().find("node 1, 2 did not come"), std::string::npos) << group.status().message();
}

TEST(ProcessGroup, NobodyAtTheAddressNamesIt) {
  uint16_t unused = 0;
  {
    const Result<TcpListener> listener = TcpListener::listen("127.0.0.1", 0);
    unused = listener->port();
  }
  ProcessGroup::Options options = options_of(2, 1, unused);
  options.join_timeout_s = 0.3;
  const Result<Group> group = ProcessGroup::form(options);
  EXPECT_NE(group.status().message().find("127.0.0.1:" + std::to_string(unused)), std::string::npos)
      << group.status().message();
  EXPECT_NE(group.status().message().find("master_addr"), std::string::npos);
}

TEST(ProcessGroup, SomethingElseAtTheAddressIsSaid) {
  Result<TcpListener> listener = TcpListener::listen("127.0.0.1", 0);
  ASSERT_TRUE(listener.ok());
  std::future<void> other = std::async(std::launch::async, [&] {
    std::optional<TcpSocket> socket = listener->accept(deadline_in(60));
    ASSERT_TRUE(socket);
    const std::string_view text = "HTTP/1.1 400 Bad Request\r\n\r\n";
    static_cast<void>(socket->send_all(std::as_bytes(std::span(text)), deadline_in(60)));
    std::byte byte;
    while (socket->receive_all({&byte, 1}, deadline_in(60)).ok()) {
    }
  });
  const Result<Group> group = ProcessGroup::form(options_of(2, 1, listener->port()));
  EXPECT_EQ(group.status().code(), StatusCode::kInvalidArgument);
  EXPECT_NE(group.status().message().find("no member of a Sextant group"), std::string::npos);
  other.get();
}

// Strangers at the leader's door: none of them keeps the right node out, or ends the leader.
TEST(ProcessGroup, HostileBytesAtTheDoor) {
  Leader leader = start_leader(options_of(2, 0));
  const auto say = [&](const std::string& bytes) {
    Result<TcpSocket> socket = TcpSocket::connect("127.0.0.1", leader.port, deadline_in(60));
    EXPECT_TRUE(socket.ok());
    static_cast<void>(socket->send_all(std::as_bytes(std::span(bytes)), deadline_in(60)));
    socket->finish_sending();
    std::string answer;
    std::byte byte;
    while (socket->receive_all({&byte, 1}, deadline_in(60)).ok()) answer.push_back(static_cast<char>(byte));
    return answer;
  };
  const auto header = [](uint16_t version, uint16_t type, uint32_t size) {
    std::string bytes = "SXG1";
    for (int i = 0; i < 2; ++i) bytes.push_back(static_cast<char>(version >> 8 * i));
    for (int i = 0; i < 2; ++i) bytes.push_back(static_cast<char>(type >> 8 * i));
    for (int i = 0; i < 4; ++i) bytes.push_back(static_cast<char>(size >> 8 * i));
    return bytes;
  };
  say("GET / HTTP/1.1\r\n\r\n");
  say(std::string(100000, '\xff'));
  say(header(1, 1, 0xffffffff));                                          // a huge greeting
  say(header(1, 9, 3) + "abc");                                           // a step from a stranger
  say(header(1, 77, 0));                                                  // no such message
  say(header(1, 1, 5) + "short");                                         // a nonce of a wrong length
  say(header(1, 1, 16) + std::string(16, 'n') + header(1, 3, 4) + "xx");  // half a request to join
  say(header(1, 1, 16) + std::string(16, 'n') + header(1, 3, 40) + std::string(40, 'x'));
  const std::string other_version = say(header(2, 1, 0));
  EXPECT_NE(other_version.find("speaks 2, this program 1"), std::string::npos) << other_version;
  // Connections that say nothing at all stay open meanwhile.
  std::vector<TcpSocket> silent;
  for (int i = 0; i < 5; ++i) {
    Result<TcpSocket> socket = TcpSocket::connect("127.0.0.1", leader.port, deadline_in(60));
    ASSERT_TRUE(socket.ok());
    silent.push_back(std::move(*socket));
  }
  const Result<Group> right = ProcessGroup::form(options_of(2, 1, leader.port));
  EXPECT_TRUE(right.ok()) << right.status().message();
  silent.clear();
  EXPECT_TRUE(leader.group.get().ok());
}

TEST(ProcessGroup, ADamagedMessageFromAMemberFailsTheGroup) {
  Leader leader = start_leader(options_of(2, 0));
  Result<TcpSocket> socket = TcpSocket::connect("127.0.0.1", leader.port, deadline_in(60));
  ASSERT_TRUE(socket.ok());
  const ProcessGroup::Options options = options_of(2, 1);
  ASSERT_TRUE(join_leader(*socket, options.secret, options.facts, 1, deadline_in(60)).ok());
  Result<Group> group = leader.group.get();
  ASSERT_TRUE(group.ok());
  ASSERT_TRUE(send_frame(*socket, FrameType::kHeartbeat, "\xff\xff\xff", deadline_in(60)).ok());
  EXPECT_NE(wait_for_failure(**group).find("a heartbeat is damaged"), std::string::npos);
}

// A node whose process is stopped: its connection stays, its heart does not beat.
TEST(ProcessGroup, ASilentNodeIsNamedWithinTheTimeOut) {
  ProcessGroup::Options options = options_of(2, 0);
  options.silence_timeout_s = 0.5;
  Leader leader = start_leader(options);
  Result<TcpSocket> socket = TcpSocket::connect("127.0.0.1", leader.port, deadline_in(60));
  ASSERT_TRUE(socket.ok());
  ASSERT_TRUE(join_leader(*socket, options.secret, options.facts, 1, deadline_in(60)).ok());
  Result<Group> group = leader.group.get();
  ASSERT_TRUE(group.ok());
  const std::string message = wait_for_failure(**group);
  EXPECT_NE(message.find("node 1 (rank 1, 127.0.0.1:"), std::string::npos) << message;
  EXPECT_NE(message.find("nothing was heard of it"), std::string::npos) << message;
}

// Rank 0 waits in a collective for rank 1, whose node is alive but does not come.
TEST(ProcessGroup, AStuckCollectiveNamesWhoDidNotArrive) {
  std::vector<Group> groups = form(2, 0.4);
  const auto begin = std::chrono::steady_clock::now();
  groups[0]->set_progress_source([begin] {
    RankProgress rank;
    rank.rank = 0;
    const auto waited = std::chrono::steady_clock::now() - begin;
    rank.inside_ms = std::chrono::duration_cast<std::chrono::milliseconds>(waited).count();
    rank.call = "all_reduce of 576 float32";
    rank.waits_for = {1};
    return std::vector{rank};
  });
  groups[1]->set_progress_source([] {
    RankProgress rank;
    rank.rank = 1;
    rank.step_ms = 1234;
    rank.steps_done = 5;
    return std::vector{rank};
  });
  const std::string message = wait_for_failure(*groups[0]);
  EXPECT_NE(message.find("rank 1 (node 1) did not arrive: rank 0 (node 0) has been in all_reduce of 576 float32"),
            std::string::npos)
      << message;
  EXPECT_EQ(wait_for_failure(*groups[1]), message);
  for (const Group& group : groups) group->set_progress_source({});
  const std::vector<RankReading> readings = groups[0]->readings();
  ASSERT_EQ(readings.size(), 2u);
  EXPECT_GT(readings[1].lag_s, 0.3);
  EXPECT_GT(readings[1].waited_for_s, 0);
  EXPECT_EQ(readings[0].lag_s, 0);
  EXPECT_NEAR(readings[1].step_s, 1.234, 1e-6);
  EXPECT_EQ(readings[1].num_steps, 5u);
}

RankProgress waiting(int rank, int64_t ms, std::vector<int32_t> ranks) {
  RankProgress progress;
  progress.rank = rank;
  progress.inside_ms = ms;
  progress.call = "receive of 8 float32";
  progress.waits_for = std::move(ranks);
  return progress;
}
RankProgress busy(int rank) {
  RankProgress progress;
  progress.rank = rank;
  return progress;
}

TEST(RankProgress, TheOneWhoWaitsForNobodyIsMissing) {
  // Rank 3 waits for 2, which waits for 0 and 1 in a collective; only 1 is at work.
  const std::vector<RankProgress> ranks = {waiting(0, 50, {1, 2}), busy(1), waiting(2, 40, {0, 1}),
                                           waiting(3, 30, {2})};
  EXPECT_EQ(missing_ranks(ranks), std::vector<int32_t>{1});
  EXPECT_EQ(lag_ms(ranks), (std::vector<int64_t>{0, 50, 0, 0}));
  EXPECT_EQ(longest_inside_ms(ranks), 50);
}

TEST(RankProgress, ASilentRankIsMissingWhateverItSaidLast) {
  std::vector<RankProgress> ranks = {waiting(0, 50, {1}), waiting(1, 9, {0})};
  EXPECT_TRUE(missing_ranks(ranks).empty());
  EXPECT_NE(describe_stuck(ranks).find("wait for one another"), std::string::npos);
  ranks[1].silent = true;
  EXPECT_EQ(missing_ranks(ranks), std::vector<int32_t>{1});
}

TEST(RankProgress, ASilentRankHoldsUpWhoHasBegunMore) {
  std::vector<RankProgress> ranks = {busy(0), busy(1)};
  ranks[0].steps_begun = ranks[0].steps_done = 5;
  ranks[1].steps_done = 5;
  ranks[1].silent = true;
  ranks[1].silent_ms = 700;
  EXPECT_EQ(lag_ms(ranks), (std::vector<int64_t>{0, 0}));
  ranks[0].steps_begun = 6;
  EXPECT_EQ(lag_ms(ranks), (std::vector<int64_t>{0, 700}));
}

TEST(RankProgress, NobodyIsMissingWhileNobodyWaits) {
  EXPECT_TRUE(missing_ranks({busy(0), busy(1)}).empty());
  EXPECT_EQ(longest_inside_ms({busy(0), busy(1)}), -1);
}

TEST(RankProgress, ComesBackAsItWas) {
  std::vector<RankProgress> ranks = {waiting(3, 77, {0, 1}), busy(4)};
  ranks[1].steps_done = 1ull << 40;
  ranks[1].step_ms = 0.5f;
  const auto read = parse_progress(serialize_progress(ranks));
  ASSERT_TRUE(read.ok());
  ASSERT_EQ(read->size(), 2u);
  EXPECT_EQ((*read)[0].waits_for, ranks[0].waits_for);
  EXPECT_EQ((*read)[0].call, ranks[0].call);
  EXPECT_EQ((*read)[1].steps_done, 1ull << 40);
  EXPECT_EQ((*read)[1].step_ms, 0.5f);
}

// RFC 4231, test case 2; and an empty key.
TEST(Handshake, HmacIsHmac) {
  const auto hex = [](const std::string& bytes) {
    std::string text;
    for (const unsigned char byte : bytes) {
      char digits[3];
      std::snprintf(digits, sizeof digits, "%02x", byte);
      text += digits;
    }
    return text;
  };
  EXPECT_EQ(hex(hmac_sha256("Jefe", "what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  EXPECT_EQ(hex(hmac_sha256("", "")), "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
  EXPECT_TRUE(equal_secretly("abc", "abc"));
  EXPECT_FALSE(equal_secretly("abc", "abd"));
  EXPECT_FALSE(equal_secretly("abc", "ab"));
}

}  // namespace
}  // namespace sextant

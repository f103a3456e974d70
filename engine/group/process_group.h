// ProcessGroup: the processes ("nodes") that serve one model together, and the control channel between them: TCP from each
// follower to the leader (node 0), which schedules. Over it go steps and their results, small exchanges while loading
// (addresses, NCCL ids, block counts), and heartbeats with each rank's progress. Whoever is lost, silent or stuck fails the
// group for good, with a message that names him, on every node that can still be reached.
// It knows bytes and ranks, neither devices nor models. The buffers of ranks meet elsewhere (engine/device/communicator.h).
// Threads: own ones that read and beat; all functions from any thread. The failure handler is called by one of its own.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "engine/base/result.h"
#include "engine/base/tcp_socket.h"
#include "engine/group/frame.h"
#include "engine/group/handshake.h"
#include "engine/group/rank_progress.h"

namespace sextant {

class ProcessGroup {
 public:
  struct Options {
    int num_nodes = 1;
    int node_rank = 0;
    int ranks_per_node = 1;
    std::string master_addr = "127.0.0.1";
    uint16_t master_port = 0;     // the leader may take 0: the kernel picks one
    std::string secret;           // may be empty
    double join_timeout_s = 600;  // for all to come
    double silence_timeout_s =
        60;            // 0: never; a node not heard of, a rank inside one collective, for so long fails the group
    GroupFacts facts;  // must be equal on all nodes
    std::function<void(uint16_t port)> on_listening = {};  // leader: tests ask for the port
  };

  // Blocks until all nodes are there. kInvalidArgument: refused by the leader, with both values. The leader refuses a node
  // whose facts differ, says so in the log and goes on waiting. A leader alone listens nowhere.
  static Result<std::unique_ptr<ProcessGroup>> form(Options options);
  // Says goodbye to whoever is left.
  ~ProcessGroup();
  ProcessGroup(const ProcessGroup&) = delete;
  ProcessGroup& operator=(const ProcessGroup&) = delete;

  int num_nodes() const { return options_.num_nodes; }
  int node_rank() const { return options_.node_rank; }
  bool is_leader() const { return options_.node_rank == 0; }
  // The address at which the other nodes know this one.
  std::string local_host() const;

  // What every node gave, by node rank; each calls it the same number of times. Waits for all.
  Result<std::vector<std::string>> exchange(std::string part);

  // Leader: a step to all followers. Follower: the next one; nothing after the leader's goodbye.
  Status send_step(std::string_view bytes);
  Result<std::optional<std::string>> receive_step();
  // Follower: a step's results to the leader. Leader: the next ones.
  Status send_output(std::string_view bytes);
  Result<std::string> receive_output();

  // ok, or why the group failed; kDeviceError. The first reason stays.
  Status status() const;
  // Fails the group here and on the others.
  void fail(const std::string& message);
  // Called once, at the failure, or at once when it was before. Replaces an earlier one; after it returned, the earlier one is
  // not called any more.
  void set_failure_handler(std::function<void(const std::string& message)> handler);
  // The progress of this node's ranks, asked at each heartbeat; an error fails the group. As above.
  void set_progress_source(std::function<Result<std::vector<RankProgress>>()> source);
  // Leader: of all ranks of which something was heard; follower: of its own.
  std::vector<RankReading> readings() const;
  double heartbeat_interval_s() const { return interval_s_; }

  // In order: the others are told that this node leaves. A follower takes the leader's as the end; a leader that loses a
  // follower this way fails.
  void leave(const std::string& why);

 private:
  struct Connection {
    TcpSocket socket;
    int node = 0;
    std::string peer;
    std::mutex sending;
    std::atomic<int64_t> heard_ns{0};
    std::atomic<bool> closed{false};
    std::thread reader;
  };
  using ConnectionPtr = std::shared_ptr<Connection>;

  explicit ProcessGroup(Options options);
  Status gather_followers();
  Status find_leader();
  void receive_follower(TcpSocket socket, Deadline deadline);
  void start_reading(const ConnectionPtr& connection);
  void read(const ConnectionPtr& connection);
  Status take(const ConnectionPtr& connection, Frame frame);
  void lost(const ConnectionPtr& connection, const std::string& why);
  void beat();
  void look_for_silence(int64_t now_ns);
  void look_for_stuck_ranks(const std::vector<RankProgress>& ranks);
  std::vector<RankProgress> merged_progress() const;
  Status send(Connection& connection, FrameType type, std::string_view body);
  std::vector<ConnectionPtr> connections() const;
  std::string describe(int node) const;
  void fail_locally(const std::string& message);
  // The next of a queue, or nothing after the leader's goodbye.
  Result<std::optional<std::string>> next_of(std::deque<std::string>& queue);

  const Options options_;
  const double interval_s_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<ConnectionPtr> connections_;  // leader: by node, [0] empty; follower: [0] is the leader
  std::vector<ConnectionPtr> closed_;       // whose readers are still to be joined
  std::vector<bool> reserved_;              // leader: by node
  bool formed_ = false;
  bool leaving_ = false;
  bool stopping_ = false;
  bool leader_left_ = false;
  Status failure_;
  std::deque<std::string> steps_, outputs_;
  std::vector<std::deque<std::string>> parts_;       // leader: by node
  std::deque<std::string> all_parts_;                // follower
  std::vector<std::vector<RankProgress>> progress_;  // by node, as last heard
  std::vector<double> waited_for_s_;                 // by rank

  std::mutex handler_mutex_;  // held while the handler or the source runs
  std::function<void(const std::string&)> handler_;
  bool handled_ = false;
  std::function<Result<std::vector<RankProgress>>()> source_;

  std::thread heart_;
};

}  // namespace sextant

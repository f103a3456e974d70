// Pool: servers of one model, and which of them gets the next request: health by probes, ejection by answers (a circuit
// breaker with doubling pauses), slow start, policies, a budget of retries. Any thread; times are nanoseconds of a steady clock
// that the caller reads. Must not know sockets.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "server/fleet/pools.h"
#include "server/fleet/prefix_table.h"

namespace sextant::fleet {

// How an attempt at a member ended, as far as the member is to blame.
enum class Outcome {
  kGood,       // an answer, whatever it says: 4xx are the client's
  kFailed,     // no connection, no answer, torn, or 500, 502, 504
  kBusy,       // 503 or 429: it lives, and has too much to do
  kCancelled,  // the client went; says nothing
};

// What routing knows of a request.
struct RequestLoad {
  int64_t tokens = 1;       // estimated; what is outstanding is counted down as the answer comes
  std::string_view prompt;  // for prefix_affinity; need not outlive pick()
};

struct MemberStatus {
  MemberId id = 0;
  std::string name;    // "host:port"
  std::string state;   // unknown, up, down, ejected, slow_start, leaving
  std::string reason;  // why it is not up
  int64_t in_flight = 0;
  int64_t outstanding_tokens = 0;
  int64_t num_requests = 0, num_failures = 0, num_ejections = 0;
  double first_byte_ms = 0;  // of streams, the median of the last ones; 0: nothing was measured
};

// What happened to a member, for the log and metrics.
struct MemberEvent {
  std::string pool, member;
  std::string what;  // up, down, ejected, readmitted, joined, left
  std::string reason;
};

class Pool {
 public:
  using OnEvent = std::function<void(const MemberEvent&)>;  // called without locks held, on whatever thread
  Pool(PoolConfig config, OnEvent on_event);

  const PoolConfig& config() const { return config_; }

  struct Pick {
    MemberId member = 0;
    http::Endpoint endpoint;
    bool knows_prefix = false;  // it has had at least the prompt's first run
    int64_t epoch = 0;          // the member's ejections so far: what was asked before one says nothing after it
  };
  // Nobody when none can be had. The caller tells how it ended: finish(), once for each pick.
  std::optional<Pick> pick(const RequestLoad& load, const std::set<MemberId>& excluded, int64_t now_ns);
  // `tokens` is what is left of the load that was counted at pick(), for tokens_came().
  void tokens_came(MemberId member, int64_t num_tokens);
  // A whole answer's comes when it is complete: the two kinds are compared apart.
  void first_byte_came(MemberId member, bool is_stream, int64_t after_ns, int64_t now_ns);
  void finish(const Pick& pick, int64_t tokens_left, Outcome outcome, const std::string& reason, int64_t now_ns);

  void probed(MemberId member, bool good, const std::string& reason, int64_t now_ns);
  // Joins and leaves; those that stay keep what is known of them. What leaves finishes its requests.
  void set_members(const std::vector<http::Endpoint>& endpoints, int64_t now_ns);

  // One retry of a request whose server has seen it: retries stay below retry_ratio of requests, beyond a burst.
  bool may_retry();

  bool can_serve(int64_t now_ns) const;
  // Until a member may be had again, as far as is known; at least 1.
  double retry_after_s(int64_t now_ns) const;
  std::vector<MemberStatus> status(int64_t now_ns) const;
  struct Address {
    MemberId id;
    http::Endpoint endpoint;
    bool decided;  // probes have said up or down
  };
  std::vector<Address> members() const;  // those that have not left
  // Whether requests that have not got an answer's head yet should be taken elsewhere.
  bool is_down(MemberId member) const;

 private:
  struct Member {
    MemberId id = 0;
    http::Endpoint endpoint;
    enum class Health { kUnknown, kUp, kDown } health = Health::kUnknown;
    int64_t good_probes = 0, bad_probes = 0;  // in a row
    std::string reason;
    int64_t failures = 0;  // in a row
    int64_t ejected_until_ns = 0;
    int64_t ejections_in_a_row = 0;
    bool is_trial = false;  // after an ejection: one request at a time until one was good
    bool trial_runs = false;
    int64_t up_since_ns = 0;
    bool leaving = false;
    int64_t in_flight = 0, outstanding_tokens = 0;
    // The median of the last ones: a few long prompts do not make a member slow.
    struct FirstBytes {
      std::array<float, 32> last_ms{};
      size_t num = 0;  // since it was let in
      double median_ms() const;
    };
    FirstBytes of_streams, of_wholes;
    int64_t num_requests = 0, num_failures = 0, num_ejections = 0;
  };

  Member* find(MemberId id);
  const Member* find(MemberId id) const;
  bool can_have(const Member& member, int64_t now_ns) const;
  double weight_of(const Member& member, int64_t now_ns) const;
  Member& choose(const std::vector<Member*>& candidates, const RequestLoad& load, int64_t now_ns, bool& knows_prefix);
  void eject(Member& member, const std::string& reason, int64_t now_ns, std::vector<MemberEvent>& events);
  void forget_left();
  MemberEvent event(const Member& member, const char* what, std::string reason) const;
  void tell(const std::vector<MemberEvent>& events) const;

  const PoolConfig config_;
  const OnEvent on_event_;
  mutable std::mutex mutex_;
  std::deque<Member> members_;
  MemberId last_id_ = 0;
  PrefixTable prefixes_;
  double retry_budget_;
  uint64_t num_picks_ = 0;
};

}  // namespace sextant::fleet

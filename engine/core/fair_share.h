// FairShare: in what order requests of several tenants come in, so that each gets its share of scheduled tokens however much
// the others ask for. Start-time fair queueing (Goyal, Vin, Cheng: "Start-time Fair Queueing", SIGCOMM 1996): a request gets
// a start tag when it arrives, the larger of virtual time and the end of its tenant's requests before it; the tag is part of
// the total order of precedence, so nothing else of the scheduler changes. Virtual time is the largest tag that was
// scheduled. Requests of one tenant keep their order. What a request will use is guessed from its tenant's last ones and put
// right at its end. Pure; one thread.
//
// Nobody starves: a request's tag is fixed, and every request that comes later to another tenant has one of at least virtual
// time, which grows past that tag as work is done.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>

namespace sextant {

class FairShare {
 public:
  // What it takes from its tenant's share, as guessed: prompt and output tokens.
  struct Charge {
    int64_t start = 0;    // the tag, in tokens
    int64_t guessed = 0;  // of output, all choices together
  };
  Charge add(const std::string& tenant, int64_t num_prompt_tokens, int64_t max_output_tokens, int32_t num_choices);
  // A request with this tag got its first tokens.
  void on_started(const std::string& tenant, int64_t start);
  // It ended, started or not.
  void on_ended(const std::string& tenant, const Charge& charge, bool was_started, int64_t num_output_tokens,
                int32_t num_choices);
  // Nobody has a request: all begin equal again.
  void reset();

  // Requests of the tenant that wait for their first tokens, and tenants that have any request.
  int64_t num_waiting(const std::string& tenant) const;
  int64_t num_tenants() const { return num_active_; }

 private:
  struct Tenant {
    int64_t finish = 0;      // where its next request starts
    int64_t last_start = 0;  // its tags never go back
    int64_t num_waiting = 0;
    int64_t num_requests = 0;
    double mean_output = kFirstGuess;  // of one choice
  };
  static constexpr double kFirstGuess = 128;
  static constexpr double kSmoothing = 0.125;

  // Tenants without requests that owe something are kept up to this many.
  static constexpr size_t kMaxTenants = 4096;

  int64_t virtual_time_ = 0;
  int64_t num_active_ = 0;                           // tenants with requests
  std::unordered_map<std::string, Tenant> tenants_;  // with requests; one that comes back has lost nothing by waiting
};

}  // namespace sextant

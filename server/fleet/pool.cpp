#include "server/fleet/pool.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace sextant::fleet {
namespace {

constexpr double kLeastWeight = 0.1;    // of slow start
constexpr size_t kMeasuredEnough = 10;  // first bytes, before a member can be slow

int64_t ns_of(double seconds) { return static_cast<int64_t>(seconds * 1e9); }

}  // namespace

Pool::Pool(PoolConfig config, OnEvent on_event)
    : config_(std::move(config)),
      on_event_(std::move(on_event)),
      retry_budget_(static_cast<double>(config_.retry_burst)) {}

Pool::Member* Pool::find(MemberId id) {
  const auto found = std::ranges::find(members_, id, &Member::id);
  return found == members_.end() ? nullptr : &*found;
}

const Pool::Member* Pool::find(MemberId id) const {
  const auto found = std::ranges::find(members_, id, &Member::id);
  return found == members_.end() ? nullptr : &*found;
}

MemberEvent Pool::event(const Member& member, const char* what, std::string reason) const {
  return {config_.name, member.endpoint.authority(), what, std::move(reason)};
}

void Pool::tell(const std::vector<MemberEvent>& events) const {
  for (const MemberEvent& event : events)
    if (on_event_) on_event_(event);
}

bool Pool::can_have(const Member& member, int64_t now_ns) const {
  return !member.leaving && member.health == Member::Health::kUp && now_ns >= member.ejected_until_ns &&
         !(member.is_trial && member.trial_runs);
}

double Pool::Member::FirstBytes::median_ms() const {
  if (num == 0) return 0;
  std::array<float, 32> sorted = last_ms;
  const auto end = sorted.begin() + static_cast<ptrdiff_t>(std::min(num, sorted.size()));
  const auto middle = sorted.begin() + (end - sorted.begin()) / 2;
  std::nth_element(sorted.begin(), middle, end);
  return static_cast<double>(*middle);
}

double Pool::weight_of(const Member& member, int64_t now_ns) const {
  if (config_.slow_start_s <= 0) return 1;
  const double passed = static_cast<double>(now_ns - member.up_since_ns) * 1e-9 / config_.slow_start_s;
  return std::clamp(passed, kLeastWeight, 1.0);
}

std::optional<Pool::Pick> Pool::pick(const RequestLoad& load, const std::set<MemberId>& excluded, int64_t now_ns) {
  const std::lock_guard lock(mutex_);
  std::vector<Member*> candidates;
  for (Member& member : members_)
    if (can_have(member, now_ns) && excluded.count(member.id) == 0) candidates.push_back(&member);
  if (candidates.empty()) return std::nullopt;
  if (excluded.empty())
    retry_budget_ = std::min(static_cast<double>(config_.retry_burst), retry_budget_ + config_.retry_ratio);
  ++num_picks_;
  bool knows_prefix = false;
  Member& chosen = choose(candidates, load, now_ns, knows_prefix);
  ++chosen.in_flight;
  ++chosen.num_requests;
  chosen.outstanding_tokens += load.tokens;
  chosen.trial_runs = chosen.is_trial;
  return Pick{chosen.id, chosen.endpoint, knows_prefix, chosen.num_ejections};
}

Pool::Member& Pool::choose(const std::vector<Member*>& candidates, const RequestLoad& load, int64_t now_ns,
                           bool& knows_prefix) {
  const auto requests = [&](const Member& m) { return static_cast<double>(m.in_flight + 1) / weight_of(m, now_ns); };
  const auto tokens = [&](const Member& m) {
    return static_cast<double>(m.outstanding_tokens + load.tokens) / weight_of(m, now_ns);
  };
  // Among equals the turn goes round.
  const auto least = [&](const std::vector<Member*>& of, const auto& cost) -> Member& {
    const size_t first = num_picks_ % of.size();
    Member* best = of[first];
    for (size_t i = 1; i < of.size(); ++i)
      if (Member* other = of[(first + i) % of.size()]; cost(*other) < cost(*best)) best = other;
    return *best;
  };
  if (config_.policy == Policy::kLeastTokens) return least(candidates, tokens);
  if (config_.policy == Policy::kLeastConnections) return least(candidates, requests);

  // Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam 2016), with what members have had in the place of
  // the hash ring where that is known.
  double all_requests = 1;
  double all_weights = 0;
  for (const Member* member : candidates) {
    all_requests += static_cast<double>(member->in_flight);
    all_weights += weight_of(*member, now_ns);
  }
  const auto has_room = [&](const Member& m) {
    const double share = all_requests * weight_of(m, now_ns) / all_weights;
    return static_cast<double>(m.in_flight + 1) <= std::ceil(config_.bounded_load * share);
  };
  std::vector<Member*> roomy;
  std::ranges::copy_if(candidates, std::back_inserter(roomy), [&](const Member* m) { return has_room(*m); });
  if (roomy.empty()) roomy = candidates;
  const std::vector<uint64_t> hashes = PrefixTable::hashes_of(load.prompt);
  Member* chosen = nullptr;
  for (const PrefixTable::Match& match : prefixes_.find(hashes)) {
    const auto found = std::ranges::find(roomy, match.member, &Member::id);
    if (found == roomy.end()) continue;
    chosen = *found;
    knows_prefix = true;
    break;
  }
  if (chosen == nullptr) {
    // Rendezvous hashing by the endpoint, so that several routers send a beginning the same way.
    const uint64_t first = PrefixTable::first_hash(load.prompt);
    uint64_t best = 0;
    for (Member* member : roomy) {
      const uint64_t score = PrefixTable::first_hash(member->endpoint.authority() + std::to_string(first));
      if (chosen != nullptr && score <= best) continue;
      chosen = member;
      best = score;
    }
  }
  prefixes_.add(hashes, chosen->id);
  return *chosen;
}

void Pool::tokens_came(MemberId member, int64_t num_tokens) {
  const std::lock_guard lock(mutex_);
  if (Member* found = find(member)) found->outstanding_tokens -= num_tokens;
}

void Pool::first_byte_came(MemberId id, bool is_stream, int64_t after_ns, int64_t now_ns) {
  std::vector<MemberEvent> events;
  {
    const std::lock_guard lock(mutex_);
    Member* member = find(id);
    if (member == nullptr) return;
    const auto kind = is_stream ? &Member::of_streams : &Member::of_wholes;
    Member::FirstBytes& mine = member->*kind;
    mine.last_ms[mine.num++ % mine.last_ms.size()] = static_cast<float>(static_cast<double>(after_ns) * 1e-6);
    if (config_.ejection.slow_ratio > 0 && mine.num >= kMeasuredEnough && now_ns >= member->ejected_until_ns) {
      std::vector<double> others;
      for (const Member& other : members_)
        if (other.id != id && can_have(other, now_ns) && (other.*kind).num >= kMeasuredEnough)
          others.push_back((other.*kind).median_ms());
      if (!others.empty()) {
        const auto middle = others.begin() + static_cast<ptrdiff_t>(others.size() / 2);
        std::ranges::nth_element(others, middle);
        const double ms = mine.median_ms();
        if (ms > config_.ejection.slow_ratio * *middle && ms > *middle + config_.ejection.slow_floor_ms)
          eject(*member,
                "slow: first bytes after " + std::to_string(std::lround(ms)) + " ms, the others' after " +
                    std::to_string(std::lround(*middle)) + " ms",
                now_ns, events);
      }
    }
  }
  tell(events);
}

void Pool::eject(Member& member, const std::string& reason, int64_t now_ns, std::vector<MemberEvent>& events) {
  const double seconds = std::min(
      config_.ejection.most_s,
      config_.ejection.base_s * std::exp2(static_cast<double>(std::min<int64_t>(member.ejections_in_a_row, 30))));
  member.ejected_until_ns = now_ns + ns_of(seconds);
  ++member.ejections_in_a_row;
  ++member.num_ejections;
  member.failures = 0;
  member.of_streams = {};
  member.of_wholes = {};
  member.is_trial = true;
  member.trial_runs = false;
  member.reason = reason;
  events.push_back(event(member, "ejected", reason));
}

void Pool::finish(const Pick& pick, int64_t tokens_left, Outcome outcome, const std::string& reason, int64_t now_ns) {
  std::vector<MemberEvent> events;
  {
    const std::lock_guard lock(mutex_);
    Member* member = find(pick.member);
    if (member == nullptr) return;
    --member->in_flight;
    member->outstanding_tokens -= tokens_left;
    if (outcome == Outcome::kFailed) ++member->num_failures;
    if (pick.epoch == member->num_ejections) {
      member->trial_runs = false;
      if (outcome == Outcome::kGood || outcome == Outcome::kBusy) {
        member->failures = 0;
        if (std::exchange(member->is_trial, false)) {
          member->up_since_ns = now_ns;
          member->reason.clear();
          events.push_back(event(*member, "readmitted", ""));
        }
        if (outcome == Outcome::kGood && now_ns - member->up_since_ns > ns_of(2 * config_.ejection.base_s))
          member->ejections_in_a_row = 0;
      } else if (outcome == Outcome::kFailed) {
        ++member->failures;
        if (member->is_trial || member->failures >= config_.ejection.consecutive_failures)
          eject(*member, reason, now_ns, events);
      }
    }
    forget_left();
  }
  tell(events);
}

void Pool::probed(MemberId id, bool good, const std::string& reason, int64_t now_ns) {
  std::vector<MemberEvent> events;
  {
    const std::lock_guard lock(mutex_);
    Member* member = find(id);
    if (member == nullptr) return;
    member->good_probes = good ? member->good_probes + 1 : 0;
    member->bad_probes = good ? 0 : member->bad_probes + 1;
    if (good && member->health != Member::Health::kUp && member->good_probes >= config_.probe.up_after) {
      member->health = Member::Health::kUp;
      member->up_since_ns = now_ns;
      member->reason.clear();
      events.push_back(event(*member, "up", ""));
    } else if (!good && member->health != Member::Health::kDown && member->bad_probes >= config_.probe.down_after) {
      member->health = Member::Health::kDown;
      member->reason = reason;
      events.push_back(event(*member, "down", reason));
    } else if (!good && member->health == Member::Health::kUnknown) {
      member->reason = reason;
    }
  }
  tell(events);
}

void Pool::set_members(const std::vector<http::Endpoint>& endpoints, int64_t now_ns) {
  std::vector<MemberEvent> events;
  {
    const std::lock_guard lock(mutex_);
    for (Member& member : members_) {
      const bool stays = std::ranges::find(endpoints, member.endpoint) != endpoints.end();
      if (!stays && !member.leaving) events.push_back(event(member, "left", ""));
      if (stays && member.leaving) events.push_back(event(member, "joined", "again"));
      member.leaving = !stays;
    }
    for (const http::Endpoint& endpoint : endpoints) {
      if (std::ranges::find(members_, endpoint, &Member::endpoint) != members_.end()) continue;
      Member member;
      member.id = ++last_id_;
      member.endpoint = endpoint;
      member.reason = "not probed yet";
      member.up_since_ns = now_ns;
      members_.push_back(std::move(member));
      events.push_back(event(members_.back(), "joined", ""));
    }
    forget_left();
  }
  tell(events);
}

void Pool::forget_left() {
  std::erase_if(members_, [](const Member& member) { return member.leaving && member.in_flight == 0; });
}

bool Pool::may_retry() {
  const std::lock_guard lock(mutex_);
  if (retry_budget_ < 1) return false;
  retry_budget_ -= 1;
  return true;
}

bool Pool::can_serve(int64_t now_ns) const {
  const std::lock_guard lock(mutex_);
  return std::ranges::any_of(members_, [&](const Member& member) { return can_have(member, now_ns); });
}

double Pool::retry_after_s(int64_t now_ns) const {
  const std::lock_guard lock(mutex_);
  double soonest = config_.probe.interval_s;
  for (const Member& member : members_) {
    if (member.leaving || member.health != Member::Health::kUp || now_ns >= member.ejected_until_ns) continue;
    soonest = std::min(soonest, static_cast<double>(member.ejected_until_ns - now_ns) * 1e-9);
  }
  return std::max(1.0, soonest);
}

bool Pool::is_down(MemberId id) const {
  const std::lock_guard lock(mutex_);
  const Member* member = find(id);
  return member == nullptr || member->health == Member::Health::kDown;
}

std::vector<Pool::Address> Pool::members() const {
  const std::lock_guard lock(mutex_);
  std::vector<Address> out;
  for (const Member& member : members_)
    if (!member.leaving) out.push_back({member.id, member.endpoint, member.health != Member::Health::kUnknown});
  return out;
}

std::vector<MemberStatus> Pool::status(int64_t now_ns) const {
  const std::lock_guard lock(mutex_);
  std::vector<MemberStatus> out;
  for (const Member& member : members_) {
    MemberStatus status;
    status.id = member.id;
    status.name = member.endpoint.authority();
    if (member.leaving) {
      status.state = "leaving";
    } else if (member.health == Member::Health::kUnknown) {
      status.state = "unknown";
    } else if (member.health == Member::Health::kDown) {
      status.state = "down";
    } else if (now_ns < member.ejected_until_ns || member.is_trial) {
      status.state = "ejected";
    } else {
      status.state = weight_of(member, now_ns) < 1 ? "slow_start" : "up";
    }
    status.reason = member.reason;
    status.in_flight = member.in_flight;
    status.outstanding_tokens = member.outstanding_tokens;
    status.num_requests = member.num_requests;
    status.num_failures = member.num_failures;
    status.num_ejections = member.num_ejections;
    status.first_byte_ms = member.of_streams.median_ms();
    out.push_back(std::move(status));
  }
  return out;
}

}  // namespace sextant::fleet

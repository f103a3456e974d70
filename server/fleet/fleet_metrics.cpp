#include "server/fleet/fleet_metrics.h"

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <mutex>
#include <set>
#include <sstream>

namespace sextant::fleet {
namespace {

const prometheus::Histogram::BucketBoundaries kFirstByteBuckets = {.001, .005, .01, .025, .05, .1, .25, .5,
                                                                   1,    2.5,  5,   10,   30,  60, 120};

const char* label_of(Outcome outcome) {
  switch (outcome) {
    case Outcome::kGood: return "answered";
    case Outcome::kFailed: return "failed";
    case Outcome::kBusy: return "busy";
    case Outcome::kCancelled: return "cancelled";
  }
  return "";
}

}  // namespace

struct FleetMetrics::Families {
  using Counters = prometheus::Family<prometheus::Counter>&;
  using Gauges = prometheus::Family<prometheus::Gauge>&;

  Counters counter(const char* name, const char* help) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(registry);
  }
  Gauges gauge(const char* name, const char* help) {
    return prometheus::BuildGauge().Name(name).Help(help).Register(registry);
  }

  prometheus::Registry registry;
  Counters requests = counter("sextant:router_requests_total", "Requests passed on, by member and how that ended");
  Counters retries =
      counter("sextant:router_retries_total", "Requests taken to another member, by reason; over_budget: not taken");
  Counters failovers = counter("sextant:router_failovers_total", "Requests that another pool took over, by that pool");
  Counters prefix_hits =
      counter("sextant:router_prefix_hits_total", "Requests sent where the beginning of their prompt has been");
  Counters broken =
      counter("sextant:router_broken_streams_total", "Streams whose server was lost after their first byte");
  Counters events =
      counter("sextant:router_member_events_total", "Members that came up, went down, were ejected, joined or left");
  Gauges running = gauge("sextant:router_requests_running", "Requests at a member");
  Gauges tokens =
      gauge("sextant:router_outstanding_tokens", "Tokens that a member's requests are expected to cost still");
  Gauges state = gauge("sextant:router_member_state", "1 for the state that a member is in");
  Gauges first_byte_median = gauge("sextant:router_member_first_byte_seconds",
                                   "Median of the time to the first byte of a member's last streams");
  Gauges idle = gauge("sextant:router_idle_connections", "Connections to members that are kept open");
  prometheus::Family<prometheus::Histogram>& first_byte =
      prometheus::BuildHistogram()
          .Name("sextant:router_first_byte_seconds")
          .Help("From picking a member to the first byte of its stream")
          .Register(registry);

  std::mutex mutex;  // of rendering
  std::set<std::pair<prometheus::Family<prometheus::Gauge>*, prometheus::Gauge*>> of_last_render;
};

FleetMetrics::FleetMetrics() : families_(std::make_unique<Families>()) {}
FleetMetrics::~FleetMetrics() = default;

void FleetMetrics::on_attempt(const std::string& pool, const std::string& member, Outcome outcome) {
  families_->requests.Add({{"pool", pool}, {"member", member}, {"outcome", label_of(outcome)}}).Increment();
}

void FleetMetrics::on_retry(const std::string& pool, const std::string& reason) {
  families_->retries.Add({{"pool", pool}, {"reason", reason}}).Increment();
}

void FleetMetrics::on_failover(const std::string& to_pool) {
  families_->failovers.Add({{"pool", to_pool}}).Increment();
}

void FleetMetrics::on_prefix_hit(const std::string& pool) { families_->prefix_hits.Add({{"pool", pool}}).Increment(); }

void FleetMetrics::on_first_byte(const std::string& pool, double seconds) {
  families_->first_byte.Add({{"pool", pool}}, kFirstByteBuckets).Observe(seconds);
}

void FleetMetrics::on_broken_stream(const std::string& pool) { families_->broken.Add({{"pool", pool}}).Increment(); }

void FleetMetrics::on_member_event(const MemberEvent& event) {
  families_->events.Add({{"pool", event.pool}, {"member", event.member}, {"event", event.what}}).Increment();
}

std::string FleetMetrics::render(const std::vector<PoolStatus>& pools, size_t num_idle_connections) {
  const std::lock_guard lock(families_->mutex);
  auto stale = std::exchange(families_->of_last_render, {});
  const auto set = [&](Families::Gauges family, const prometheus::Labels& labels, double value) {
    prometheus::Gauge& gauge = family.Add(labels);
    gauge.Set(value);
    stale.erase({&family, &gauge});
    families_->of_last_render.insert({&family, &gauge});
  };
  for (const PoolStatus& pool : pools) {
    for (const MemberStatus& member : pool.members) {
      const prometheus::Labels labels = {{"pool", pool.pool}, {"member", member.name}};
      set(families_->running, labels, static_cast<double>(member.in_flight));
      set(families_->tokens, labels, static_cast<double>(member.outstanding_tokens));
      set(families_->first_byte_median, labels, member.first_byte_ms * 1e-3);
      for (const char* state : {"unknown", "up", "down", "ejected", "slow_start", "leaving"}) {
        prometheus::Labels of_state = labels;
        of_state["state"] = state;
        set(families_->state, of_state, member.state == state ? 1 : 0);
      }
    }
  }
  set(families_->idle, {}, static_cast<double>(num_idle_connections));
  for (const auto& [family, gauge] : stale) family->Remove(gauge);
  std::ostringstream out;
  prometheus::TextSerializer().Serialize(out, families_->registry.Collect());
  return out.str();
}

}  // namespace sextant::fleet

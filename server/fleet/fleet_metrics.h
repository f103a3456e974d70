// FleetMetrics: what a router says of itself, as Prometheus reads it. Counted as it happens; gauges are what pools say when
// they are asked. Labels are pools and members of the configuration and of discovery, never what clients send. Any thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "server/fleet/pool.h"

namespace sextant::fleet {

class FleetMetrics {
 public:
  FleetMetrics();
  ~FleetMetrics();

  void on_attempt(const std::string& pool, const std::string& member, Outcome outcome);
  void on_retry(const std::string& pool, const std::string& reason);
  void on_failover(const std::string& to_pool);
  void on_prefix_hit(const std::string& pool);
  void on_first_byte(const std::string& pool, double seconds);
  void on_broken_stream(const std::string& pool);
  void on_member_event(const MemberEvent& event);

  // Gauges of members are set anew; those of members that left are dropped.
  struct PoolStatus {
    std::string pool;
    std::vector<MemberStatus> members;
  };
  std::string render(const std::vector<PoolStatus>& pools, size_t num_idle_connections);

 private:
  struct Families;
  const std::unique_ptr<Families> families_;
};

}  // namespace sextant::fleet

// EngineRanks: all ranks of this process from nothing to an executor, and what they agree on with the ranks of the group's other
// processes: where they meet, how many blocks the KV cache has, that all are there. Every process makes the same calls in the same
// order. World rank = stage * tensor_parallel_size + rank in the stage; a process has consecutive ones.
// Thread: the caller's, which loads.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/device/tcp_communicator.h"
#include "engine/engine_model.h"
#include "engine/engine_rank.h"
#include "engine/exec/group_executor.h"
#include "engine/exec/rank_thread.h"
#include "engine/exec/step_executor.h"
#include "engine/group/process_group.h"

namespace sextant {

// What must be equal on all nodes, and is.
Result<GroupFacts> group_facts(const EngineConfig& config, const OpenedModel& opened, const std::string& version);
// The group that `config` asks for, formed; null when there is one process and one stage, which need none.
Result<std::shared_ptr<ProcessGroup>> form_group(const EngineConfig& config, const OpenedModel& opened,
                                                 const std::string& version);

class EngineRanks {
 public:
  // All outlive it.
  EngineRanks(const EngineConfig& config, const OpenedModel& opened, std::shared_ptr<ProcessGroup> group);
  ~EngineRanks();
  EngineRanks(const EngineRanks&) = delete;
  EngineRanks& operator=(const EngineRanks&) = delete;

  Status open();
  // Every rank's plan, with as many blocks as the poorest of all processes has.
  Status plan();
  std::string plan_text() const;
  Status load();
  Status measure();
  // When it returns, the ranks of all processes are ready.
  Status finish(const std::vector<int32_t>& eos_token_ids);

  // What carries out steps. Of one rank alone `backend` is the device, which outlives it.
  std::unique_ptr<StepExecutor> take(int64_t steps_in_flight, std::unique_ptr<Backend>& backend);
  // Of a group: instead of take().
  std::unique_ptr<GroupExecutor> take_group(int64_t steps_in_flight);

  size_t size() const { return loaders_.size(); }
  RankLoader& operator[](size_t rank) { return *loaders_[rank]; }
  const std::vector<MemoryPlan>& plans() const { return plans_; }

 private:
  // How the ranks of one group of ranks (one stage's, or one in each stage) come together.
  using Meeting = std::function<Result<std::unique_ptr<Communicator>>(int rank_in_group)>;
  Result<Meeting> make_meeting(uint32_t group, const std::vector<int32_t>& members);
  Status exchange_addresses();
  Status each(const std::function<Status(size_t rank)>& step);
  Status agree(Status status);
  void abort(const std::string& reason);
  int node_of(int world_rank) const { return world_rank / num_local_; }
  std::vector<int32_t> stage_members(int stage) const;
  std::vector<int32_t> pipeline_members(int tensor_rank) const;

  const EngineConfig& config_;
  const OpenedModel& opened_;
  const std::shared_ptr<ProcessGroup> group_;
  const int tensor_size_, num_stages_, num_local_, first_rank_;
  std::unique_ptr<TcpMeetingPoint> meeting_point_;
  std::vector<TcpMeetingPoint::Address> addresses_;  // by node
  std::vector<std::string> group_ids_;               // by group of ranks
  std::vector<std::unique_ptr<RankLoader>> loaders_;
  std::vector<std::unique_ptr<RankThread>> threads_;  // none for one rank of no group
  std::vector<MemoryPlan> plans_;
};

}  // namespace sextant

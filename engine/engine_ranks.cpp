#include "engine/engine_ranks.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <utility>

#include "engine/base/log.h"
#include "engine/device/make_backend.h"
#include "engine/exec/rank_executor.h"

namespace sextant {
namespace {

// Ranks come to one another within this time once all processes have opened their devices.
constexpr double kMeetS = 300;
constexpr size_t kTokenBytes = 16;

std::string seconds(double value) {
  std::string text = std::to_string(value);
  text.erase(text.find_last_not_of('0') + 1);
  if (text.back() == '.') text.pop_back();
  return text;
}

}  // namespace

Result<GroupFacts> group_facts(const EngineConfig& config, const OpenedModel& opened, const std::string& version) {
  ASSIGN_OR_RETURN(const std::string revision, model_revision(config, opened));
  const ParallelConfig& parallel = config.parallel;
  const std::optional<DType> asked = asked_dtype(config);  // half and float16 are one
  return GroupFacts{{"version", version},
                    {"nnodes", std::to_string(parallel.nnodes)},
                    {"master_addr", parallel.master_addr},
                    {"master_port", std::to_string(parallel.master_port)},
                    {"tensor_parallel_size", std::to_string(parallel.tensor_parallel_size)},
                    {"pipeline_parallel_size", std::to_string(parallel.pipeline_parallel_size)},
                    {"model_revision", revision},
                    {"dtype", asked ? std::string(dtype_name(*asked)) : "auto"},
                    {"kv_cache_dtype", config.cache.kv_cache_dtype},
                    {"block_size", std::to_string(config.cache.block_size)},
                    {"max_model_len", std::to_string(opened.max_model_len)},
                    {"max_num_seqs", std::to_string(config.scheduler.max_num_seqs)},
                    {"max_num_batched_tokens", std::to_string(config.scheduler.max_num_batched_tokens)},
                    {"max_steps_in_flight", std::to_string(config.scheduler.max_steps_in_flight)},
                    {"collective_timeout", seconds(parallel.collective_timeout_s)},
                    {"device", config.device.device}};
}

Result<std::shared_ptr<ProcessGroup>> form_group(const EngineConfig& config, const OpenedModel& opened,
                                                 const std::string& version) {
  const ParallelConfig& parallel = config.parallel;
  if (parallel.nnodes == 1 && parallel.pipeline_parallel_size == 1) return std::shared_ptr<ProcessGroup>();
  // Whoever cannot be loaded is not waited for.
  RETURN_IF_ERROR(make_pipeline_stage(opened.config, 0, static_cast<int>(parallel.pipeline_parallel_size)).status());
  RETURN_IF_ERROR(
      make_tensor_shard(opened.config, cut_block(opened), 0, static_cast<int>(parallel.tensor_parallel_size)).status());
  ProcessGroup::Options options;
  options.num_nodes = static_cast<int>(parallel.nnodes);
  options.node_rank = static_cast<int>(parallel.node_rank);
  options.ranks_per_node = static_cast<int>(parallel.num_ranks() / parallel.nnodes);
  options.master_addr = parallel.master_addr;
  options.master_port = static_cast<uint16_t>(parallel.master_port);
  options.secret = parallel.group_secret;
  options.join_timeout_s = parallel.group_join_timeout_s;
  options.silence_timeout_s = parallel.collective_timeout_s;
  ASSIGN_OR_RETURN(options.facts, group_facts(config, opened, version));
  ASSIGN_OR_RETURN(std::unique_ptr<ProcessGroup> group, ProcessGroup::form(std::move(options)));
  return std::shared_ptr<ProcessGroup>(std::move(group));
}

EngineRanks::EngineRanks(const EngineConfig& config, const OpenedModel& opened, std::shared_ptr<ProcessGroup> group)
    : config_(config),
      opened_(opened),
      group_(std::move(group)),
      tensor_size_(static_cast<int>(config.parallel.tensor_parallel_size)),
      num_stages_(static_cast<int>(config.parallel.pipeline_parallel_size)),
      num_local_(static_cast<int>(config.parallel.num_ranks() / config.parallel.nnodes)),
      first_rank_(num_local_ * static_cast<int>(config.parallel.node_rank)) {
  if (group_ != nullptr) {
    group_->set_failure_handler([this](const std::string& message) { abort(message); });
  }
}

EngineRanks::~EngineRanks() {
  if (group_ != nullptr && !threads_.empty()) group_->set_failure_handler({});
  if (threads_.empty()) return;
  abort("loading ended");
  // On their threads, and together: the end of a communicator may be a collective.
  for (size_t rank = 0; rank < threads_.size(); ++rank)
    threads_[rank]->post([loader = loaders_[rank].get()] { loader->discard(); });
  threads_.clear();
}

// During open() communicators come and go; afterwards they stay.
void EngineRanks::abort(const std::string& reason) {
  for (const auto& loader : loaders_) loader->abort(reason);
}

// An error of this process is everybody's.
Status EngineRanks::agree(Status status) {
  if (group_ == nullptr) return status;
  if (!status.ok() && group_->status().ok()) {
    group_->fail("node " + std::to_string(group_->node_rank()) + ": " + status.message());
  }
  // Why the others have failed is more than that ours were aborted.
  if (!group_->status().ok() && group_->status().message().find(status.message()) == std::string::npos) {
    return group_->status();
  }
  return status;
}

Status EngineRanks::each(const std::function<Status(size_t rank)>& step) {
  if (threads_.empty()) return step(0);
  return agree(run_on_ranks(threads_, step, [this](const Status& error) { abort(error.message()); }));
}

std::vector<int32_t> EngineRanks::stage_members(int stage) const {
  std::vector<int32_t> members;
  for (int rank = 0; rank < tensor_size_; ++rank) members.push_back(stage * tensor_size_ + rank);
  return members;
}

std::vector<int32_t> EngineRanks::pipeline_members(int tensor_rank) const {
  std::vector<int32_t> members;
  for (int stage = 0; stage < num_stages_; ++stage) members.push_back(stage * tensor_size_ + tensor_rank);
  return members;
}

Status EngineRanks::exchange_addresses() {
  // The leader's token lets connections in that this group's processes make, and no others.
  ASSIGN_OR_RETURN(const std::vector<std::string> tokens,
                   group_->exchange(group_->is_leader() ? random_bytes(kTokenBytes) : std::string()));
  if (tokens[0].size() != kTokenBytes) return data_loss("the leader's token is damaged");
  const std::string host = group_->local_host();
  ASSIGN_OR_RETURN(meeting_point_, TcpMeetingPoint::listen(host, tokens[0]));
  // Of each group of ranks the node of its first rank makes the id; ids are of one length.
  const auto num_groups = static_cast<size_t>(num_stages_ + tensor_size_);
  std::string own_ids;
  for (size_t group = 0; group < num_groups; ++group) {
    const bool is_stage = group < static_cast<size_t>(num_stages_);
    const int first_rank = is_stage ? static_cast<int>(group) * tensor_size_ : static_cast<int>(group) - num_stages_;
    if (node_of(first_rank) != group_->node_rank()) continue;
    ASSIGN_OR_RETURN(const std::string id, make_group_id(config_.device));
    own_ids += id;
  }
  ASSIGN_OR_RETURN(std::vector<std::string> ids, group_->exchange(std::move(own_ids)));
  constexpr size_t kIdBytes = 128;
  std::vector<size_t> taken(ids.size());
  for (size_t group = 0; group < num_groups; ++group) {
    const bool is_stage = group < static_cast<size_t>(num_stages_);
    const int first_rank = is_stage ? static_cast<int>(group) * tensor_size_ : static_cast<int>(group) - num_stages_;
    const auto node = static_cast<size_t>(node_of(first_rank));
    group_ids_.push_back(ids[node].substr(std::min(taken[node], ids[node].size()), kIdBytes));
    taken[node] += kIdBytes;
  }
  ASSIGN_OR_RETURN(const std::vector<std::string> addresses,
                   group_->exchange(std::to_string(meeting_point_->port()) + " " + host));
  for (const std::string& text : addresses) {
    TcpMeetingPoint::Address address;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), address.port);
    if (error != std::errc() || end == text.data() + text.size()) return data_loss("a node's address is damaged");
    address.host = std::string(end + 1, text.data() + text.size());
    addresses_.push_back(std::move(address));
  }
  return ok_status();
}

Result<EngineRanks::Meeting> EngineRanks::make_meeting(uint32_t group, const std::vector<int32_t>& members) {
  const bool all_here = std::ranges::all_of(
      members, [&](int32_t rank) { return node_of(rank) == static_cast<int>(config_.parallel.node_rank); });
  const auto size = static_cast<int>(members.size());
  // The group's watchdog sees all ranks and names who is missing; a communicator by itself only those it waits for.
  const double timeout_s = group_ == nullptr ? config_.parallel.collective_timeout_s : 0;
  if (all_here) return make_rank_meeting(config_.device, size, timeout_s);
  std::vector<TcpMeetingPoint::Address> addresses;
  for (const int32_t rank : members) addresses.push_back(addresses_[static_cast<size_t>(node_of(rank))]);
  return make_remote_meeting(config_.device, *meeting_point_, group, group_ids_[group], std::move(addresses),
                             deadline_in(kMeetS), timeout_s);
}

Status EngineRanks::open() {
  const int64_t block = cut_block(opened_);
  for (int local = 0; local < num_local_; ++local) {
    const int world_rank = first_rank_ + local;
    ASSIGN_OR_RETURN(TensorShard shard,
                     make_tensor_shard(opened_.config, block, world_rank % tensor_size_, tensor_size_));
    ASSIGN_OR_RETURN(shard.pipeline, make_pipeline_stage(opened_.config, world_rank / tensor_size_, num_stages_));
    loaders_.push_back(
        std::make_unique<RankLoader>(config_, opened_, shard, RankLoader::Place{world_rank, local, num_local_}));
  }
  if (num_local_ == 1 && group_ == nullptr) return loaders_[0]->open();
  for (int local = 0; local < num_local_; ++local) threads_.push_back(std::make_unique<RankThread>());
  RETURN_IF_ERROR(each([&](size_t local) { return loaders_[local]->open(); }));
  if (group_ != nullptr && group_->num_nodes() > 1) RETURN_IF_ERROR(agree(exchange_addresses()));
  std::map<uint32_t, Meeting> meetings;
  const auto prepare = [&](uint32_t group, const std::vector<int32_t>& members) -> Status {
    if (members.size() == 1 || meetings.contains(group)) return ok_status();
    ASSIGN_OR_RETURN(meetings[group], make_meeting(group, members));
    return ok_status();
  };
  const auto pipeline_group = [&](const TensorShard& shard) { return static_cast<uint32_t>(num_stages_ + shard.rank); };
  for (const auto& loader : loaders_) {
    const TensorShard& shard = loader->shard();
    RETURN_IF_ERROR(agree(prepare(static_cast<uint32_t>(shard.pipeline.stage), stage_members(shard.pipeline.stage))));
    RETURN_IF_ERROR(agree(prepare(pipeline_group(shard), pipeline_members(shard.rank))));
  }
  return each([&](size_t local) {
    const TensorShard& shard = loaders_[local]->shard();
    return loaders_[local]->join([&] { return meetings.at(static_cast<uint32_t>(shard.pipeline.stage))(shard.rank); },
                                 [&] { return meetings.at(pipeline_group(shard))(shard.pipeline.stage); });
  });
}

Status EngineRanks::plan() {
  plans_.clear();
  std::optional<int64_t> num_blocks;
  Status status;
  for (const auto& loader : loaders_) {
    const Result<MemoryPlan> of_rank = loader->plan();
    if (!of_rank.ok()) {
      status = of_rank.status();
      break;
    }
    num_blocks = std::min(num_blocks.value_or(of_rank->num_blocks), of_rank->num_blocks);
  }
  RETURN_IF_ERROR(agree(status));
  if (group_ != nullptr) {
    ASSIGN_OR_RETURN(const std::vector<std::string> all, group_->exchange(std::to_string(*num_blocks)));
    for (const std::string& text : all) {
      int64_t of_node = 0;
      std::from_chars(text.data(), text.data() + text.size(), of_node);
      if (of_node < 2) return agree(data_loss("a node's number of blocks is damaged"));
      num_blocks = std::min(*num_blocks, of_node);
    }
  }
  for (const auto& loader : loaders_) {
    ASSIGN_OR_RETURN(MemoryPlan of_rank, loader->plan(num_blocks));
    plans_.push_back(std::move(of_rank));
  }
  return ok_status();
}

std::string EngineRanks::plan_text() const {
  std::string text;
  for (const MemoryPlan& of_rank : plans_) text += render(of_rank);
  return text + loaders_[0]->traffic();
}

Status EngineRanks::load() {
  return each([this](size_t rank) { return loaders_[rank]->load(); });
}

Status EngineRanks::measure() {
  return each([this](size_t rank) { return loaders_[rank]->measure(); });
}

Status EngineRanks::finish(const std::vector<int32_t>& eos_token_ids) {
  RETURN_IF_ERROR(each([&](size_t rank) { return loaders_[rank]->finish(plans_[rank], eos_token_ids); }));
  return group_ == nullptr ? ok_status() : group_->exchange("ready").status();
}

std::unique_ptr<StepExecutor> EngineRanks::take(int64_t steps_in_flight, std::unique_ptr<Backend>& backend) {
  if (group_ != nullptr) return take_group(steps_in_flight);
  std::vector<RankExecutor::Rank> ranks;
  for (const auto& loader : loaders_) ranks.push_back(loader->take());
  if (threads_.empty()) {
    backend = std::move(ranks[0].backend);
    return std::move(ranks[0].worker);
  }
  return std::make_unique<RankExecutor>(std::move(threads_), std::move(ranks));
}

std::unique_ptr<GroupExecutor> EngineRanks::take_group(int64_t steps_in_flight) {
  const int output_rank = (num_stages_ - 1) * tensor_size_;
  GroupExecutor::Options options;
  options.group = group_;
  options.output_is_here = output_rank >= first_rank_ && output_rank < first_rank_ + num_local_;
  options.steps_in_flight = steps_in_flight;
  options.num_stages = num_stages_;
  options.bounds = {.vocab_size = static_cast<int32_t>(opened_.config.vocab_size),
                    .num_blocks = static_cast<int32_t>(plans_[0].num_blocks),
                    .block_size = static_cast<int32_t>(config_.cache.block_size),
                    .max_model_len = opened_.max_model_len,
                    .max_num_seqs = config_.scheduler.max_num_seqs,
                    .max_num_batched_tokens = config_.scheduler.max_num_batched_tokens};
  std::vector<GroupExecutor::Rank> ranks;
  for (const auto& loader : loaders_) {
    GroupExecutor::Rank& rank = ranks.emplace_back();
    const TensorShard& shard = loader->shard();
    rank.world_rank = loader->place().world_rank;
    rank.gives_output = rank.world_rank == output_rank;
    if (tensor_size_ > 1) rank.members.push_back(stage_members(shard.pipeline.stage));
    if (num_stages_ > 1) rank.members.push_back(pipeline_members(shard.rank));
    rank.parts = loader->take();
  }
  return std::make_unique<GroupExecutor>(std::move(threads_), std::move(ranks), std::move(options));
}

}  // namespace sextant

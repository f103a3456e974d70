// A LoadedModel per rank, each on its thread, with the same steps: rank 0's logits are the model's.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <cuda_runtime.h>

#include "engine/exec/rank_thread.h"
#include "tests/support/loaded_model.h"
#if defined(SEXTANT_SIMT)
#include "kernels/simt/runtime.h"
#endif

namespace sextant::testing_support {

// Emulated devices; of a real machine, whether it has as many.
inline bool has_cuda_devices(int count) {
#if defined(SEXTANT_SIMT)
  simt::Machine machine = simt::machine_from_environment();
  machine.num_devices = count;
  simt::set_machine(machine);
  return true;
#else
  int visible = 0;
  return cudaGetDeviceCount(&visible) == cudaSuccess && visible >= count;
#endif
}

class ParallelModel {
 public:
  using Load = std::function<std::unique_ptr<LoadedModel>(const LoadedModel::Options& of_rank)>;

  ParallelModel(int num_ranks, LoadedModel::Options options, const Load& load)
      : ranks_(static_cast<size_t>(num_ranks)) {
    DeviceConfig device;
    device.device = options.device;
    Result<RankMeeting> meeting = make_rank_meeting(device, num_ranks, 120);
    EXPECT_TRUE(meeting.ok()) << meeting.status().message();
    for (int rank = 0; rank < num_ranks; ++rank) threads_.push_back(std::make_unique<RankThread>());
    options.num_ranks = num_ranks;
    if (num_ranks > 1) options.meeting = *meeting;
    on_ranks([&](size_t rank) {
      LoadedModel::Options of_rank = options;
      of_rank.rank = static_cast<int>(rank);
      ranks_[rank] = load(of_rank);
    });
  }
  ~ParallelModel() {
    on_ranks([&](size_t rank) { ranks_[rank].reset(); });
  }
  ParallelModel(const ParallelModel&) = delete;
  ParallelModel& operator=(const ParallelModel&) = delete;

  // From a file or folder.
  static std::unique_ptr<ParallelModel> open(const std::string& path, int num_ranks,
                                             const LoadedModel::Options& options) {
    return std::make_unique<ParallelModel>(
        num_ranks, options, [&](const LoadedModel::Options& of_rank) { return LoadedModel::load(path, of_rank); });
  }
  // Random weights of these facts.
  static std::unique_ptr<ParallelModel> make_up(const ModelConfig& config, int num_ranks,
                                                const LoadedModel::Options& options) {
    return std::make_unique<ParallelModel>(num_ranks, options, [&](const LoadedModel::Options& of_rank) {
      WeightLoader loader = WeightLoader::dummy(WeightType::kBF16, 7);
      return LoadedModel::load(config, loader, of_rank);
    });
  }

  std::vector<std::vector<std::vector<float>>> step(const std::vector<LoadedModel::Chunk>& chunks) {
    std::vector<std::vector<std::vector<float>>> logits;
    on_ranks([&](size_t rank) {
      auto of_rank = ranks_[rank]->step(chunks);
      if (rank == 0) logits = std::move(of_rank);
    });
    return logits;
  }
  void reset() {
    for (const auto& rank : ranks_) rank->reset();
  }
  LoadedModel& operator[](size_t rank) { return *ranks_[rank]; }
  size_t size() const { return ranks_.size(); }

 private:
  void on_ranks(const std::function<void(size_t)>& body) {
    const Status status = run_on_ranks(threads_,
                                       [&](size_t rank) {
                                         body(rank);
                                         return ok_status();
                                       },
                                       {});
    EXPECT_TRUE(status.ok()) << status.message();
  }

  std::vector<std::unique_ptr<LoadedModel>> ranks_;
  std::vector<std::unique_ptr<RankThread>> threads_;  // end first
};

}  // namespace sextant::testing_support

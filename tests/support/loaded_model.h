// A model run step by step without scheduler or sampler: tests say which tokens of which sequence a step holds, in which
// blocks, and get the raw logits.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "engine/device/cpu_backend.h"
#include "engine/device/cuda_device.h"
#include "engine/device/make_backend.h"
#include "engine/exec/model_runner.h"
#include "engine/format/hf_directory.h"
#include "engine/model/model.h"

namespace sextant::testing_support {

class LoadedModel {
 public:
  struct Chunk {
    int sequence = 0;
    std::vector<int32_t> token_ids;  // that follow what the sequence already has
  };

  struct Options {
    DType kv_dtype = DType::kBFloat16;
    int32_t num_blocks = 600;
    int64_t max_num_batched_tokens = 1100;
    int64_t num_threads = 0;
    std::string device = "cpu";
    DType activation = DType::kBFloat16;  // CUDA's
    // One part of a cut model, on its rank's thread; logits come on rank 0 alone.
    int rank = 0;
    int num_ranks = 1;
    RankMeeting meeting = {};
  };

  static std::unique_ptr<LoadedModel> load(const std::string& path, DType kv_dtype, int32_t num_blocks = 600,
                                           int64_t max_num_batched_tokens = 1100, int64_t num_threads = 0,
                                           const std::string& device_name = "cpu") {
    return load(path, {.kv_dtype = kv_dtype,
                       .num_blocks = num_blocks,
                       .max_num_batched_tokens = max_num_batched_tokens,
                       .num_threads = num_threads,
                       .device = device_name});
  }
  static std::unique_ptr<LoadedModel> load(const std::string& path, const Options& options) {
    Result<std::unique_ptr<ModelFiles>> files = open_model(path);
    EXPECT_TRUE(files.ok()) << files.status().message();
    Result<ModelConfig> config = model_config_from_files(**files);
    EXPECT_TRUE(config.ok()) << config.status().message();
    WeightLoader loader(*(*files)->tensors(),
                        {.gguf_names = (*files)->is_gguf(), .fp8_scale_block = config->fp8_scale_block});
    return load(*config, loader, options);
  }
  static std::unique_ptr<LoadedModel> load(const ModelConfig& config, WeightLoader& loader, const Options& options) {
    auto loaded = std::make_unique<LoadedModel>();
    loaded->config = config;
    Result<TensorShard> shard = make_tensor_shard(
        config, std::lcm(column_block(loader.matrix_types()), std::max<int64_t>(1, config.fp8_scale_block)),
        options.rank, options.num_ranks);
    EXPECT_TRUE(shard.ok()) << shard.status().message();
    const ModelConfig part = shard_config(config, *shard);
    DeviceConfig device;
    device.num_threads = options.num_threads;
    device.device = options.device;
    Result<std::unique_ptr<Backend>> backend =
        make_rank_backend(device, options.rank, options.num_ranks, options.activation);
    EXPECT_TRUE(backend.ok()) << backend.status().message();
    loaded->backend = std::move(*backend);
    if (options.meeting) {
      Result<std::unique_ptr<Communicator>> group = options.meeting(options.rank);
      EXPECT_TRUE(group.ok()) << group.status().message();
      loaded->group = std::move(*group);
    }
    const int64_t max_num_batched_tokens = options.max_num_batched_tokens;
    Result<std::unique_ptr<Model>> model = load_model(config, loader, *loaded->backend,
                                                      {.max_num_batched_tokens = max_num_batched_tokens,
                                                       .max_model_len = config.max_position_embeddings,
                                                       .max_logits_rows = loaded->backend->logits_rows(64),
                                                       .shard = *shard,
                                                       .tensor_group = loaded->group.get()});
    EXPECT_TRUE(model.ok()) << model.status().message();
    const Status reserved = loaded->backend->reserve({.max_num_batched_tokens = max_num_batched_tokens,
                                                      .max_num_seqs = 64,
                                                      .max_model_len = config.max_position_embeddings,
                                                      .vocab_size = config.vocab_size,
                                                      .num_ranks = options.num_ranks},
                                                     make_attention_kinds(part));
    EXPECT_TRUE(reserved.ok()) << reserved.message();
    Result<std::unique_ptr<KvCache>> cache =
        loaded->backend->make_kv_cache({.num_layers = static_cast<int32_t>(config.num_hidden_layers),
                                        .num_blocks = options.num_blocks,
                                        .block_size = 16,
                                        .num_kv_heads = static_cast<int32_t>(part.num_key_value_heads),
                                        .head_dim = static_cast<int32_t>(config.head_dim),
                                        .dtype = options.kv_dtype});
    EXPECT_TRUE(cache.ok()) << cache.status().message();
    Result<std::unique_ptr<ModelRunner>> runner =
        ModelRunner::create(*loaded->backend, std::move(*model), config.vocab_size, loaded->backend->logits_rows(64));
    EXPECT_TRUE(runner.ok()) << runner.status().message();
    loaded->runner = std::move(*runner);
    loaded->runner->set_cache(std::move(*cache));
    for (BlockId id = 1; id < options.num_blocks; ++id) loaded->free_blocks.push_back(id);
    loaded->bytes_read = loader.bytes_read();
    return loaded;
  }

  // Forgets all sequences; the cache keeps its (stale) contents.
  void reset() {
    for (auto& [id, sequence] : sequences) {
      free_blocks.insert(free_blocks.end(), sequence.blocks.begin(), sequence.blocks.end());
    }
    sequences.clear();
  }

  // Runs one step; logits of every row, [chunk][token][vocab].
  std::vector<std::vector<std::vector<float>>> step(const std::vector<Chunk>& chunks) {
    SchedulerOutput step_output;
    for (const Chunk& chunk : chunks) {
      Sequence& sequence = sequences[chunk.sequence];
      ScheduledSequence scheduled;
      scheduled.num_computed_tokens = sequence.length;
      scheduled.num_scheduled_tokens = static_cast<int32_t>(chunk.token_ids.size());
      scheduled.token_offset = static_cast<int32_t>(step_output.token_ids.size());
      scheduled.num_prompt_tokens = 1 << 30;  // so that every row gives logits
      sequence.length += scheduled.num_scheduled_tokens;
      while (static_cast<int32_t>(sequence.blocks.size()) * 16 < sequence.length) {
        sequence.blocks.push_back(free_blocks.back());
        free_blocks.pop_back();
      }
      step_output.token_ids.insert(step_output.token_ids.end(), chunk.token_ids.begin(), chunk.token_ids.end());
      step_output.sequences.push_back(scheduled);
    }
    ForwardBatch batch;
    batch.build(step_output, 16, [&](size_t i) {
      return ForwardBatch::SequenceView{sequences[chunks[i].sequence].blocks, {}, true};
    });
    std::vector<std::vector<float>> rows;
    const Status status = runner->execute(batch, [&](int64_t first, Tensor logits) {
      EXPECT_EQ(first, static_cast<int64_t>(rows.size()));
      for (int64_t r = 0; r < logits.rows; ++r) {
        const float* row = logits.f32() + r * logits.row_stride;
        rows.emplace_back(row, row + logits.cols);
      }
    });
    EXPECT_TRUE(status.ok()) << status.message();
    std::vector<std::vector<std::vector<float>>> result;
    if (!runner->has_logits()) return result;
    size_t next = 0;
    for (const Chunk& chunk : chunks) {
      result.emplace_back(rows.begin() + static_cast<std::ptrdiff_t>(next),
                          rows.begin() + static_cast<std::ptrdiff_t>(next + chunk.token_ids.size()));
      next += chunk.token_ids.size();
    }
    return result;
  }

  struct Sequence {
    int32_t length = 0;
    std::vector<BlockId> blocks;
  };
  ModelConfig config;
  std::unique_ptr<Communicator> group;
  std::unique_ptr<Backend> backend;
  std::unique_ptr<ModelRunner> runner;
  uint64_t bytes_read = 0;
  std::vector<BlockId> free_blocks;
  std::map<int, Sequence> sequences;
};

// The CUDA backend of this build: the device's, or the emulator's.
inline const char* cuda_device_name() { return cuda_is_emulated() ? "cuda-emulated" : "cuda"; }

// The default model's file, or nothing (the test is then skipped aloud).
inline const char* test_model_path() { return std::getenv("SEXTANT_TEST_MODEL"); }

}  // namespace sextant::testing_support

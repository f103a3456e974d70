// What --dtype and --kv-cache-dtype become: auto after the checkpoint, what a device does not have refused by name.
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "engine/device/cuda_device.h"
#include "engine/engine.h"
#include "engine/engine_model.h"
#include "tests/support/collecting_sink.h"
#include "tests/support/scratch_directory.h"

namespace sextant {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing_support::CollectingSink;

const std::string kTinyLlama = std::string(SEXTANT_TEST_DATA) + "/golden/tiny/llama";

class EngineDtype : public testing::Test {
 protected:
  // The tiny model's facts and random weights; its config.json says `dtype`, or nothing.
  EngineConfig dummy(const char* dtype) {
    std::ifstream file(kTinyLlama + "/config.json");
    nlohmann::json facts = nlohmann::json::parse(file);
    facts.erase("dtype");
    if (dtype != nullptr) facts["torch_dtype"] = dtype;
    directory_.write("config.json", facts.dump());
    EngineConfig config;
    config.model.model = directory_.path();
    config.model.load_format = "dummy";
    return on_device(config, "cpu");
  }
  static EngineConfig on_device(EngineConfig config, const std::string& device) {
    config.device.device = device;
    config.cache.kv_cache_memory_bytes = 1 << 20;
    config.scheduler.max_num_seqs = 4;
    config.scheduler.max_num_batched_tokens = 32;
    return config;
  }
  static std::string cuda() { return cuda_is_emulated() ? "cuda-emulated" : "cuda"; }
  static Result<std::unique_ptr<Engine>> make(EngineConfig config) {
    return Engine::create({.config = std::move(config), .eos_token_ids = {}, .on_step = {}, .on_memory_plan = {}});
  }
  static Status refusal(const EngineConfig& config) {
    const auto engine = make(config);
    return engine.ok() ? ok_status() : engine.status();
  }

  ScratchDirectory directory_;
};

TEST_F(EngineDtype, AutoFollowsTheCheckpoint) {
  const auto resolved = [&](const char* checkpoint, const std::string& asked) {
    EngineConfig config = dummy(checkpoint);
    config.model.dtype = asked;
    const Result<OpenedModel> opened = open_engine_model(config);
    EXPECT_TRUE(opened.ok()) << opened.status().message();
    return opened.ok() ? std::string(dtype_name(opened->dtype)) : std::string();
  };
  EXPECT_EQ(resolved("float16", "auto"), "float16");
  EXPECT_EQ(resolved("torch.float16", "auto"), "float16");
  EXPECT_EQ(resolved("bfloat16", "auto"), "bfloat16");
  EXPECT_EQ(resolved("float32", "auto"), "bfloat16");
  EXPECT_EQ(resolved(nullptr, "auto"), "bfloat16");
  EXPECT_EQ(resolved("bfloat16", "half"), "float16");
  EXPECT_EQ(resolved("float16", "bfloat16"), "bfloat16");
  EXPECT_EQ(resolved("float16", "float"), "float32");
}

// Where config.json says nothing, the weights do: a file of F16.
TEST_F(EngineDtype, AutoLooksAtTheWeightsOfADirectoryThatDoesNotSay) {
  static_cast<void>(dummy(nullptr));
  const std::string header = R"({"t":{"dtype":"F16","shape":[2,2],"data_offsets":[0,8]}})";
  std::string file(8, '\0');
  file[0] = static_cast<char>(header.size());
  directory_.write("model.safetensors", file + header + std::string(8, '\0'));
  EngineConfig config;
  config.model.model = directory_.path();
  const Result<OpenedModel> opened = open_engine_model(config);
  ASSERT_TRUE(opened.ok()) << opened.status().message();
  EXPECT_EQ(opened->dtype, DType::kFloat16);
}

TEST_F(EngineDtype, ValuesThatAreNoneAreRefusedWithTheList) {
  EngineConfig config = dummy("bfloat16");
  config.model.dtype = "float8";
  config.cache.kv_cache_dtype = "half";
  std::string messages;
  for (const Status& error : config.validate()) messages += error.message() + "\n";
  EXPECT_THAT(messages, HasSubstr("dtype must be one of auto, bfloat16, float16, half, float32, float, not 'float8'"));
  EXPECT_THAT(messages,
              AllOf(HasSubstr("kv_cache_dtype must be one of auto, bfloat16, float16,"), HasSubstr("not 'half'")));
}

TEST_F(EngineDtype, TheCpuRefusesFloat16AndSaysWhatItHas) {
  EngineConfig config = dummy("float16");
  EXPECT_TRUE(make(config).ok()) << "auto: fp32 activations on weights as stored";
  config.model.dtype = "float16";
  EXPECT_THAT(refusal(config).message(),
              AllOf(HasSubstr("does not compute in float16"), HasSubstr("--dtype auto"), HasSubstr("--device cuda")));
  EXPECT_EQ(refusal(config).param(), "dtype");
  config.model.dtype = "auto";
  config.cache.kv_cache_dtype = "float16";
  EXPECT_THAT(refusal(config).message(), HasSubstr("bfloat16"));
  EXPECT_EQ(refusal(config).param(), "kv_cache_dtype");
}

TEST_F(EngineDtype, TheCpuServesFromAnInt8CacheOfLessMemory) {
  EngineConfig config = dummy("bfloat16");
  config.cache.kv_cache_memory_bytes = 8 << 20;
  const auto wide = make(config);
  config.cache.kv_cache_dtype = "int8";
  const auto engine = make(config);
  ASSERT_TRUE(wide.ok() && engine.ok()) << engine.status().message();
  EXPECT_EQ((*engine)->info().kv_cache_dtype, "int8");
  EXPECT_GT((*engine)->info().num_blocks, (*wide)->info().num_blocks);
  Request request;
  request.prompt_token_ids = {1, 2, 3};
  request.sampling.max_tokens = 4;
  request.sampling.ignore_eos = true;
  auto sink = std::make_shared<CollectingSink>();
  const Result<RequestId> id = (*engine)->submit(request, sink);
  ASSERT_TRUE(id.ok()) << id.status().message();
  ASSERT_TRUE(sink->wait_ended(1));
  EXPECT_EQ(sink->choice(*id).token_ids.size(), 4u);
}

TEST_F(EngineDtype, CudaServesInFloat16) {
  if (!cuda_is_emulated() && !cuda_available()) GTEST_SKIP() << "no CUDA device";
  const auto engine = make(on_device(dummy("float16"), cuda()));
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  EXPECT_EQ((*engine)->info().kv_cache_dtype, "float16");
  EXPECT_THAT((*engine)->info().device, HasSubstr("float16"));
  Request request;
  request.prompt_token_ids = {1, 2, 3};
  request.sampling.max_tokens = 4;
  request.sampling.ignore_eos = true;
  auto sink = std::make_shared<CollectingSink>();
  const Result<RequestId> id = (*engine)->submit(request, sink);
  ASSERT_TRUE(id.ok()) << id.status().message();
  ASSERT_TRUE(sink->wait_ended(1));
  EXPECT_EQ(sink->choice(*id).token_ids.size(), 4u);
}

TEST_F(EngineDtype, CudaRefusesWhatItHasNot) {
  if (!cuda_is_emulated() && !cuda_available()) GTEST_SKIP() << "no CUDA device";
  EngineConfig config = on_device(dummy("float16"), cuda());
  config.model.dtype = "float32";
  EXPECT_THAT(refusal(config).message(),
              HasSubstr("computes in bfloat16 or float16, not in float32: use --dtype auto"));
  config.model.dtype = "auto";
  config.cache.kv_cache_dtype = "bfloat16";
  EXPECT_THAT(refusal(config).message(),
              AllOf(HasSubstr("float16, not in bfloat16"), HasSubstr("use --kv-cache-dtype auto or float16")));
  config.cache.kv_cache_dtype = "int8";
  EXPECT_THAT(refusal(config).message(),
              AllOf(HasSubstr("float16, not in int8"), HasSubstr("use --kv-cache-dtype auto or float16")));
  config.cache.kv_cache_dtype = "bfloat16";
  config.model.dtype = "bfloat16";
  EXPECT_TRUE(make(config).ok());
}

}  // namespace
}  // namespace sextant

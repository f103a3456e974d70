// FP8 checkpoints in every form, written by the test and run by every backend, against the same model with its weights
// dequantised to fp32 on the CPU's fp32 path.
#include <cmath>
#include <cstring>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "engine/engine.h"
#include "engine/model/memory_model.h"
#include "kernels/ref/reference.h"
#include "tests/support/collecting_sink.h"
#include "tests/support/parallel_model.h"
#include "tests/support/random_seed.h"
#include "tests/support/scratch_directory.h"

#if defined(SEXTANT_SIMT)
#include "kernels/simt/runtime.h"
#endif

namespace sextant {
namespace {

using nlohmann::json;
using testing_support::LoadedModel;
using testing_support::ParallelModel;
namespace ref = kernels::ref;

constexpr int64_t kHidden = 256, kInner = 384, kHeads = 4, kKvHeads = 2, kHeadDim = 64, kVocab = 320, kLayers = 2;

enum class Form { kTensor, kChannel, kBlock };

// A safetensors file: u64 length of the header, the header, the bytes.
class SafetensorsWriter {
 public:
  void add(const std::string& name, const std::string& dtype, std::vector<int64_t> shape, const void* data,
           size_t bytes) {
    header_[name] = {{"dtype", dtype}, {"shape", shape}, {"data_offsets", {data_.size(), data_.size() + bytes}}};
    data_.append(static_cast<const char*>(data), bytes);
  }
  std::string text() const {
    std::string header = header_.dump();
    header.resize((header.size() + 7) / 8 * 8, ' ');
    const uint64_t length = header.size();
    std::string out(8, 0);
    std::memcpy(out.data(), &length, 8);
    return out + header + data_;
  }

 private:
  json header_ = json::object();
  std::string data_;
};

json plain_config() {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"dtype", "bfloat16"},
          {"hidden_size", kHidden},
          {"intermediate_size", kInner},
          {"num_hidden_layers", kLayers},
          {"num_attention_heads", kHeads},
          {"num_key_value_heads", kKvHeads},
          {"head_dim", kHeadDim},
          {"vocab_size", kVocab},
          {"max_position_embeddings", 128},
          {"rms_norm_eps", 1e-5},
          {"tie_word_embeddings", false},
          {"bos_token_id", 1},
          {"eos_token_id", 2}};
}
json quantization_config(Form form) {
  if (form == Form::kChannel) {
    return {
        {"quant_method", "compressed-tensors"},
        {"format", "float-quantized"},
        {"config_groups",
         {{"group_0",
           {{"targets", {"Linear"}}, {"weights", {{"num_bits", 8}, {"type", "float"}, {"strategy", "channel"}}}}}}}};
  }
  json config = {{"quant_method", "fp8"}, {"activation_scheme", "dynamic"}};
  if (form == Form::kBlock) config["weight_block_size"] = {128, 128};
  return config;
}

// The same random model twice: FP8 with scales, and what that means in fp32.
struct Checkpoints {
  explicit Checkpoints(Form form, uint64_t seed) : random(seed) {
    add_plain("model.embed_tokens.weight", kVocab, kHidden, 1.0f);
    add_plain("lm_head.weight", kVocab, kHidden, 1.0f / 16);
    add_ones("model.norm.weight");
    for (int64_t layer = 0; layer < kLayers; ++layer) {
      const std::string prefix = "model.layers." + std::to_string(layer) + ".";
      add_ones(prefix + "input_layernorm.weight");
      add_ones(prefix + "post_attention_layernorm.weight");
      add_fp8(prefix + "self_attn.q_proj.weight", kHeads * kHeadDim, kHidden, form);
      add_fp8(prefix + "self_attn.k_proj.weight", kKvHeads * kHeadDim, kHidden, form);
      add_fp8(prefix + "self_attn.v_proj.weight", kKvHeads * kHeadDim, kHidden, form);
      add_fp8(prefix + "self_attn.o_proj.weight", kHidden, kHeads * kHeadDim, form);
      add_fp8(prefix + "mlp.gate_proj.weight", kInner, kHidden, form);
      add_fp8(prefix + "mlp.up_proj.weight", kInner, kHidden, form);
      add_fp8(prefix + "mlp.down_proj.weight", kHidden, kInner, form);
    }
    json config = plain_config();
    fp32_directory.write("config.json", config.dump());
    fp32_directory.write("model.safetensors", fp32.text());
    config["quantization_config"] = quantization_config(form);
    fp8_directory.write("config.json", config.dump());
    fp8_directory.write("model.safetensors", fp8.text());
  }
  void add_ones(const std::string& name) {
    const std::vector<float> ones(kHidden, 1);
    fp8.add(name, "F32", {kHidden}, ones.data(), ones.size() * 4);
    fp32.add(name, "F32", {kHidden}, ones.data(), ones.size() * 4);
  }
  // bf16 in both.
  void add_plain(const std::string& name, int64_t rows, int64_t cols, float deviation) {
    std::vector<uint16_t> values;
    std::normal_distribution<float> normal(0, deviation);
    for (int64_t i = 0; i < rows * cols; ++i) values.push_back(ref::bf16_of_f32(normal(random)));
    fp8.add(name, "BF16", {rows, cols}, values.data(), values.size() * 2);
    fp32.add(name, "BF16", {rows, cols}, values.data(), values.size() * 2);
  }
  void add_fp8(const std::string& name, int64_t rows, int64_t cols, Form form) {
    const int64_t block_rows = form == Form::kTensor ? rows : form == Form::kChannel ? 1 : 128;
    const int64_t block_cols = form == Form::kBlock ? 128 : cols;
    const int64_t scales_per_row = (cols + block_cols - 1) / block_cols;
    // Outputs as large as inputs: weights of deviation 1 / sqrt(cols), in units of a scale that differs from block to block.
    std::vector<float> scales(static_cast<size_t>((rows + block_rows - 1) / block_rows * scales_per_row));
    for (float& scale : scales) {
      scale = std::uniform_real_distribution<float>(0.5f, 2.0f)(random) / 100;
      if (form == Form::kChannel) scale = ref::f32_of_bf16(ref::bf16_of_f32(scale));
    }
    std::vector<uint8_t> bytes;
    std::vector<float> values;
    std::normal_distribution<float> normal(0, 1 / std::sqrt(static_cast<float>(cols)));
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) {
        const float scale = scales[static_cast<size_t>(r / block_rows * scales_per_row + c / block_cols)];
        bytes.push_back(ref::e4m3_of_f32(normal(random) / scale));
        values.push_back(ref::f32_of_e4m3(bytes.back()) * scale);
      }
    }
    fp8.add(name, "F8_E4M3", {rows, cols}, bytes.data(), bytes.size());
    fp32.add(name, "F32", {rows, cols}, values.data(), values.size() * 4);
    switch (form) {
      case Form::kTensor: fp8.add(name + "_scale", "F32", {}, scales.data(), 4); break;
      case Form::kBlock:
        fp8.add(name + "_scale_inv", "F32", {(rows + 127) / 128, scales_per_row}, scales.data(), scales.size() * 4);
        break;
      case Form::kChannel: {
        std::vector<uint16_t> halves;
        for (const float scale : scales) halves.push_back(ref::bf16_of_f32(scale));
        fp8.add(name + "_scale", "BF16", {rows, 1}, halves.data(), halves.size() * 2);
      }
    }
  }

  std::mt19937_64 random;
  SafetensorsWriter fp8, fp32;
  ScratchDirectory fp8_directory, fp32_directory;
};

using Logits = std::vector<std::vector<float>>;

// A prompt in two chunks, then single tokens: every path of a product by the number of tokens.
Logits run(const std::string& path, const char* device, DType kv_dtype, int num_ranks = 1) {
  LoadedModel::Options options = {
      .kv_dtype = kv_dtype, .num_blocks = 40, .max_num_batched_tokens = 64, .num_threads = 2, .device = device};
  if (kv_dtype != DType::kFloat32) options.activation = kv_dtype;
  const auto model = ParallelModel::open(path, num_ranks, options);
  Logits logits;
  int32_t next = 7;
  for (const size_t tokens : {17, 5, 2, 1, 1}) {
    std::vector<int32_t> ids;
    for (size_t i = 0; i < tokens; ++i) ids.push_back(next = (next * 131 + 17) % kVocab);
    const Logits rows = model->step({{0, ids}})[0];
    logits.insert(logits.end(), rows.begin(), rows.end());
  }
  return logits;
}

// ||a - b|| / ||b||
double relative_error(const Logits& a, const Logits& b) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    for (size_t j = 0; j < b[i].size(); ++j) {
      difference += std::pow(static_cast<double>(a[i][j]) - static_cast<double>(b[i][j]), 2);
      size += std::pow(static_cast<double>(b[i][j]), 2);
    }
  }
  return std::sqrt(difference / size);
}

// Seven roundings to bf16 in a layer (normed twice, q k v, attended, projected twice, gate and up, activated: one beside the other
// for two of these), each at most 2^-9 of its vector, and the last norm's; random weights keep relative errors as they are.
constexpr double kBf16Bound = (8 * kLayers + 1) * 0x1p-9;

// More than they come to, errors being of both signs: what tells one from the other below.
constexpr double kBf16Error = kBf16Bound / 4;
// The inputs of four products in a layer are rounded to four bits of significand: each by at most 2^-4, and, errors being spread evenly
// up to that at worst, by 2^-4 / sqrt(3) of its vector; the four of each layer are independent.
const double kW8A8Bound = kBf16Bound + std::sqrt(4.0 * kLayers) * 0x1p-4 / std::sqrt(3.0);

// Whether tensor cores of this compute capability take e4m3 with such scales, so that more than four tokens are rounded to it.
bool rounds_activations(int compute_capability, Form form) {
  return compute_capability == 90 || (compute_capability >= 89 && form == Form::kTensor);
}
// Of the device, or of the emulated one.
int compute_capability() {
  const Result<CudaDevice> device = open_cuda_device();
  EXPECT_TRUE(device.ok()) << device.status().message();
  return device->compute_capability();
}

struct Case {
  Form form;
  const char* name;
};
class Fp8Model : public testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Forms, Fp8Model,
                         testing::Values(Case{Form::kTensor, "Tensor"}, Case{Form::kChannel, "Channel"},
                                         Case{Form::kBlock, "Block"}),
                         [](const auto& test) { return test.param.name; });

TEST_P(Fp8Model, AgreesWithTheDequantisedModel) {
  const uint64_t seed = random_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  const Checkpoints checkpoints(GetParam().form, seed);
  const Logits expected = run(checkpoints.fp32_directory.path(), "cpu", DType::kFloat32);
  // The CPU keeps e4m3 times its scale in bf16: one rounding of each weight.
  const double on_cpu = relative_error(run(checkpoints.fp8_directory.path(), "cpu", DType::kFloat32), expected);
  EXPECT_LT(on_cpu, 7 * kLayers * 0x1p-9);
  EXPECT_GT(on_cpu, 0);
  const double on_cuda = relative_error(
      run(checkpoints.fp8_directory.path(), testing_support::cuda_device_name(), DType::kBFloat16), expected);
  EXPECT_LT(on_cuda, rounds_activations(compute_capability(), GetParam().form) ? kW8A8Bound : kBf16Bound);
  std::printf("relative error of the logits: %.5f on the CPU, %.5f on CUDA\n", on_cpu, on_cuda);
  // In fp16 every rounding but those to e4m3 is an eighth of bf16's. On two ranks, which blocks of 128 x 128 do not allow here, both
  // projections of a layer come in two parts, each rounded.
  const int num_ranks = GetParam().form != Form::kBlock && testing_support::has_cuda_devices(2) ? 2 : 1;
  const double in_fp16 = relative_error(
      run(checkpoints.fp8_directory.path(), testing_support::cuda_device_name(), DType::kFloat16, num_ranks), expected);
  std::printf("relative error of the logits: %.5f in fp16 on %d ranks\n", in_fp16, num_ranks);
  const double of_rounding = (kBf16Bound + 2 * (num_ranks - 1) * kLayers * 0x1p-9) / 8;
  EXPECT_LT(in_fp16, rounds_activations(compute_capability(), GetParam().form) ? kW8A8Bound : of_rounding);
#if defined(SEXTANT_SIMT)
  // Where tensor cores take e4m3: on 8.9 with one scale for the tensor, on 9.0 always.
  for (const simt::DeviceProfile* profile : {&simt::profile_sm_89(), &simt::profile_sm_90()}) {
    simt::Machine machine;
    machine.profile = *profile;
    simt::set_machine(machine);
    const double error =
        relative_error(run(checkpoints.fp8_directory.path(), "cuda-emulated", DType::kBFloat16), expected);
    simt::set_machine(simt::machine_from_environment());
    std::printf("relative error of the logits: %.5f on %s\n", error, profile->name);
    const bool rounds_x = rounds_activations(10 * profile->major + profile->minor, GetParam().form);
    EXPECT_LT(error, rounds_x ? kW8A8Bound : kBf16Bound) << profile->name;
    EXPECT_EQ(error > 2 * kBf16Error, rounds_x) << profile->name;
  }
#endif
}

// What the plan says before loading is what the weights then take.
TEST_P(Fp8Model, IsServedAndItsBytesArePlanned) {
  const Checkpoints checkpoints(GetParam().form, 1);
  for (const char* device : {"cpu", testing_support::cuda_device_name()}) {
    EngineConfig config;
    config.model.model = checkpoints.fp8_directory.path();
    config.device.device = device;
    config.cache.kv_cache_memory_bytes = 1 << 20;
    config.scheduler.max_num_seqs = 4;
    config.scheduler.max_num_batched_tokens = 32;
    std::string plan;
    Result<std::unique_ptr<Engine>> engine = Engine::create(
        {.config = config, .eos_token_ids = {}, .on_step = {}, .on_memory_plan = [&](const std::string& text) {
           plan = text;
         }});
    ASSERT_TRUE(engine.ok()) << engine.status().message();
    EXPECT_EQ((*engine)->info().weight_type, "F8_E4M3");
    const auto weight_bytes = static_cast<uint64_t>((*engine)->info().weight_bytes);
    // Embedding and head, norms; bf16 on the CPU, on CUDA e4m3 with 32 scales of fp32 for 32 rows x 128 columns, or fewer.
    const bool on_cpu = std::string_view(device) == "cpu";
    const int64_t quantised = kLayers * (kHidden * (kHeads * 2 + kKvHeads * 2) * kHeadDim + 3 * kHidden * kInner);
    const int64_t others = 2 * 2 * kVocab * kHidden + 4 * kHidden * (2 * kLayers + 1);
    const int64_t expected = others + (on_cpu ? 2 * quantised : quantised + quantised / 128 * 4);
    EXPECT_THAT(plan, testing::HasSubstr(format_bytes(static_cast<uint64_t>(expected)))) << device;
    if (!on_cpu && rounds_activations(compute_capability(), GetParam().form)) {
      EXPECT_LT(static_cast<int64_t>(weight_bytes), expected);
      EXPECT_GT(static_cast<int64_t>(weight_bytes), others + quantised);
    } else {
      EXPECT_EQ(static_cast<int64_t>(weight_bytes), expected) << device;
    }

    auto sink = std::make_shared<testing_support::CollectingSink>();
    Request request;
    request.prompt_token_ids = {5, 6, 7, 8};
    request.sampling.max_tokens = 4;
    request.sampling.temperature = 0;
    request.sampling.ignore_eos = true;
    const auto id = (*engine)->submit(std::move(request), sink);
    ASSERT_TRUE(id.ok()) << id.status().message();
    ASSERT_TRUE(sink->wait_ended(1));
    EXPECT_EQ(sink->choice(*id).token_ids.size(), 4u);
  }
}

TEST(Fp8ModelErrors, AreNamed) {
  const Checkpoints checkpoints(Form::kTensor, 1);
  const auto message = [&](const char* device) {
    EngineConfig config;
    config.model.model = checkpoints.fp8_directory.path();
    config.device.device = device;
    config.cache.kv_cache_memory_bytes = 1 << 20;
    return Engine::create({.config = config, .eos_token_ids = {}, .on_step = {}, .on_memory_plan = {}})
        .status()
        .message();
  };
  json config = plain_config();
  config["quantization_config"] = {{"quant_method", "fp8"}, {"fmt", "e5m2"}};
  checkpoints.fp8_directory.write("config.json", config.dump());
  EXPECT_THAT(message("cpu"), testing::AllOf(testing::HasSubstr("fp8"), testing::HasSubstr("known: e4m3")));

  // Weights that are not what the configuration says.
  const auto with_matrix = [&](const std::string& dtype, uint8_t byte) {
    SafetensorsWriter writer;
    const std::vector<uint8_t> bytes(kVocab * kHidden, byte);
    const float scale = 1;
    writer.add("model.embed_tokens.weight", dtype, {kVocab, kHidden}, bytes.data(), bytes.size());
    if (byte != 0) writer.add("model.embed_tokens.weight_scale", "F32", {1}, &scale, 4);
    config["quantization_config"] = quantization_config(Form::kTensor);
    checkpoints.fp8_directory.write("config.json", config.dump());
    checkpoints.fp8_directory.write("model.safetensors", writer.text());
  };
  for (const char* device : {"cpu", testing_support::cuda_device_name()}) {
    with_matrix("F8_E5M2", 1);
    EXPECT_THAT(message(device), testing::HasSubstr("does not compute with weights of type F8_E5M2")) << device;
    with_matrix("F8_E4M3", 0);
    EXPECT_THAT(message(device), testing::HasSubstr("its scale is missing")) << device;
  }
  with_matrix("F8_E4M3", 0x7f);
  EXPECT_THAT(message(testing_support::cuda_device_name()), testing::HasSubstr("not a number"));
}

}  // namespace
}  // namespace sextant

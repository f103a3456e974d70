#include "engine/format/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>
#include <filesystem>
#include <random>

#include "tests/support/gguf_builder.h"
#include "tests/support/memory_file.h"
#include "tests/support/random_seed.h"
#include "tests/support/scratch_directory.h"

namespace sextant {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string safetensors(const std::string& header, const std::string& data) {
  return GgufBuilder::number<uint64_t>(header.size()) + header + data;
}

const char kValidHeader[] = R"({"__metadata__":{"format":"pt"},)"
                            R"("b":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},)"
                            R"("a":{"dtype":"F32","shape":[2],"data_offsets":[12,20]},)"
                            R"("s":{"dtype":"I64","shape":[],"data_offsets":[20,28]},)"
                            R"("z":{"dtype":"F16","shape":[0,4],"data_offsets":[28,28]}})";

class SafetensorsTest : public ::testing::Test {
 protected:
  std::string error_of(const std::string& header, const std::string& data) {
    const auto source = SafetensorsSource::open(scratch_.write("model.safetensors", safetensors(header, data)));
    EXPECT_FALSE(source.ok()) << header;
    return source.ok() ? "" : source.status().message();
  }
  ScratchDirectory scratch_;
};

TEST_F(SafetensorsTest, ReadsTensors) {
  const auto opened = SafetensorsSource::open(
      scratch_.write("model.safetensors", safetensors(kValidHeader, std::string(12, '\1') + std::string(16, '\2'))));
  ASSERT_TRUE(opened.ok()) << opened.status().message();
  const SafetensorsSource& source = **opened;
  ASSERT_EQ(source.tensors().size(), 4u);
  const TensorInfo* b = source.find("b");
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(b->type, WeightType::kBF16);
  EXPECT_THAT(b->shape, ElementsAre(2, 3));
  EXPECT_EQ(b->offset, 8 + sizeof(kValidHeader) - 1);
  std::vector<std::byte> data(b->num_bytes);
  ASSERT_TRUE(source.read(*b, data).ok());
  EXPECT_THAT(data, ::testing::Each(std::byte{1}));
  EXPECT_THAT(source.find("s")->shape, ElementsAre());
  EXPECT_EQ(source.find("s")->num_elements(), 1u);
  EXPECT_EQ(source.find("z")->num_bytes, 0u);
  EXPECT_EQ(source.find("__metadata__"), nullptr);
}

TEST_F(SafetensorsTest, KnowsTheFormatsTypes) {
  for (const auto& [name, bytes] : std::vector<std::pair<std::string, int>>{{"F64", 8},
                                                                            {"F32", 4},
                                                                            {"F16", 2},
                                                                            {"BF16", 2},
                                                                            {"F8_E4M3", 1},
                                                                            {"F8_E5M2", 1},
                                                                            {"I64", 8},
                                                                            {"I32", 4},
                                                                            {"I16", 2},
                                                                            {"I8", 1},
                                                                            {"U64", 8},
                                                                            {"U32", 4},
                                                                            {"U16", 2},
                                                                            {"U8", 1},
                                                                            {"BOOL", 1}}) {
    const std::string header =
        R"({"t":{"dtype":")" + name + R"(","shape":[1],"data_offsets":[0,)" + std::to_string(bytes) + "]}}";
    const auto source =
        SafetensorsSource::open(scratch_.write("model.safetensors", safetensors(header, std::string(bytes, 'x'))));
    ASSERT_TRUE(source.ok()) << source.status().message();
    EXPECT_EQ(weight_type_name((*source)->find("t")->type), name);
  }
  EXPECT_THAT(error_of(R"({"t":{"dtype":"Q4_0","shape":[32],"data_offsets":[0,18]}})", std::string(18, 'x')),
              HasSubstr("tensor 't': dtype 'Q4_0' is not known"));
}

TEST_F(SafetensorsTest, RefusesHostileHeaders) {
  EXPECT_THAT(error_of("[1]", ""), HasSubstr("the header is no JSON object"));
  EXPECT_THAT(error_of(R"({"t":)", ""), HasSubstr("model.safetensors: header after byte 8: line 1"));
  EXPECT_THAT(error_of(R"({"t":{},"t":{}})", ""), HasSubstr("key 't' occurs twice"));
  EXPECT_THAT(error_of("{\"t\":" + std::string(100, '['), ""), HasSubstr("nested deeper than 4 levels"));
  EXPECT_THAT(error_of(R"({"t":7})", ""), HasSubstr("its entry is no object"));
  EXPECT_THAT(error_of(R"({"t":{"shape":[1],"data_offsets":[0,4]}})", "xxxx"), HasSubstr("dtype is missing"));
  EXPECT_THAT(error_of(R"({"t":{"dtype":"F32","data_offsets":[0,4]}})", "xxxx"), HasSubstr("shape is missing"));
  EXPECT_THAT(error_of(R"({"t":{"dtype":"F32","shape":[1]}})", "xxxx"), HasSubstr("data_offsets is missing"));
  EXPECT_THAT(error_of(R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}})", "xxxx"),
              HasSubstr("data_offsets"));
  EXPECT_THAT(error_of(R"({"t":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", "xxxx"),
              HasSubstr("impossible dimension '-1'"));
  EXPECT_THAT(error_of(R"({"t":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}})", "xxxx"),
              HasSubstr("impossible dimension"));
  EXPECT_THAT(error_of(R"({"t":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}})", "xxxx"),
              HasSubstr("overflows"));
  EXPECT_THAT(error_of(R"({"t":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}})", ""),
              HasSubstr("overflows"));
  EXPECT_THAT(error_of(R"({"t":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,0]}})", ""),
              HasSubstr("impossible"));
  EXPECT_THAT(error_of(R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", "xxxx"),
              HasSubstr("do not match [2] F32"));
  EXPECT_THAT(error_of(R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", "xxxx"), HasSubstr("do not match"));
  EXPECT_THAT(
      error_of(R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[18446744073709551612,18446744073709551616]}})",
               "xxxx"),
      HasSubstr("data_offsets"));
  EXPECT_THAT(error_of(R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", "xxxx"), HasSubstr("cut short"));
  EXPECT_THAT(error_of(R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", "xxxxyyyy"),
              HasSubstr("hole of 4 bytes"));
  EXPECT_THAT(error_of(R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "xxxxyyyy"),
              HasSubstr("4 bytes belong to no tensor"));
  EXPECT_THAT(
      error_of(
          R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}})",
          "xxxxyy"),
      HasSubstr("overlaps"));
  EXPECT_THAT(error_of(R"({"":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "xxxx"),
              HasSubstr("its name has 0 bytes"));
  EXPECT_THAT(error_of(R"({"__metadata__":3})", ""), HasSubstr("__metadata__ is no object"));
}

TEST_F(SafetensorsTest, RefusesFilesThatAreSomethingElse) {
  for (const std::string& bytes : {std::string(), std::string("short"),
                                   std::string("<!DOCTYPE html><html>Not found</html>"), std::string(8, '\0')}) {
    const auto source = SafetensorsSource::open(scratch_.write("x.safetensors", bytes));
    ASSERT_FALSE(source.ok());
    EXPECT_THAT(source.status().message(), HasSubstr("x.safetensors: at byte 0: "));
  }
}

TEST_F(SafetensorsTest, EveryPrefixIsAnError) {
  const std::string bytes = safetensors(kValidHeader, std::string(28, 'x'));
  MemoryFile memory(bytes);
  ASSERT_TRUE(SafetensorsSource::open(memory.path()).ok());
  for (size_t length = bytes.size(); length-- > 0;) {
    ASSERT_TRUE(memory.truncate(length));
    const auto source = SafetensorsSource::open(memory.path());
    ASSERT_FALSE(source.ok()) << "the first " << length << " bytes were accepted";
    ASSERT_EQ(source.status().code(), StatusCode::kDataLoss) << source.status().message();
  }
}

TEST_F(SafetensorsTest, AnyKindOfDamageGivesAFileOrAnError) {
  const uint64_t seed = random_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(static_cast<uint32_t>(seed));
  const std::string valid = safetensors(kValidHeader, std::string(28, 'x'));
  MemoryFile memory;
  for (int round = 0; round < 10000; ++round) {
    std::string bytes = valid;
    for (uint32_t i = 0; i <= random() % 4; ++i) bytes[random() % bytes.size()] = static_cast<char>(random());
    ASSERT_TRUE(memory.write(bytes));
    const auto source = SafetensorsSource::open(memory.path());
    if (!source.ok()) continue;
    for (const TensorInfo& info : (*source)->tensors()) {
      std::vector<std::byte> data(info.num_bytes);
      ASSERT_TRUE((*source)->read(info, data).ok());
    }
  }
}

TEST_F(SafetensorsTest, AFileCutShortAfterOpeningIsAnError) {
  const std::string path = scratch_.write("model.safetensors", safetensors(kValidHeader, std::string(28, 'x')));
  const auto source = SafetensorsSource::open(path);
  ASSERT_TRUE(source.ok());
  ASSERT_EQ(::truncate(path.c_str(), 20), 0);
  std::vector<std::byte> data(12);
  const Status status = (*source)->read(*(*source)->find("b"), data);
  EXPECT_EQ(status.code(), StatusCode::kDataLoss);
  EXPECT_THAT(status.message(), HasSubstr("became shorter while it was read"));
}

// Two shards with one tensor each.
class ShardsTest : public SafetensorsTest {
 protected:
  void SetUp() override {
    scratch_.write("model-00001-of-00002.safetensors",
                   safetensors(R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}})", "AAA"));
    scratch_.write("model-00002-of-00002.safetensors",
                   safetensors(R"({"b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", "BB"));
    write_index(R"({"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}})");
  }
  void write_index(const std::string& text) { scratch_.write("model.safetensors.index.json", text); }
  std::string directory_error() {
    const auto source = SafetensorsSource::open(scratch_.path());
    EXPECT_FALSE(source.ok());
    return source.status().message();
  }
};

TEST_F(ShardsTest, ReadsAllShards) {
  const auto source = SafetensorsSource::open(scratch_.path());
  ASSERT_TRUE(source.ok()) << source.status().message();
  EXPECT_EQ((*source)->num_files(), 2u);
  std::string text(2, ' ');
  ASSERT_TRUE((*source)->read(*(*source)->find("b"), std::as_writable_bytes(std::span(text.data(), 2))).ok());
  EXPECT_EQ(text, "BB");
  ASSERT_TRUE((*source)->read_range(*(*source)->find("a"), 1, std::as_writable_bytes(std::span(text.data(), 2))).ok());
  EXPECT_EQ(text, "AA");
}

TEST_F(ShardsTest, NamesMissingShards) {
  std::filesystem::remove(scratch_.file("model-00002-of-00002.safetensors"));
  EXPECT_THAT(directory_error(), HasSubstr("1 of 2 shards are missing: 'model-00002-of-00002.safetensors'"));
}

TEST_F(ShardsTest, RefusesNamesThatLeaveTheDirectory) {
  for (const char* name : {"../x.safetensors", "/etc/x.safetensors", "a/b.safetensors", "..", "",
                           "x\\u0000.safetensors", "a\\\\b.safetensors", "model.bin"}) {
    write_index(std::string(R"({"weight_map":{"a":")") + name + R"("}})");
    EXPECT_THAT(directory_error(), HasSubstr("a .safetensors file in the same directory is needed")) << name;
  }
}

TEST_F(ShardsTest, RefusesIndicesThatAreWrong) {
  for (const char* text : {"{}", "[]", R"({"weight_map":{}})", R"({"weight_map":[]})"}) {
    write_index(text);
    EXPECT_THAT(directory_error(), HasSubstr("weight_map is missing, empty or no object")) << text;
  }
  write_index(R"({"weight_map":{"a":"model-00002-of-00002.safetensors"}})");
  EXPECT_THAT(directory_error(), HasSubstr("tensor 'a' is not in model-00002-of-00002.safetensors"));
  write_index("{\n  \"weight_map\": {\"a\": nul}}");
  EXPECT_THAT(directory_error(), HasSubstr("model.safetensors.index.json: line 2, column 26 (byte 27)"));
}

TEST_F(ShardsTest, RefusesATensorInTwoShards) {
  scratch_.write("model-00002-of-00002.safetensors",
                 safetensors(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", "BB"));
  EXPECT_THAT(directory_error(), HasSubstr("tensor 'a' is also in"));
}

TEST_F(SafetensorsTest, DirectoriesWithoutWeightsSayWhatWasLookedFor) {
  EXPECT_THAT(SafetensorsSource::open(scratch_.path()).status().message(),
              HasSubstr("looked for model.safetensors and model.safetensors.index.json"));
  scratch_.write("weights.safetensors", safetensors(kValidHeader, std::string(28, 'x')));
  EXPECT_TRUE(SafetensorsSource::open(scratch_.path()).ok()) << "one file of another name";
  scratch_.write("more.safetensors", safetensors(kValidHeader, std::string(28, 'x')));
  EXPECT_THAT(SafetensorsSource::open(scratch_.path()).status().message(), HasSubstr("no index that says which"));
}

TEST(SafetensorsGolden, TinyLlama) {
  const auto source = SafetensorsSource::open(std::string(SEXTANT_TEST_DATA) + "/golden/tiny/llama");
  ASSERT_TRUE(source.ok()) << source.status().message();
  const TensorInfo* embedding = (*source)->find("model.embed_tokens.weight");
  ASSERT_NE(embedding, nullptr);
  EXPECT_THAT(embedding->shape, ElementsAre(320, 64));
  EXPECT_EQ(embedding->type, WeightType::kBF16);
}

}  // namespace
}  // namespace sextant

#include "engine/format/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>
#include <atomic>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <random>
#include <thread>

#include "tests/support/gguf_builder.h"
#include "tests/support/memory_file.h"
#include "tests/support/random_seed.h"
#include "tests/support/scratch_directory.h"

namespace sextant {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A file with a value of every type, two arrays and tensors of three types.
GgufBuilder every_kind() {
  GgufBuilder builder;
  builder.string("general.architecture", "llama")
      .raw("u8", GgufBuilder::kUint8, GgufBuilder::number<uint8_t>(200))
      .raw("i8", GgufBuilder::kInt8, GgufBuilder::number<int8_t>(-100))
      .raw("u16", GgufBuilder::kUint16, GgufBuilder::number<uint16_t>(60000))
      .raw("i16", GgufBuilder::kInt16, GgufBuilder::number<int16_t>(-30000))
      .u32("u32", 4000000000u)
      .raw("i32", GgufBuilder::kInt32, GgufBuilder::number<int32_t>(-2000000000))
      .raw("u64", GgufBuilder::kUint64, GgufBuilder::number<uint64_t>(UINT64_MAX))
      .raw("i64", GgufBuilder::kInt64, GgufBuilder::number<int64_t>(INT64_MIN))
      .f32("f32", 0.25f)
      .raw("f64", GgufBuilder::kFloat64, GgufBuilder::number<double>(1e300))
      .boolean("yes", true)
      .boolean("no", false)
      .strings("tokens", {"a", "", "\xff\x00z"})
      .array<int32_t>("types", GgufBuilder::kInt32, {1, -2, 3})
      .array<float>("scores", GgufBuilder::kFloat32, {0.5f, -1.0f})
      .tensor("f32", {3, 2}, 0, std::string("\0\0\x80\x3f", 4) + std::string(20, '\1'))
      .tensor("bf16", {5}, 30, std::string(10, '\2'))
      .tensor("q4_1", {64, 3}, 3, std::string(120, '\3'));
  return builder;
}

class GgufTest : public ::testing::Test {
 protected:
  Result<std::unique_ptr<GgufFile>> open(const std::string& bytes) {
    return GgufFile::open(scratch_.write("model.gguf", bytes));
  }
  std::string error_of(const std::string& bytes) {
    const Result<std::unique_ptr<GgufFile>> file = open(bytes);
    EXPECT_FALSE(file.ok());
    return file.status().message();
  }
  ScratchDirectory scratch_;
};

TEST_F(GgufTest, ReadsMetadataOfEveryType) {
  const auto opened = open(every_kind().build());
  ASSERT_TRUE(opened.ok()) << opened.status().message();
  const GgufFile& file = **opened;
  EXPECT_EQ(file.version(), 3u);
  EXPECT_EQ(file.keys().size(), 16u);
  EXPECT_EQ(*file.get_string("general.architecture"), "llama");
  EXPECT_EQ(*file.get_int("u8", 0, 255), 200);
  EXPECT_EQ(*file.get_int("i8", -128, 127), -100);
  EXPECT_EQ(*file.get_int("u16", 0, 65535), 60000);
  EXPECT_EQ(*file.get_int("i16", -40000, 0), -30000);
  EXPECT_EQ(*file.get_int("u32", 0, INT64_MAX), 4000000000);
  EXPECT_EQ(*file.get_int("i32", INT64_MIN, 0), -2000000000);
  EXPECT_EQ(*file.get_int("i64", INT64_MIN, 0), INT64_MIN);
  EXPECT_EQ(*file.get_float("f32"), 0.25);
  EXPECT_EQ(*file.get_float("f64"), 1e300);
  EXPECT_EQ(*file.get_float("u8"), 200.0);
  EXPECT_TRUE(*file.get_bool("yes"));
  EXPECT_FALSE(*file.get_bool("no"));
  EXPECT_THAT(*file.get_strings("tokens"), ElementsAre("a", "", std::string("\xff\x00z", 1)));
  EXPECT_THAT(*file.get_ints("types"), ElementsAre(1, -2, 3));
  EXPECT_THAT(*file.get_floats("scores"), ElementsAre(0.5, -1.0));
  EXPECT_THAT(*file.get_floats("types"), ElementsAre(1.0, -2.0, 3.0));
  EXPECT_EQ(file.array_length("tokens"), 3u);
  EXPECT_EQ(file.array_length("u8"), 0u);
  EXPECT_EQ(file.array_length("absent"), 0u);
}

TEST_F(GgufTest, GettersNameFileKeyAndWhatIsWrong) {
  const auto opened = open(every_kind().build());
  ASSERT_TRUE(opened.ok());
  const GgufFile& file = **opened;
  EXPECT_EQ(file.get_int("absent", 0, 1).status().code(), StatusCode::kNotFound);
  EXPECT_THAT(file.get_int("absent", 0, 1).status().message(),
              HasSubstr("model.gguf: metadata key 'absent' is missing"));
  EXPECT_THAT(file.get_int("u8", 0, 100).status().message(), HasSubstr("'u8' is 200, expected 0 to 100"));
  EXPECT_THAT(file.get_int("u64", 0, INT64_MAX).status().message(), HasSubstr("'u64' is 18446744073709551615"));
  EXPECT_THAT(file.get_int("f32", 0, 1).status().message(), HasSubstr("'f32' has type float32, expected an integer"));
  EXPECT_THAT(file.get_int("yes", 0, 1).status().message(), HasSubstr("has type bool"));
  EXPECT_THAT(file.get_string("u8").status().message(), HasSubstr("has type uint8, expected string"));
  EXPECT_THAT(file.get_float("tokens").status().message(), HasSubstr("has type array of string"));
  EXPECT_THAT(file.get_ints("tokens").status().message(), HasSubstr("expected array of integers"));
  EXPECT_THAT(file.get_ints("scores").status().message(), HasSubstr("expected array of integers"));
  EXPECT_THAT(file.get_strings("types").status().message(), HasSubstr("expected array of strings"));
  EXPECT_THAT(file.get_bool("u8").status().message(), HasSubstr("expected bool"));
  EXPECT_EQ(*file.get_int_or("absent", 7, 0, 1), 7);
  EXPECT_EQ(*file.get_float_or("absent", 0.5), 0.5);
  EXPECT_EQ(*file.get_string_or("absent", "x"), "x");
  EXPECT_TRUE(*file.get_bool_or("absent", true));
  EXPECT_FALSE(file.get_int_or("f32", 7, 0, 1).ok()) << "a wrong type is no absence";
}

TEST_F(GgufTest, NonFiniteNumbersAreRefusedWhenAskedFor) {
  GgufBuilder builder;
  builder.f32("nan", std::numeric_limits<float>::quiet_NaN()).f32("inf", std::numeric_limits<float>::infinity());
  const auto file = open(builder.build());
  ASSERT_TRUE(file.ok());
  EXPECT_THAT((*file)->get_float("nan").status().message(), HasSubstr("not a finite number"));
  EXPECT_THAT((*file)->get_float("inf").status().message(), HasSubstr("not a finite number"));
}

TEST_F(GgufTest, ReadsTensorsRowMajor) {
  const auto opened = open(every_kind().build());
  ASSERT_TRUE(opened.ok());
  const GgufFile& file = **opened;
  ASSERT_EQ(file.tensors().size(), 3u);
  const TensorInfo* f32 = file.find("f32");
  ASSERT_NE(f32, nullptr);
  EXPECT_THAT(f32->shape, ElementsAre(2, 3));
  EXPECT_EQ(f32->num_bytes, 24u);
  EXPECT_EQ(f32->offset % 32, 0u);
  float first = 0;
  ASSERT_TRUE(file.read_range(*f32, 0, std::as_writable_bytes(std::span(&first, 1))).ok());
  EXPECT_EQ(first, 1.0f);
  const TensorInfo* q4 = file.find("q4_1");
  ASSERT_NE(q4, nullptr);
  EXPECT_EQ(q4->type, WeightType::kQ4_1);
  EXPECT_EQ(q4->num_bytes, 120u);
  EXPECT_EQ(TensorSource::describe(*q4), "[3, 64] Q4_1");
  std::vector<std::byte> bytes(q4->num_bytes);
  ASSERT_TRUE(file.read(*q4, bytes).ok());
  EXPECT_THAT(bytes, ::testing::Each(std::byte{3}));
  EXPECT_EQ(file.find("q4_1 "), nullptr);
  EXPECT_EQ(file.total_bytes(), 24u + 10u + 120u);
}

TEST_F(GgufTest, AcceptsVersion2AndOtherAlignments) {
  GgufBuilder builder;
  builder.version = 2;
  builder.alignment = 64;
  builder.u32("general.alignment", 64).tensor("a", {1}, 24, "x").tensor("b", {1}, 24, "y");
  const auto file = open(builder.build());
  ASSERT_TRUE(file.ok()) << file.status().message();
  EXPECT_EQ((*file)->alignment(), 64u);
  EXPECT_EQ((*file)->find("b")->offset - (*file)->find("a")->offset, 64u);
}

TEST_F(GgufTest, AFileOfMetadataAloneIsValid) {
  EXPECT_TRUE(open(GgufBuilder().string("general.architecture", "llama").build()).ok());
  EXPECT_TRUE(open(GgufBuilder().build()).ok());
}

TEST_F(GgufTest, RefusesOtherFiles) {
  EXPECT_EQ(GgufFile::open(scratch_.file("absent.gguf")).status().code(), StatusCode::kNotFound);
  EXPECT_THAT(GgufFile::open(scratch_.path()).status().message(), HasSubstr("is a directory"));
  EXPECT_THAT(error_of("PK\x03\x04 some zip archive"),
              HasSubstr("at byte 0: no GGUF file: it begins with 'PK\\x03\\x04'"));
  GgufBuilder old;
  old.version = 1;
  EXPECT_THAT(error_of(old.build()), HasSubstr("GGUF version 1; versions 2 and 3 can be read"));
  GgufBuilder big_endian;
  big_endian.version = 0x03000000;
  EXPECT_THAT(error_of(big_endian.build()), HasSubstr("at byte 4: a big-endian GGUF file (version 3)"));
}

TEST_F(GgufTest, HostileHeadersGetAMessageWithTheByte) {
  {
    GgufBuilder builder = every_kind();
    builder.num_tensors = UINT64_MAX;
    EXPECT_THAT(error_of(builder.build()), HasSubstr("at byte 8: the header claims 18446744073709551615 tensors"));
    builder.num_tensors = 100;
    EXPECT_THAT(error_of(builder.build()), HasSubstr("at byte 8: the header claims 100 tensors"));
  }
  {
    GgufBuilder builder = every_kind();
    builder.num_keys = uint64_t{1} << 40;
    EXPECT_THAT(error_of(builder.build()), HasSubstr("at byte 16: the header claims 1099511627776 metadata keys"));
  }
  const std::string key_offset = "at byte 24: ";
  EXPECT_THAT(error_of(GgufBuilder().raw("k", 13, "xxxxxxxx").build()),
              HasSubstr("at byte 33: metadata key 'k' has unknown type 13"));
  EXPECT_THAT(error_of(GgufBuilder().u32("", 1).build()), HasSubstr(key_offset + "a metadata key is empty"));
  EXPECT_THAT(error_of(GgufBuilder().u32("a", 1).u32("a", 2).build()), HasSubstr("metadata key 'a' occurs twice"));
  EXPECT_THAT(error_of(GgufBuilder().raw("b", GgufBuilder::kBool, "\2").build()), HasSubstr("neither 0 nor 1"));
  EXPECT_THAT(error_of(GgufBuilder().u32(std::string(70000, 'k'), 1).build()), HasSubstr("at most 65535 are allowed"));
  EXPECT_THAT(error_of(GgufBuilder().raw("s", GgufBuilder::kString, GgufBuilder::number<uint64_t>(1u << 31)).build()),
              HasSubstr("a metadata string claims 2147483648 bytes, the file has 0 left"));
  EXPECT_THAT(error_of(GgufBuilder().raw("s", GgufBuilder::kString, GgufBuilder::number<uint64_t>(UINT64_MAX)).build()),
              HasSubstr("a metadata string claims 18446744073709551615 bytes"));
  for (uint32_t element : {GgufBuilder::kUint8, GgufBuilder::kString, GgufBuilder::kFloat64}) {
    EXPECT_THAT(error_of(GgufBuilder()
                             .raw("a", GgufBuilder::kArray,
                                  GgufBuilder::number(element) + GgufBuilder::number<uint64_t>(uint64_t{1} << 61))
                             .build()),
                HasSubstr("metadata array 'a' claims 2305843009213693952 elements"));
  }
  EXPECT_THAT(error_of(GgufBuilder()
                           .raw("a", GgufBuilder::kArray,
                                GgufBuilder::number<uint32_t>(GgufBuilder::kArray) + GgufBuilder::number<uint64_t>(1) +
                                    std::string(64, '\0'))
                           .build()),
              HasSubstr("holds arrays, which are not supported"));
  EXPECT_THAT(
      error_of(GgufBuilder()
                   .raw("a", GgufBuilder::kArray, GgufBuilder::number<uint32_t>(99) + GgufBuilder::number<uint64_t>(1))
                   .build()),
      HasSubstr("elements of unknown type 99"));
  for (uint32_t alignment : {0u, 3u, 48u, 0xffffffffu, 0x80000000u}) {
    EXPECT_THAT(error_of(GgufBuilder().u32("general.alignment", alignment).build()), HasSubstr("general.alignment"));
  }
  EXPECT_THAT(error_of(GgufBuilder().string("general.alignment", "32").build()), HasSubstr("has type string"));
}

TEST_F(GgufTest, HostileTensorsGetAMessageWithTheByte) {
  const auto with_tensor = [&](const std::vector<uint64_t>& dims, uint32_t type, uint64_t offset) {
    GgufBuilder builder;
    builder.raw_tensor("t", dims, type, offset);
    return error_of(builder.header() + std::string(256, '\0'));
  };
  EXPECT_THAT(with_tensor({}, 0, 0), HasSubstr("at byte 33: tensor 't' has 0 dimensions"));
  EXPECT_THAT(with_tensor({1, 1, 1, 1, 1}, 0, 0), HasSubstr("has 5 dimensions"));
  EXPECT_THAT(with_tensor({0}, 0, 0), HasSubstr("impossible dimension 0"));
  EXPECT_THAT(with_tensor({UINT64_MAX}, 0, 0), HasSubstr("impossible dimension 18446744073709551615"));
  EXPECT_THAT(with_tensor({uint64_t{1} << 32, uint64_t{1} << 32}, 0, 0), HasSubstr("impossible dimension"));
  EXPECT_THAT(with_tensor({uint64_t{1} << 62}, 0, 0), HasSubstr("or the size overflows"));
  EXPECT_THAT(with_tensor({31}, 3, 0), HasSubstr("not a whole number of blocks of 32"));
  EXPECT_THAT(with_tensor({1}, 4, 0), HasSubstr("unknown type 4"));
  EXPECT_THAT(with_tensor({1}, 31, 0), HasSubstr("unknown type 31"));
  EXPECT_THAT(with_tensor({1}, 0xffffffffu, 0), HasSubstr("unknown type 4294967295"));
  EXPECT_THAT(with_tensor({1}, 0, 1), HasSubstr("not a multiple of the alignment 32"));
  EXPECT_THAT(with_tensor({1}, 0, 4096), HasSubstr("the file ends at byte"));
  EXPECT_THAT(with_tensor({1024}, 0, 0), HasSubstr("cut short"));
  EXPECT_THAT(with_tensor({1}, 0, UINT64_MAX - 31), HasSubstr("the file ends at byte"));

  GgufBuilder twice;
  twice.tensor("t", {1}, 24, "x").tensor("t", {1}, 24, "y");
  EXPECT_THAT(error_of(twice.build()), HasSubstr("tensor 't' occurs twice"));
  GgufBuilder overlapping;
  overlapping.raw_tensor("a", {64}, 24, 0).raw_tensor("b", {1}, 24, 32);
  EXPECT_THAT(error_of(overlapping.header() + std::string(256, '\0')),
              HasSubstr("the data of tensors 'a' and 'b' overlap"));
  GgufBuilder unnamed;
  unnamed.raw_tensor("", {1}, 24, 0);
  EXPECT_THAT(error_of(unnamed.header() + std::string(64, '\0')), HasSubstr("empty name"));
  GgufBuilder long_name;
  long_name.raw_tensor(std::string(2000, 'n'), {1}, 24, 0);
  EXPECT_THAT(error_of(long_name.header() + std::string(64, '\0')), HasSubstr("at most 1024 are allowed"));
  GgufBuilder control;
  control.raw_tensor("a\x1b[31m\n", {0}, 24, 0);
  EXPECT_THAT(error_of(control.header() + std::string(64, '\0')), HasSubstr("'a\\x1b[31m\\x0a'")) << "terminal codes";
}

TEST_F(GgufTest, EveryPrefixIsAnError) {
  const std::string bytes = every_kind().build();
  MemoryFile memory(bytes);
  ASSERT_TRUE(GgufFile::open(memory.path()).ok());
  for (size_t length = bytes.size(); length-- > 0;) {
    ASSERT_TRUE(memory.truncate(length));
    const auto file = GgufFile::open(memory.path());
    ASSERT_FALSE(file.ok()) << "the first " << length << " bytes were accepted";
    ASSERT_EQ(file.status().code(), StatusCode::kDataLoss) << file.status().message();
    ASSERT_THAT(file.status().message(), HasSubstr(memory.path() + ": at byte "));
  }
}

TEST_F(GgufTest, AnyKindOfDamageGivesAFileOrAnError) {
  const uint64_t seed = random_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(static_cast<uint32_t>(seed));
  const std::string valid = every_kind().build();
  int num_accepted = 0;
  MemoryFile memory;
  for (int round = 0; round < 10000; ++round) {
    std::string bytes = valid;
    const int num_changes = 1 + static_cast<int>(random() % 4);
    for (int i = 0; i < num_changes; ++i) {
      char& byte = bytes[random() % bytes.size()];
      byte = random() % 2 ? static_cast<char>(byte ^ (1 << (random() % 8))) : static_cast<char>(random());
    }
    ASSERT_TRUE(memory.write(bytes));
    const auto file = GgufFile::open(memory.path());
    if (!file.ok()) continue;
    ++num_accepted;
    for (const std::string& key : (*file)->keys()) {
      (void)(*file)->get_int(key, INT64_MIN, INT64_MAX);
      (void)(*file)->get_float(key);
      (void)(*file)->get_string(key);
      (void)(*file)->get_bool(key);
      (void)(*file)->get_strings(key);
      (void)(*file)->get_ints(key);
      (void)(*file)->get_floats(key);
    }
    for (const TensorInfo& info : (*file)->tensors()) {
      std::vector<std::byte> data(info.num_bytes);
      ASSERT_TRUE((*file)->read(info, data).ok()) << info.name;
    }
  }
  EXPECT_GT(num_accepted, 0) << "damage to tensor data alone is not a header's business";
}

TEST_F(GgufTest, AFileCutShortAfterOpeningIsAnErrorNotAFault) {
  GgufBuilder builder;
  builder.tensor("big", {1 << 20}, 24, std::string(1 << 20, 'w'));
  const std::string path = scratch_.write("model.gguf", builder.build());
  const auto file = GgufFile::open(path);
  ASSERT_TRUE(file.ok());
  const TensorInfo* info = (*file)->find("big");
  std::vector<std::byte> data(info->num_bytes);
  ASSERT_TRUE((*file)->read(*info, data).ok());
  ASSERT_EQ(::truncate(path.c_str(), static_cast<off_t>(info->offset + 1000)), 0);
  EXPECT_THAT(data, ::testing::Each(std::byte{'w'})) << "what was read is a copy";
  const Status status = (*file)->read(*info, data);
  EXPECT_EQ(status.code(), StatusCode::kDataLoss);
  EXPECT_THAT(status.message(), HasSubstr("model.gguf: at byte " + std::to_string(info->offset + 1000) +
                                          ": the file became shorter while it was read"));
}

TEST_F(GgufTest, CuttingWhileAnotherThreadReadsNeverFaults) {
  GgufBuilder builder;
  builder.tensor("big", {4 << 20}, 24, std::string(4 << 20, 'w'));
  const std::string bytes = builder.build();
  const std::string path = scratch_.write("model.gguf", bytes);
  const auto file = GgufFile::open(path);
  ASSERT_TRUE(file.ok());
  std::atomic<bool> done{false};
  std::thread cutter([&] {
    for (int i = 0; i < 50; ++i) {
      // Growing again leaves zeros, so later reads succeed with other numbers or fail, by chance.
      (void)!::truncate(path.c_str(), static_cast<off_t>(bytes.size() / 2));
      (void)!::truncate(path.c_str(), static_cast<off_t>(bytes.size()));
    }
    (void)!::truncate(path.c_str(), 100);
    done = true;
  });
  std::vector<std::byte> data((*file)->tensors()[0].num_bytes);
  while (!done) {
    const Status status = (*file)->read((*file)->tensors()[0], data);
    if (!status.ok()) {
      EXPECT_EQ(status.code(), StatusCode::kDataLoss);
    }
  }
  cutter.join();
  EXPECT_EQ((*file)->read((*file)->tensors()[0], data).code(), StatusCode::kDataLoss);
}

TEST_F(GgufTest, ReadsHeadersLargerThanItsBuffer) {
  std::vector<std::string> tokens;
  for (int i = 0; i < 60000; ++i) tokens.push_back("token " + std::to_string(i));
  GgufBuilder builder;
  builder.strings("tokenizer.ggml.tokens", tokens).string("long", std::string(1 << 20, 'x')).u32("last", 7);
  const auto file = open(builder.build());
  ASSERT_TRUE(file.ok()) << file.status().message();
  EXPECT_EQ(*(*file)->get_strings("tokenizer.ggml.tokens"), tokens);
  EXPECT_EQ((*file)->get_string("long")->size(), size_t{1} << 20);
  EXPECT_EQ(*(*file)->get_int("last", 0, 9), 7);
}

TEST(GgufRealFile, SmolLm2) {
  const char* path = std::getenv("SEXTANT_TEST_MODEL");
  if (path == nullptr) GTEST_SKIP() << "SEXTANT_TEST_MODEL, the path of SmolLM2-135M-Instruct.Q4_1.gguf, is not set";
  const auto file = GgufFile::open(path);
  ASSERT_TRUE(file.ok()) << file.status().message();
  EXPECT_EQ(*(*file)->get_string("general.architecture"), "llama");
  EXPECT_EQ((*file)->array_length("tokenizer.ggml.tokens"), 49152u);
  const TensorInfo* embedding = (*file)->find("token_embd.weight");
  ASSERT_NE(embedding, nullptr);
  EXPECT_THAT(embedding->shape, ElementsAre(49152, 576));
}

}  // namespace
}  // namespace sextant

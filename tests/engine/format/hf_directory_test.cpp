#include "engine/format/hf_directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <filesystem>

#include "tests/support/gguf_builder.h"
#include "tests/support/scratch_directory.h"

namespace sextant {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string small_safetensors() {
  const std::string header = R"({"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})";
  return GgufBuilder::number<uint64_t>(header.size()) + header + "x";
}
std::string small_gguf() { return GgufBuilder().string("general.architecture", "llama").build(); }

TEST(OpenModel, AGgufFileOrADirectoryWithOne) {
  const ScratchDirectory scratch;
  const std::string path = scratch.write("model.gguf", small_gguf());
  auto files = open_model(path);
  ASSERT_TRUE(files.ok()) << files.status().message();
  EXPECT_TRUE((*files)->is_gguf());
  EXPECT_EQ((*files)->path, path);
  EXPECT_EQ((*files)->tensors(), (*files)->gguf.get());
  files = open_model(scratch.path());
  ASSERT_TRUE(files.ok()) << files.status().message();
  EXPECT_EQ((*files)->path, path);
  scratch.write("other.gguf", small_gguf());
  EXPECT_THAT(open_model(scratch.path()).status().message(),
              AllOf(HasSubstr("2 .gguf files"), HasSubstr("'model.gguf', 'other.gguf'"), HasSubstr("give one")));
}

TEST(OpenModel, AHuggingFaceDirectory) {
  const ScratchDirectory scratch;
  scratch.write("config.json", "{}");
  scratch.write("generation_config.json", "{}");
  EXPECT_THAT(open_model(scratch.path()).status().message(), HasSubstr("looked for model.safetensors"));
  scratch.write("pytorch_model.bin", "x");
  EXPECT_THAT(open_model(scratch.path()).status().message(), HasSubstr("convert them to safetensors"));
  auto files = open_model(scratch.path(), {.need_weights = false});
  ASSERT_TRUE(files.ok());
  EXPECT_EQ((*files)->tensors(), nullptr);
  scratch.write("model.safetensors", small_safetensors());
  files = open_model(scratch.path() + "/");
  ASSERT_TRUE(files.ok()) << files.status().message();
  EXPECT_FALSE((*files)->is_gguf());
  EXPECT_NE((*files)->tensors()->find("t"), nullptr);
  EXPECT_EQ((*files)->directory->config_path(), scratch.file("config.json"));
  EXPECT_EQ((*files)->directory->generation_config_path(), scratch.file("generation_config.json"));
  EXPECT_EQ((*files)->directory->file("tokenizer.json"), std::nullopt);
  // A directory of that name is no file.
  std::filesystem::create_directory(scratch.file("tokenizer.json"));
  EXPECT_EQ((*files)->directory->file("tokenizer.json"), std::nullopt);
}

TEST(OpenModel, ConfigBesideAGgufFileMeansTheGgufFile) {
  const ScratchDirectory scratch;
  scratch.write("config.json", "{}");
  scratch.write("m.gguf", small_gguf());
  const auto files = open_model(scratch.path());
  ASSERT_TRUE(files.ok()) << files.status().message();
  EXPECT_TRUE((*files)->is_gguf());
}

TEST(OpenModel, NeitherSaysWhatWasLookedFor) {
  const ScratchDirectory scratch;
  EXPECT_THAT(open_model(scratch.path()).status().message(), HasSubstr("found nothing"));
  scratch.write("readme.txt", "x");
  const Status status = open_model(scratch.path()).status();
  EXPECT_EQ(status.code(), StatusCode::kNotFound);
  EXPECT_EQ(status.param(), "model");
  EXPECT_THAT(status.message(), AllOf(HasSubstr("config.json"), HasSubstr(".gguf"), HasSubstr("'readme.txt'")));
  EXPECT_THAT(open_model("nobody/nothing").status().message(), HasSubstr("sextant pull nobody/nothing"));
  EXPECT_THAT(open_model("./nothing").status().message(), ::testing::Not(HasSubstr("sextant pull")));
  EXPECT_FALSE(open_model("").ok());
  EXPECT_FALSE(open_model(std::string("a\0b", 3)).ok());
  EXPECT_FALSE(open_model("/dev/null").ok());
  EXPECT_THAT(open_model(scratch.write("w.safetensors", small_safetensors())).status().message(),
              HasSubstr("give the directory"));
}

TEST(OpenModel, SplitGgufFilesAreRefused) {
  const ScratchDirectory scratch;
  GgufBuilder builder;
  builder.string("general.architecture", "llama")
      .raw("split.count", GgufBuilder::kUint16, GgufBuilder::number<uint16_t>(3));
  EXPECT_THAT(open_model(scratch.write("a-00001-of-00003.gguf", builder.build())).status().message(),
              HasSubstr("one of 3 parts"));
}

}  // namespace
}  // namespace sextant

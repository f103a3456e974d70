// The dialect of kernels/cuda, without which the emulator cannot stand in for nvcc.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>
#include <string>
#include <vector>

namespace {

struct Rule {
  const char* pattern;
  const char* only_in;  // file names, separated by spaces
  const char* why;
};
const Rule kRules[] = {
    {"<<<", "", "launches go through launch()"},
    {"\\b(__)?asm(__)?\\b", "ptx.h", "inline PTX stands in ptx.h"},
    {"\\b__shared__\\b", "shared_memory.h", "shared memory comes from the two macros"},
    {"\\b__activemask\\b", "", "says nothing that a program may rely on"},
    {"\\b__constant__\\b|\\b__managed__\\b", "", "device variables are not emulated"},
    {"\\bcooperative_groups\\b|\\bthis_grid\\b", "", "grid barriers are not emulated"},
    {"\\bcudaLaunchKernel(Ex|ExC)?\\b|\\bcudaLaunchCooperativeKernel\\b", "launch.h", "launches go through launch()"},
};

// Comments become blanks: they may name what code may not use.
std::string without_comments(const std::string& text) {
  static const std::regex comment("//[^\n]*|/\\*[^]*?\\*/");
  return std::regex_replace(text, comment, " ");
}

std::vector<std::string> violations(const std::string& name, const std::string& text) {
  std::vector<std::string> found;
  const std::string code = without_comments(text);
  for (const Rule& rule : kRules) {
    if ((" " + std::string(rule.only_in) + " ").find(" " + name + " ") != std::string::npos) continue;
    if (std::regex_search(code, std::regex(rule.pattern))) found.push_back(name + ": " + rule.why);
  }
  return found;
}

TEST(Dialect, KernelsKeepToIt) {
  const std::filesystem::path folder = std::filesystem::path(SEXTANT_TEST_DATA) / "../../kernels/cuda";
  int files = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    const std::string name = entry.path().filename();
    if (!name.ends_with(".cu") && !name.ends_with(".cuh") && !name.ends_with(".h") && !name.ends_with(".cpp")) continue;
    std::ifstream in(entry.path());
    const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    ++files;
    for (const std::string& violation : violations(name, text)) ADD_FAILURE() << violation;
  }
  EXPECT_GE(files, 8);
}

TEST(Dialect, ViolationsAreFound) {
  EXPECT_EQ(violations("a.cu", "kernel<<<1, 2>>>();").size(), 1u);
  EXPECT_EQ(violations("a.cu", "asm volatile(\"\");").size(), 1u);
  EXPECT_EQ(violations("a.cu", "__asm__(\"\");").size(), 1u);
  EXPECT_EQ(violations("a.cu", "extern __shared__ float x[];").size(), 1u);
  EXPECT_EQ(violations("a.cu", "__shared__ float x[4];").size(), 1u);
  EXPECT_EQ(violations("a.cu", "cudaLaunchKernelEx(&config, kernel);").size(), 1u);
  EXPECT_EQ(violations("a.cu", "int mask = __activemask();").size(), 1u);
  EXPECT_TRUE(violations("ptx.h", "asm volatile(\"\");").empty());
  EXPECT_TRUE(violations("shared_memory.h", "extern __shared__ float x[];").empty());
  EXPECT_TRUE(violations("a.cu", "// no <<<>>>, no asm\nint assembled; /* __shared__ */").empty());
}

}  // namespace

// NCCL between processes: each test runs this very program again for the other ranks, with the id in its environment.
#include <nccl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <numeric>

#include "tests/kernels/simt/emulator_test_support.h"

extern char** environ;

namespace sextant::simt {
namespace {

using testing::HasSubstr;

constexpr int kProcesses = 3;
using Bytes = std::array<unsigned char, sizeof(ncclUniqueId)>;

std::string hex(const ncclUniqueId& id) {
  std::string text;
  for (const unsigned char byte : std::bit_cast<Bytes>(id)) {
    char digits[3];
    std::snprintf(digits, sizeof digits, "%02x", byte);
    text += digits;
  }
  return text;
}
ncclUniqueId from_hex(const std::string& text) {
  Bytes bytes = {};
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<unsigned char>(std::stoi(text.substr(2 * i, 2), nullptr, 16));
  }
  return std::bit_cast<ncclUniqueId>(bytes);
}

class NcclProcesses : public EmulatorTest {
 protected:
  // Rank 0 here, the others in processes of their own. In those: the rank they are.
  void start() {
    const char* id_text = std::getenv("SEXTANT_TEST_NCCL_ID");
    if (id_text != nullptr) {
      id_ = from_hex(id_text);
      rank_ = std::atoi(std::getenv("SEXTANT_TEST_NCCL_RANK"));
    } else {
      ASSERT_EQ(ncclGetUniqueId(&id_), ncclSuccess);
      for (int rank = 1; rank < kProcesses; ++rank) spawn(rank);
    }
    // Once in the group, a rank's device can fail at any time by what the others do.
    data_ = device_array(numbers(rank_, 8));
    ASSERT_EQ(cudaStreamCreate(&stream_), cudaSuccess);
    ASSERT_EQ(ncclCommInitRank(&comm_, kProcesses, id_, rank_), ncclSuccess) << ncclGetLastError(nullptr);
  }
  void spawn(int rank) {
    const std::string filter =
        std::string("--gtest_filter=NcclProcesses.") + testing::UnitTest::GetInstance()->current_test_info()->name();
    std::vector<std::string> variables = {"SEXTANT_TEST_NCCL_ID=" + hex(id_),
                                          "SEXTANT_TEST_NCCL_RANK=" + std::to_string(rank)};
    std::vector<char*> environment;
    for (char** each = environ; *each != nullptr; ++each) {
      if (!std::string_view(*each).starts_with("GTEST_")) environment.push_back(*each);
    }
    for (std::string& variable : variables) environment.push_back(variable.data());
    environment.push_back(nullptr);
    std::string program = "/proc/self/exe";
    std::string filter_argument = filter;
    char* arguments[] = {program.data(), filter_argument.data(), nullptr};
    pid_t child = 0;
    ASSERT_EQ(posix_spawn(&child, program.c_str(), nullptr, nullptr, arguments, environment.data()), 0);
    children_.push_back(child);
  }
  void TearDown() override {
    if (comm_ != nullptr) ncclCommDestroy(comm_);
    for (const pid_t child : children_) {
      int status = 0;
      EXPECT_EQ(waitpid(child, &status, 0), child);
      EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "a rank of another process has failed";
    }
  }
  static std::vector<float> numbers(int rank, size_t count) {
    std::vector<float> values(count);
    std::iota(values.begin(), values.end(), static_cast<float>(100 * rank));
    return values;
  }

  int rank_ = 0;
  ncclUniqueId id_ = {};
  ncclComm_t comm_ = nullptr;
  cudaStream_t stream_ = nullptr;
  float* data_ = nullptr;  // [8]
  std::vector<pid_t> children_;
};

TEST_F(NcclProcesses, CollectivesSendsAndReceives) {
  start();
  if (HasFatalFailure()) return;
  constexpr size_t kCount = 50000;
  float* in = device_array(numbers(rank_, kCount));
  float* out = device_array(std::vector<float>(kProcesses * kCount));
  for (int round = 0; round < 3; ++round) {
    ASSERT_EQ(ncclAllReduce(in, out, kCount, ncclFloat32, ncclSum, comm_, stream_), ncclSuccess);
    ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess) << last_report();
    const std::vector<float> sum = host_copy(out, kCount);
    EXPECT_EQ(sum[0], 300);
    EXPECT_EQ(sum[kCount - 1], 300 + 3 * static_cast<float>(kCount - 1));
    ASSERT_EQ(ncclAllGather(in, out, kCount, ncclFloat32, comm_, stream_), ncclSuccess);
    ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess) << last_report();
    EXPECT_EQ(host_copy(out, kProcesses * kCount)[2 * kCount + 1], 201);
    ASSERT_EQ(ncclReduceScatter(in, out, 2, ncclFloat32, ncclSum, comm_, stream_), ncclSuccess);
    ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess) << last_report();
    EXPECT_EQ(host_copy(out, 2)[1], 300 + 3 * (2 * static_cast<float>(rank_) + 1));
    // Along the chain, one of whose links is between two processes that do not hold the world.
    if (rank_ > 0) {
      ASSERT_EQ(ncclRecv(out, kCount, ncclFloat32, rank_ - 1, comm_, stream_), ncclSuccess);
      ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess) << last_report();
      EXPECT_EQ(host_copy(out, kCount), numbers(0, kCount));
    }
    if (rank_ + 1 < kProcesses) {
      ASSERT_EQ(ncclSend(rank_ == 0 ? in : out, kCount, ncclFloat32, rank_ + 1, comm_, stream_), ncclSuccess);
    }
    ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess) << last_report();
    float* told = device_array(numbers(rank_, 4));
    ASSERT_EQ(ncclBroadcast(told, told, 4, ncclFloat32, 1, comm_, stream_), ncclSuccess);
    ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess) << last_report();
    EXPECT_EQ(host_copy(told, 4), numbers(1, 4));
  }
}

TEST_F(NcclProcesses, CallsThatDoNotFitAreNamedEverywhere) {
  start();
  if (HasFatalFailure()) return;
  // The others may have failed this rank's device before it calls.
  const ncclResult_t called = ncclAllReduce(data_, data_, rank_ == 2 ? 5 : 4, ncclFloat32, ncclSum, comm_, stream_);
  const cudaError_t waited = cudaStreamSynchronize(stream_);
  EXPECT_TRUE(called != ncclSuccess || waited != cudaSuccess);
  EXPECT_THAT(last_report(), testing::AllOf(HasSubstr("of 4 float32"), HasSubstr("of 5 float32"), HasSubstr("rank 2")));
  ncclResult_t error = ncclSuccess;
  EXPECT_EQ(ncclCommGetAsyncError(comm_, &error), ncclSuccess);
  EXPECT_NE(error, ncclSuccess);
}

TEST_F(NcclProcesses, AProcessThatIsGoneIsNamed) {
  start();
  if (HasFatalFailure()) return;
  if (rank_ == 1) std::_Exit(0);  // without a goodbye
  // The loss may have failed this rank's device before it calls.
  const ncclResult_t called = ncclAllReduce(data_, data_, 4, ncclFloat32, ncclSum, comm_, stream_);
  const cudaError_t waited = cudaStreamSynchronize(stream_);
  EXPECT_TRUE(called != ncclSuccess || waited != cudaSuccess);
  ncclResult_t error = ncclSuccess;
  EXPECT_EQ(ncclCommGetAsyncError(comm_, &error), ncclSuccess);
  EXPECT_EQ(error, ncclRemoteError);
}

}  // namespace
}  // namespace sextant::simt

// Which backend `--device` means on this machine and in this build.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "engine/config.h"
#include "engine/device/backend.h"
#include "engine/device/communicator.h"
#include "engine/device/tcp_communicator.h"

namespace sextant {

// auto: CUDA where this build has it and a device can be seen, else the CPU. cuda: an error of one line says why not.
// cuda-emulated: the CUDA backend on kernels/simt, in builds that hold the emulator.
Result<std::unique_ptr<Backend>> make_backend(const DeviceConfig& config);

// The same for rank `rank` of `size` of this process, on the rank's thread, which it may bind to CPUs. CUDA: device number `rank`.
// CPU: an equal share of the threads, placed as config.cpu_bind says (numa.h). `activation` is CUDA's: bfloat16 or float16, others
// are refused; the CPU's are fp32.
Result<std::unique_ptr<Backend>> make_rank_backend(const DeviceConfig& config, int rank, int size,
                                                   DType activation = DType::kBFloat16);

// Makes the communicators of a new group, each on its rank's thread after its backend was made; all ranks call.
using RankMeeting = std::function<Result<std::unique_ptr<Communicator>>(int rank)>;
Result<RankMeeting> make_rank_meeting(const DeviceConfig& config, int size, double timeout_s);

// The same where ranks are in several processes: group number `group`, whose rank r is found at addresses[r] until `deadline`.
// `id`: on CUDA, what one process of the group made with make_group_id() and gave the others.
Result<RankMeeting> make_remote_meeting(const DeviceConfig& config, TcpMeetingPoint& point, uint32_t group,
                                        const std::string& id, std::vector<TcpMeetingPoint::Address> addresses,
                                        Deadline deadline, double timeout_s);
// Empty on the CPU.
Result<std::string> make_group_id(const DeviceConfig& config);

}  // namespace sextant

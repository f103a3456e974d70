// Communicators over NCCL: device buffers on CUDA streams. Under the emulator NCCL is kernels/simt's, between threads.
// Ranks of one process share a ledger: what each calls is compared before it is enqueued, because NCCL itself would wait for ever
// or move the wrong bytes. What a graph replays is not in it.
#pragma once

#include <array>
#include <cstddef>
#include <memory>

#include "engine/device/communicator.h"

namespace sextant {

// What the ranks of a group know it by; made by one of them and carried to the others.
struct NcclId {
  std::array<std::byte, 128> bytes = {};
};
// kUnsupported in a build without NCCL.
Result<NcclId> make_nccl_id();

class NcclLedger;
std::shared_ptr<NcclLedger> make_nccl_ledger(int size);

// Blocks until all `size` ranks have called, each on its thread with its device current. `ledger`: of the ranks of this process
// when they are all of the group, else null.
Result<std::unique_ptr<Communicator>> make_nccl_communicator(const NcclId& id, int rank, int size,
                                                             std::shared_ptr<NcclLedger> ledger);

}  // namespace sextant

#include "kernels/simt/fault_handler.h"

#include <signal.h>
#include <ucontext.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>

#include "kernels/simt/block_run.h"
#include "kernels/simt/runtime_state.h"

namespace sextant::simt {
namespace {

struct Fault {
  const void* address = nullptr;
  const char* access = "access";
  bool stack_overflow = false;
};
thread_local Fault t_fault;
struct sigaction g_previous_segv;
struct sigaction g_previous_bus;

// Where the faulting fibre goes on, outside of the signal handler.
[[noreturn]] void report_fault() { current_block().fail_at(t_fault.address, t_fault.access); }

// Makes the interrupted code continue in report_fault(). False where this machine's registers are not known.
bool redirect(ucontext_t* context, const BlockRun& block) {
#if defined(__x86_64__)
  greg_t* registers = context->uc_mcontext.gregs;
  t_fault.access = (registers[REG_ERR] & 2) != 0 ? "write" : "read";
  auto stack = static_cast<uintptr_t>(registers[REG_RSP]) - 128;  // below the red zone
  if (t_fault.stack_overflow) stack = reinterpret_cast<uintptr_t>(block.stack_top());
  registers[REG_RSP] = static_cast<greg_t>((stack & ~uintptr_t{15}) - 8);  // as after a call
  registers[REG_RIP] = reinterpret_cast<greg_t>(&report_fault);
  return true;
#elif defined(__aarch64__)
  if (t_fault.stack_overflow) context->uc_mcontext.sp = reinterpret_cast<uintptr_t>(block.stack_top());
  context->uc_mcontext.sp &= ~uintptr_t{15};
  context->uc_mcontext.pc = reinterpret_cast<uintptr_t>(&report_fault);
  return true;
#else
  static_cast<void>(context);
  static_cast<void>(block);
  return false;
#endif
}

void on_fault(int signal, siginfo_t* info, void* context) {
  if (t_block != nullptr && t_thread != nullptr) {
    t_fault.address = info->si_addr;
    t_fault.stack_overflow = t_block->stack_overflowed(info->si_addr);
    if (redirect(static_cast<ucontext_t*>(context), *t_block)) return;
  }
  const int device = device_of_address(info->si_addr);
  if (device >= 0) {
    std::array<char, 96> line = {};
    const int length = std::snprintf(line.data(), line.size(),
                                     "simt: the host dereferences memory of device %d at %p\n", device, info->si_addr);
    if (write(STDERR_FILENO, line.data(), static_cast<size_t>(length)) < 0) return;
  }
  // Not ours: back to whoever came before; the access faults again.
  sigaction(signal, signal == SIGBUS ? &g_previous_bus : &g_previous_segv, nullptr);
}

}  // namespace

void install_fault_handler() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action = {};
    action.sa_sigaction = &on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    sigaction(SIGSEGV, &action, &g_previous_segv);
    sigaction(SIGBUS, &action, &g_previous_bus);
  });
}

void prepare_thread_for_faults() {
  struct SignalStack {
    SignalStack() {
      stack_t current = {};
      if (sigaltstack(nullptr, &current) != 0 || (current.ss_flags & SS_DISABLE) == 0) return;  // a sanitizer's
      memory = std::make_unique<std::array<char, 64 << 10>>();
      stack_t mine = {};
      mine.ss_sp = memory->data();
      mine.ss_size = memory->size();
      sigaltstack(&mine, nullptr);
    }
    ~SignalStack() {
      if (memory == nullptr) return;
      stack_t none = {};
      none.ss_flags = SS_DISABLE;
      sigaltstack(&none, nullptr);
    }
    SignalStack(const SignalStack&) = delete;
    SignalStack& operator=(const SignalStack&) = delete;
    std::unique_ptr<std::array<char, 64 << 10>> memory;
  };
  thread_local SignalStack stack;
  static_cast<void>(stack);
}

}  // namespace sextant::simt

// Fibre: a stack and a saved context. Tells the sanitizers of every switch. Used by BlockRun only.
#pragma once

#include <boost/context/detail/fcontext.hpp>
#include <cstddef>

namespace sextant::simt {

struct ThreadState;

class Fibre {
 public:
  using Entry = void (*)(void* argument);
  Fibre() = default;                   // the host thread's own stack
  Fibre(Entry entry, void* argument);  // a stack with a guard page below it
  ~Fibre();
  Fibre(const Fibre&) = delete;
  Fibre& operator=(const Fibre&) = delete;

  // From `from`, which runs, to this one; returns when something switches back to `from`.
  void switch_from(Fibre& from);
  // Forgets what was on the stack: the next switch begins at the entry.
  void reset();

  // Whether the address lies in the guard page below the stack.
  bool guards(const void* address) const {
    const auto* at = static_cast<const std::byte*>(address);
    return mapping_ != nullptr && at >= mapping_ && at < stack_;
  }
  void* stack_top() const { return stack_ + stack_bytes_; }

  ThreadState* thread = nullptr;  // to start, or running on it

 private:
  static void begin(boost::context::detail::transfer_t from);
  static void arrived(boost::context::detail::transfer_t from);

  boost::context::detail::fcontext_t context_ = nullptr;
  Entry entry_ = nullptr;
  void* argument_ = nullptr;
  std::byte* mapping_ = nullptr;
  std::byte* stack_ = nullptr;
  size_t stack_bytes_ = 0;
  void* sanitizer_ = nullptr;  // asan: the fake stack; tsan: the fibre
};

}  // namespace sextant::simt

#include "kernels/simt/fibre.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "kernels/simt/address_check.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#elif defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

namespace sextant::simt {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kStackBytes = 256 << 10;  // redzones make frames several times larger
#else
constexpr size_t kStackBytes = 64 << 10;
#endif

}  // namespace

Fibre::Fibre(Entry entry, void* argument) : entry_(entry), argument_(argument), stack_bytes_(kStackBytes) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  void* mapping =
      mmap(nullptr, page + stack_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) {
    std::perror("simt: no memory for a fibre's stack");
    std::abort();
  }
  mapping_ = static_cast<std::byte*>(mapping);
  mprotect(mapping_, page, PROT_NONE);
  stack_ = mapping_ + page;
  reset();
}

Fibre::~Fibre() {
#if defined(__SANITIZE_THREAD__)
  if (stack_ != nullptr && sanitizer_ != nullptr) __tsan_destroy_fiber(sanitizer_);
#endif
  if (mapping_ == nullptr) return;
  allow_access(stack_, stack_bytes_);  // whoever gets these addresses next
  munmap(mapping_, static_cast<size_t>(stack_ - mapping_) + stack_bytes_);
}

void Fibre::reset() {
  allow_access(stack_, stack_bytes_);  // the frames of an abandoned run left it poisoned
  context_ = boost::context::detail::make_fcontext(stack_ + stack_bytes_, stack_bytes_, &Fibre::begin);
#if defined(__SANITIZE_THREAD__)
  if (sanitizer_ != nullptr) __tsan_destroy_fiber(sanitizer_);
  sanitizer_ = __tsan_create_fiber(0);
#elif defined(__SANITIZE_ADDRESS__)
  sanitizer_ = nullptr;
#endif
}

void Fibre::arrived(boost::context::detail::transfer_t from) {
  auto* pair = static_cast<Fibre**>(from.data);
  pair[0]->context_ = from.fctx;
#if defined(__SANITIZE_ADDRESS__)
  const void* bottom = nullptr;
  size_t size = 0;
  __sanitizer_finish_switch_fiber(pair[1]->sanitizer_, &bottom, &size);
  if (pair[0]->stack_ == nullptr || pair[0]->mapping_ == nullptr) {  // the host thread's stack: asan knows where it is
    pair[0]->stack_ = static_cast<std::byte*>(const_cast<void*>(bottom));
    pair[0]->stack_bytes_ = size;
  }
#endif
}

void Fibre::begin(boost::context::detail::transfer_t from) {
  Fibre* self = static_cast<Fibre**>(from.data)[1];
  arrived(from);
  self->entry_(self->argument_);
  std::abort();  // an entry never returns
}

void Fibre::switch_from(Fibre& from) {
  Fibre* pair[2] = {&from, this};
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&from.sanitizer_, stack_, stack_bytes_);
#elif defined(__SANITIZE_THREAD__)
  if (from.sanitizer_ == nullptr) from.sanitizer_ = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(sanitizer_, 0);
#endif
  arrived(boost::context::detail::jump_fcontext(context_, pair));
}

}  // namespace sextant::simt

#include "engine/core/request_queue.h"

#include "engine/base/check.h"

namespace sextant {

void RequestQueue::push(Sequence& sequence) {
  CHECK(sequences_.insert(&sequence).second) << "sequence " << sequence.sequence_id << " is queued twice";
}

void RequestQueue::remove(Sequence& sequence) {
  CHECK_EQ(sequences_.erase(&sequence), size_t{1}) << "sequence " << sequence.sequence_id << " is not queued";
}

Sequence* RequestQueue::last_holder() const {
  for (auto it = sequences_.rbegin(); it != sequences_.rend(); ++it) {
    if ((*it)->holds_blocks()) return *it;
  }
  return nullptr;
}

}  // namespace sextant

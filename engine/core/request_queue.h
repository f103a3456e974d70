// RequestQueue: sequences that wait for a place in the batch, in the order of the policy: by priority (the
// same for all under fcfs), then arrival, then id. A preempted one comes back to where it was: before all
// that arrived after it. One thread (the engine's). Does not own the sequences.
#pragma once

#include <set>

#include "engine/core/sequence.h"

namespace sextant {

class RequestQueue {
 public:
  bool empty() const { return sequences_.empty(); }
  size_t size() const { return sequences_.size(); }
  bool contains(const Sequence& sequence) const { return sequences_.contains(const_cast<Sequence*>(&sequence)); }
  Sequence& front() const { return **sequences_.begin(); }
  void push(Sequence& sequence);
  void remove(Sequence& sequence);
  // The last one that holds blocks (forked from a sibling, or kept over a pause); null when none does.
  Sequence* last_holder() const;

  auto begin() const { return sequences_.begin(); }
  auto end() const { return sequences_.end(); }

 private:
  struct Earlier {
    bool operator()(const Sequence* a, const Sequence* b) const { return a->precedence < b->precedence; }
  };
  std::set<Sequence*, Earlier> sequences_;
};

}  // namespace sextant

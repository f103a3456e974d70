// InBuffer: bytes read from a socket and not yet taken; taken at the front, added at the back.
#pragma once

#include <cstddef>
#include <cstring>
#include <string_view>
#include <vector>

namespace sextant::http {

class InBuffer {
 public:
  std::string_view view() const { return {storage_.data() + begin_, end_ - begin_}; }
  size_t size() const { return end_ - begin_; }
  bool empty() const { return begin_ == end_; }

  // Room for `num` bytes at the back; valid until the next prepare(). consume() leaves it valid.
  char* prepare(size_t num) {
    if (begin_ > 0) {
      std::memmove(storage_.data(), storage_.data() + begin_, size());
      end_ -= begin_;
      begin_ = 0;
    }
    // An idle connection does not keep the room that a large body needed.
    if (end_ == 0 && storage_.size() > 4 * num) storage_ = std::vector<char>();
    if (storage_.size() < end_ + num) storage_.resize(end_ + num);
    return storage_.data() + end_;
  }
  void commit(size_t num) { end_ += num; }
  void consume(size_t num) { begin_ += num; }

 private:
  std::vector<char> storage_;
  size_t begin_ = 0;
  size_t end_ = 0;
};

}  // namespace sextant::http

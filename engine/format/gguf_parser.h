// GgufParser: walks a GGUF header once, front to back, and fills a GgufFile. Every number the header states
// is checked against what the file can hold before it is used.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/format/gguf.h"

namespace sextant {

class GgufParser {
 public:
  explicit GgufParser(GgufFile& file) : gguf_(file), file_(file.file_) {}

  Status parse();

 private:
  using Value = GgufFile::Value;
  using ValueType = GgufFile::ValueType;

  Status fail(uint64_t offset, const std::string& what) const;
  uint64_t remaining() const { return file_.size() - position_; }

  // Reading moves position_; a read past the end of the file fails and names `what` was being read.
  Status read_bytes(char* out, size_t num_bytes, const char* what);
  template <typename T>
  Status read_number(T& out, const char* what);
  Status read_string(std::string& out, uint64_t max_length, const char* what);

  Status parse_preamble(uint64_t& num_tensors, uint64_t& num_keys);
  Status parse_key_value();
  Status parse_value(Value& value, const std::string& key);
  Status parse_array(Value& value, const std::string& key);
  Status parse_alignment();
  Status parse_tensor();
  Status parse_shape(TensorInfo& info);
  Status place_tensors();

  GgufFile& gguf_;
  const RandomAccessFile& file_;
  uint64_t position_ = 0;
  std::vector<uint64_t> tensor_entry_offsets_;  // where each tensor's entry begins, for messages

  std::string buffer_;
  uint64_t buffer_begin_ = 0;
};

}  // namespace sextant

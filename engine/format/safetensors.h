// SafetensorsSource: the tensors of one .safetensors file, or of all the shards that a directory's
// model.safetensors.index.json names. Headers are bounded and checked in full on opening.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/base/result.h"
#include "engine/format/random_access_file.h"
#include "engine/format/tensor_source.h"

namespace sextant {

class SafetensorsSource final : public TensorSource {
 public:
  // A .safetensors file, a .safetensors.index.json file, or a directory that holds one of them (model.safetensors is
  // preferred to an index, an index to a single file of another name).
  static Result<std::unique_ptr<SafetensorsSource>> open(const std::string& path);

  const std::string& path() const override { return path_; }
  const std::vector<TensorInfo>& tensors() const override { return tensors_; }
  const TensorInfo* find(std::string_view name) const override;
  Status read_range(const TensorInfo& info, uint64_t begin, std::span<std::byte> out) const override;

  // The files read, in order; TensorInfo::file_idx counts these.
  size_t num_files() const { return files_.size(); }
  const std::string& file_path(size_t file_idx) const { return files_[file_idx].path(); }

 private:
  explicit SafetensorsSource(std::string path) : path_(std::move(path)) {}

  Status add_file(const std::string& path);
  Status add_shards(const std::string& index_path);

  std::string path_;
  std::vector<RandomAccessFile> files_;
  std::vector<TensorInfo> tensors_;
  std::unordered_map<std::string, size_t> tensor_idx_by_name_;
};

// Whether `name` is a plain file name: no directory part, not "." or "..", no NUL. What file lists inside files and
// servers' answers are held to before they touch a path.
bool is_plain_file_name(std::string_view name);

}  // namespace sextant

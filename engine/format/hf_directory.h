// What a model's directory in Hugging Face's layout holds, and the decision between it and a GGUF file.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "engine/base/result.h"
#include "engine/format/gguf.h"
#include "engine/format/safetensors.h"
#include "engine/format/tensor_source.h"

namespace sextant {

class HfDirectory {
 public:
  // Needs a config.json; the other files are looked for when asked for.
  static Result<std::unique_ptr<HfDirectory>> open(const std::string& path);

  const std::string& path() const { return path_; }
  std::string config_path() const { return path_ + "/config.json"; }
  // The path of a regular file of this name in the directory; nothing when absent.
  std::optional<std::string> file(std::string_view name) const;
  std::optional<std::string> generation_config_path() const { return file("generation_config.json"); }

  bool has_weights() const;
  Result<std::unique_ptr<SafetensorsSource>> open_weights() const;

 private:
  explicit HfDirectory(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

// One model on disk, opened: either `gguf`, or `directory` with its `weights` (null where they were not asked for).
struct ModelFiles {
  std::string path;  // the .gguf file or the directory; what load_tokenizer takes
  std::unique_ptr<GgufFile> gguf;
  std::unique_ptr<HfDirectory> directory;
  std::unique_ptr<SafetensorsSource> weights;

  bool is_gguf() const { return gguf != nullptr; }
  // Null when the weights were not asked for.
  const TensorSource* tensors() const {
    if (gguf) return gguf.get();
    return weights.get();
  }
};

struct OpenModelOptions {
  bool need_weights = true;  // false for random weights of a config.json's shape
};

// `path`: a .gguf file; a directory with config.json and safetensors; a directory with exactly one .gguf file.
Result<std::unique_ptr<ModelFiles>> open_model(const std::string& path, const OpenModelOptions& options = {});

}  // namespace sextant

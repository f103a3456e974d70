#include "engine/format/hf_directory.h"

#include <algorithm>
#include <filesystem>
#include <vector>

#include "engine/format/printable.h"

namespace sextant {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxDirectoryEntries = 10000;

bool has_suffix(std::string_view text, std::string_view suffix) {
  return text.size() > suffix.size() && text.substr(text.size() - suffix.size()) == suffix;
}

bool is_file(const std::string& path) {
  std::error_code error;
  return fs::is_regular_file(path, error);
}

// "owner/name", as on the Hugging Face Hub.
bool looks_like_hub_id(std::string_view path) {
  const size_t slash = path.find('/');
  return slash != std::string_view::npos && slash > 0 && slash + 1 < path.size() &&
         path.find('/', slash + 1) == std::string_view::npos && path[0] != '.' && path[0] != '~';
}

Result<std::unique_ptr<ModelFiles>> open_gguf(const std::string& path) {
  ASSIGN_OR_RETURN(std::unique_ptr<GgufFile> gguf, GgufFile::open(path));
  ASSIGN_OR_RETURN(const int64_t num_splits, gguf->get_int_or("split.count", 1, 0, 65535));
  if (num_splits > 1) {
    return unsupported(path + ": one of " + std::to_string(num_splits) +
                       " parts of a split GGUF file; only whole files can be read. Join the parts first "
                       "(llama-gguf-split --merge), or take a file that is not split");
  }
  auto files = std::make_unique<ModelFiles>();
  files->path = path;
  files->gguf = std::move(gguf);
  return files;
}

Result<std::vector<std::string>> names_in(const std::string& directory) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    names.push_back(it->path().filename().string());
    if (names.size() > kMaxDirectoryEntries) {
      return invalid_argument(directory + ": more than " + std::to_string(kMaxDirectoryEntries) +
                              " entries; this is no model's directory");
    }
  }
  if (error) return invalid_argument(directory + ": cannot be listed: " + error.message());
  std::sort(names.begin(), names.end());
  return names;
}

std::string joined(const std::vector<std::string>& names, size_t max_names) {
  std::string text;
  for (size_t i = 0; i < names.size() && i < max_names; ++i) text += (i ? ", " : "") + printable(names[i]);
  return text + (names.size() > max_names ? ", ..." : "");
}

}  // namespace

Result<std::unique_ptr<HfDirectory>> HfDirectory::open(const std::string& path) {
  std::string trimmed = path;
  while (trimmed.size() > 1 && trimmed.back() == '/') trimmed.pop_back();
  std::unique_ptr<HfDirectory> directory(new HfDirectory(std::move(trimmed)));
  if (!is_file(directory->config_path())) return not_found(directory->config_path() + ": no such file");
  return directory;
}

std::optional<std::string> HfDirectory::file(std::string_view name) const {
  CHECK(is_plain_file_name(name)) << name;
  std::string full = path_ + "/" + std::string(name);
  if (!is_file(full)) return std::nullopt;
  return full;
}

bool HfDirectory::has_weights() const {
  if (file("model.safetensors") || file("model.safetensors.index.json")) return true;
  const Result<std::vector<std::string>> names = names_in(path_);
  return names.ok() && std::any_of(names->begin(), names->end(),
                                   [](const std::string& name) { return has_suffix(name, ".safetensors"); });
}

Result<std::unique_ptr<SafetensorsSource>> HfDirectory::open_weights() const { return SafetensorsSource::open(path_); }

Result<std::unique_ptr<ModelFiles>> open_model(const std::string& path, const OpenModelOptions& options) {
  if (path.empty()) return invalid_argument("no model given", "model");
  if (path.find('\0') != std::string::npos) return invalid_argument("the model's path holds a NUL byte", "model");
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) {
    return not_found(
        path +
            ": no such file or directory. A model is a .gguf file, a directory with config.json and "
            "*.safetensors, or a directory with one .gguf file" +
            (looks_like_hub_id(path) ? "; to fetch it from the Hugging Face Hub: sextant pull " + path : std::string()),
        "model");
  }
  if (!fs::is_directory(status)) {
    if (has_suffix(path, ".safetensors")) {
      return invalid_argument(
          path + ": weights alone; give the directory that also holds config.json and the tokenizer", "model");
    }
    return open_gguf(path);
  }

  ASSIGN_OR_RETURN(const std::vector<std::string> names, names_in(path));
  std::vector<std::string> ggufs;
  bool has_pickle = false;
  for (const std::string& name : names) {
    if (has_suffix(name, ".gguf") && is_file(path + "/" + name)) ggufs.push_back(name);
    has_pickle |= has_suffix(name, ".bin") || has_suffix(name, ".pt") || has_suffix(name, ".pth");
  }
  if (is_file(path + "/config.json")) {
    auto files = std::make_unique<ModelFiles>();
    ASSIGN_OR_RETURN(files->directory, HfDirectory::open(path));
    files->path = files->directory->path();
    if (!options.need_weights) return files;
    if (files->directory->has_weights()) {
      ASSIGN_OR_RETURN(files->weights, files->directory->open_weights());
      return files;
    }
    if (ggufs.empty()) {
      return not_found(path +
                           ": config.json is there, weights are not: looked for model.safetensors, "
                           "model.safetensors.index.json, *.safetensors and *.gguf" +
                           (has_pickle ? std::string("; PyTorch pickle files (.bin, .pt) are not read, because "
                                                     "unpickling runs code: convert them to safetensors")
                                       : std::string()),
                       "model");
    }
  }
  if (ggufs.size() == 1) return open_gguf(path + "/" + ggufs[0]);
  if (ggufs.size() > 1) {
    return invalid_argument(
        path + ": holds " + std::to_string(ggufs.size()) + " .gguf files (" + joined(ggufs, 4) + "); give one of them",
        "model");
  }
  return not_found(path + ": no model here: looked for config.json with *.safetensors, and for one .gguf file; found " +
                       (names.empty() ? std::string("nothing") : joined(names, 6)),
                   "model");
}

}  // namespace sextant

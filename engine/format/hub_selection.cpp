// Which files of a Hub repository make a model that this program can serve.

#include <fnmatch.h>
#include <algorithm>
#include <array>
#include <cctype>

#include "engine/format/hub.h"
#include "engine/format/printable.h"
#include "engine/format/safetensors.h"

namespace sextant {
namespace {

constexpr std::array<std::string_view, 10> kModelFiles = {"config.json",
                                                          "generation_config.json",
                                                          "tokenizer.json",
                                                          "tokenizer.model",
                                                          "tokenizer_config.json",
                                                          "special_tokens_map.json",
                                                          "added_tokens.json",
                                                          "vocab.json",
                                                          "merges.txt",
                                                          "chat_template.jinja"};

// Encodings in the order of preference among several GGUF files: the readable ones, good quality for the size
// first.
constexpr std::array<std::string_view, 6> kGgufPreference = {"q8_0", "q4_1", "q4_0", "bf16", "f16", "f32"};

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

// Whether the letters and digits of `name` hold `word` with no letter or digit beside it.
bool has_word(const std::string& name, std::string_view word) {
  for (size_t at = name.find(word); at != std::string::npos; at = name.find(word, at + 1)) {
    const size_t end = at + word.size();
    const bool begins = at == 0 || !std::isalnum(static_cast<unsigned char>(name[at - 1]));
    const bool ends = end == name.size() || !std::isalnum(static_cast<unsigned char>(name[end]));
    if (begins && ends) return true;
  }
  return false;
}

bool is_weight_shard(const std::string& name) {
  // consolidated.*.safetensors hold the same weights under other names; files in folders are other models' or
  // exports.
  return name.find('/') == std::string::npos && name.ends_with(".safetensors") && !name.starts_with("consolidated") &&
         !name.starts_with("adapter_");
}

Result<HubFile> choose_gguf(const std::vector<HubFile>& ggufs, const std::string& repository) {
  if (ggufs.size() == 1) return ggufs[0];
  for (std::string_view encoding : kGgufPreference) {
    std::vector<const HubFile*> matches;
    for (const HubFile& file : ggufs) {
      if (has_word(lower(file.name), encoding)) matches.push_back(&file);
    }
    if (matches.size() == 1) return *matches[0];
  }
  std::string names;
  for (size_t i = 0; i < ggufs.size() && i < 8; ++i) names += (i ? ", " : "") + printable(ggufs[i].name);
  return invalid_argument(repository + " holds " + std::to_string(ggufs.size()) + " GGUF files (" + names +
                              (ggufs.size() > 8 ? ", ..." : "") + "); choose one with --include",
                          "include");
}

}  // namespace

bool is_safe_relative_path(std::string_view path) {
  if (path.empty() || path.size() > 1024) return false;
  while (true) {
    const size_t slash = path.find('/');
    const std::string_view part = path.substr(0, slash);
    if (!is_plain_file_name(part) || part.front() == '.') return false;
    for (unsigned char c : part) {
      if (c < 0x20 || c == 0x7f) return false;
    }
    // Names that this program gives to files of its own.
    if (part.ends_with(".incomplete") || part.ends_with(".incomplete.etag")) return false;
    if (slash == std::string_view::npos) return true;
    path.remove_prefix(slash + 1);
  }
}

Result<std::vector<HubFile>> select_model_files(const std::vector<HubFile>& files,
                                                const std::vector<std::string>& include,
                                                const std::string& repository) {
  std::vector<HubFile> selected;
  if (!include.empty()) {
    for (const HubFile& file : files) {
      const bool matches = std::any_of(include.begin(), include.end(), [&](const std::string& pattern) {
        return ::fnmatch(pattern.c_str(), file.name.c_str(), 0) == 0;
      });
      if (matches) selected.push_back(file);
    }
    if (selected.empty()) {
      return not_found(repository + ": none of its " + std::to_string(files.size()) + " files matches " +
                           printable(include[0]) + (include.size() > 1 ? " or the other patterns" : ""),
                       "include");
    }
  } else {
    std::vector<HubFile> ggufs;
    bool has_weights = false;
    bool has_config = false;
    bool has_pickle = false;
    for (const HubFile& file : files) {
      has_weights |= is_weight_shard(file.name);
      has_config |= file.name == "config.json";
      has_pickle |= file.name.ends_with(".bin") || file.name.ends_with(".pth");
      if (file.name.ends_with(".gguf")) ggufs.push_back(file);
    }
    if (has_weights && has_config) {
      for (const HubFile& file : files) {
        if (is_weight_shard(file.name) || file.name == "model.safetensors.index.json" ||
            std::find(kModelFiles.begin(), kModelFiles.end(), file.name) != kModelFiles.end()) {
          selected.push_back(file);
        }
      }
    } else if (!ggufs.empty()) {
      ASSIGN_OR_RETURN(HubFile gguf, choose_gguf(ggufs, repository));
      selected.push_back(std::move(gguf));
    } else {
      return not_found(repository +
                       " holds no model that can be read: looked for config.json with *.safetensors, and "
                       "for *.gguf" +
                       (has_pickle ? std::string("; PyTorch pickle files are not read, because unpickling runs code")
                                   : std::string()));
    }
  }
  for (const HubFile& file : selected) {
    if (!is_safe_relative_path(file.name)) {
      return data_loss(repository + ": the server lists a file " + printable(file.name) +
                       ", a name that is not accepted");
    }
  }
  return selected;
}

}  // namespace sextant

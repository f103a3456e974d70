// Obtains a model: a repository of the Hugging Face Hub ("owner/name" or "owner/name@revision") or an http(s)
// URL of one file, into a per-user cache. Files are checked for length and, where the server names one,
// SHA-256; what is complete is not fetched again. Blocks the calling thread.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"
#include "engine/format/download.h"

namespace sextant {

struct PullProgress {
  std::string file;                     // being fetched
  uint64_t bytes_done = 0;              // of all files
  std::optional<uint64_t> bytes_total;  // of all files, when known
};

struct PullOptions {
  std::string endpoint = "https://huggingface.co";
  std::string token;
  std::string cache_directory;
  // Shell patterns over file names; empty: what a model needs (select_model_files).
  std::vector<std::string> include;
  std::function<void(const PullProgress&)> progress;
  std::function<void(const std::string&)> message;  // "waiting for another pull of the same model"
  TransferOptions transfer;                         // token and token_origin are filled in by pull
};

// HF_ENDPOINT, HF_TOKEN, and the cache: $SEXTANT_CACHE, else $XDG_CACHE_HOME/sextant, else ~/.cache/sextant.
Result<PullOptions> pull_options_from_environment();

struct PullResult {
  std::string path;      // what --model takes: a directory, or one .gguf file
  std::string revision;  // the commit, of a repository
  std::vector<std::string> files;
  uint64_t num_bytes = 0;           // of all files
  uint64_t num_bytes_received = 0;  // over the network by this call
};

Result<PullResult> pull(const std::string& what, const PullOptions& options);

// Exposed for tests and for messages.
struct HubId {
  std::string owner;
  std::string name;
  std::string revision = "main";
  std::string repository() const { return owner + "/" + name; }
};
// Nothing for text that is no repository id; a mere path is none.
std::optional<HubId> parse_hub_id(std::string_view text);

struct HubFile {
  std::string name;  // relative, with '/'
  std::optional<uint64_t> num_bytes;
  std::string sha256;  // of files in large file storage; else empty
};
// The files of a listing to fetch. Names that would leave the directory are refused, whoever chose them.
Result<std::vector<HubFile>> select_model_files(const std::vector<HubFile>& files,
                                                const std::vector<std::string>& include, const std::string& repository);
// Every part a plain file name that does not begin with '.'.
bool is_safe_relative_path(std::string_view path);

}  // namespace sextant

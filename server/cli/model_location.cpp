#include "server/cli/model_location.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <system_error>

#include "engine/format/hub.h"

namespace sextant::cli {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> entries_of(const fs::path& directory) {
  std::vector<fs::path> entries;
  std::error_code error;
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    if (!it->path().filename().string().starts_with(".")) entries.push_back(it->path());
  }
  std::sort(entries.begin(), entries.end());
  return entries;
}

fs::file_time_type written_at(const fs::path& path) {
  std::error_code error;
  const auto time = fs::last_write_time(path, error);
  return error ? fs::file_time_type::min() : time;
}

// Bytes of a finished pull; nothing while files are missing or being fetched.
std::optional<uint64_t> complete_bytes(const fs::path& directory) {
  uint64_t num_bytes = 0;
  bool has_model = false;
  std::error_code error;
  for (fs::recursive_directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (name.ends_with(".incomplete")) return std::nullopt;
    if (!it->is_regular_file(error) || name.starts_with(".")) continue;
    num_bytes += it->file_size(error);
    has_model = has_model || name == "config.json" || name.ends_with(".gguf");
  }
  if (error || !has_model) return std::nullopt;
  return num_bytes;
}

void add_gguf_files(const fs::path& directory, std::vector<CachedModel>& models) {
  for (const fs::path& path : entries_of(directory)) {
    std::error_code error;
    if (path.extension() != ".gguf" || !fs::is_regular_file(path, error)) continue;
    models.push_back({path.string(), path.string(), "", fs::file_size(path, error)});
  }
}

}  // namespace

std::vector<CachedModel> list_cached_models(const std::string& cache_directory) {
  std::vector<CachedModel> models;
  for (const fs::path& repository : entries_of(fs::path(cache_directory) / "hub")) {
    const std::string folder = repository.filename().string();
    const size_t dashes = folder.find("--");
    if (dashes == std::string::npos) continue;
    const std::string name = folder.substr(0, dashes) + "/" + folder.substr(dashes + 2);
    std::vector<fs::path> commits = entries_of(repository);
    std::stable_sort(commits.begin(), commits.end(),
                     [](const fs::path& a, const fs::path& b) { return written_at(a) > written_at(b); });
    for (const fs::path& commit : commits) {
      const auto num_bytes = complete_bytes(commit);
      if (num_bytes) models.push_back({name, commit.string(), commit.filename().string(), *num_bytes});
    }
  }
  for (const fs::path& folder : entries_of(fs::path(cache_directory) / "url")) add_gguf_files(folder, models);
  add_gguf_files(fs::path(cache_directory) / "models", models);
  return models;
}

Result<std::string> locate_model(const std::string& model, const std::string& cache_directory) {
  std::error_code error;
  if (fs::exists(model, error)) return model;
  const std::optional<HubId> id = parse_hub_id(model);
  if (!id) return not_found("model '" + model + "' does not exist", "model");
  for (const CachedModel& cached : list_cached_models(cache_directory)) {
    const bool same_revision = id->revision == "main" || cached.revision.starts_with(id->revision);
    if (cached.name == id->repository() && same_revision) return cached.path;
  }
  return not_found(
      "model '" + model + "' is neither a path here nor in the cache: run `sextant pull " + model + "` first", "model");
}

std::string default_model_name(const std::string& model) {
  std::error_code error;
  if (!fs::exists(model, error)) {
    const std::optional<HubId> id = parse_hub_id(model);
    return id ? id->repository() : model;
  }
  fs::path path = fs::weakly_canonical(model, error);
  if (path.filename().empty()) path = path.parent_path();
  std::string name = path.filename().string();
  if (name.ends_with(".gguf")) name.resize(name.size() - 5);
  return name.empty() ? model : name;
}

}  // namespace sextant::cli

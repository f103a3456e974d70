#include "advisor/predict/trained_cache.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "advisor/embedded.h"
#include "advisor/kb/knowledge_base.h"

namespace sextant::advisor {
namespace {

namespace fs = std::filesystem;

// Changes whenever training finds other figures for the same rows: its method, its folds, what it writes.
constexpr const char* kMethod = "sextant.trained/1";
constexpr size_t kKept = 4;  // files; the least recently used go first

}  // namespace

std::string TrainedCache::key(const std::vector<ServingPoint>& rows, const std::vector<PointFeatures>& features) const {
  std::string all = std::string(kMethod) + '\0' + version_ + '\0' + std::string(embedded_file("kernel.json"));
  NumberWriter numbers;
  for (size_t i = 0; i < rows.size(); ++i) {
    numbers.put(std::array<double, 6>{rows[i].concurrency, rows[i].prompt_tokens, rows[i].output_tokens,
                                      rows[i].ttft_mean_ms, rows[i].tpot_mean_ms, rows[i].tensor_parallel});
    numbers.put(features[i].numbers);
    for (const std::string& name : features[i].names) all += name + '\0';
    all += rows[i].model_id + '\0';
  }
  return sha256_hex(all + numbers.bytes());
}

std::optional<std::string> TrainedCache::read(const std::string& key) {
  hit_ = false;
  if (directory_.empty()) return std::nullopt;
  std::ifstream file(path_of(key), std::ios::binary);
  std::ostringstream content;
  if (!file || !(content << file.rdbuf())) return std::nullopt;
  const std::string all = content.str();
  // key, hash of the rest, the rest
  if (all.size() < 128 || all.compare(0, 64, key) != 0) return std::nullopt;
  std::string learned = all.substr(128);
  if (all.compare(64, 64, sha256_hex(learned)) != 0) return std::nullopt;
  std::error_code ignored;
  fs::last_write_time(path_of(key), fs::file_time_type::clock::now(), ignored);
  hit_ = true;
  return learned;
}

void TrainedCache::write(const std::string& key, const std::string& learned) const {
  if (directory_.empty()) return;
  std::error_code error;
  fs::create_directories(directory_, error);
  const std::string path = path_of(key);
  const std::string part = path + ".part" + std::to_string(getpid());
  {
    std::ofstream file(part, std::ios::binary);
    file << key << sha256_hex(learned) << learned;
    file.close();
    if (!file) {
      fs::remove(part, error);
      return;
    }
  }
  fs::rename(part, path, error);
  if (error) fs::remove(part, error);
  std::vector<std::pair<fs::file_time_type, fs::path>> files;
  for (const auto& entry : fs::directory_iterator(directory_, error))
    if (const std::string name = entry.path().filename().string();
        name.starts_with("trained-") && name.find(".part") == std::string::npos)
      files.emplace_back(entry.last_write_time(error), entry.path());
  std::sort(files.rbegin(), files.rend());
  for (size_t i = kKept; i < files.size(); ++i) fs::remove(files[i].second, error);
}

std::string default_advisor_cache() {
  if (const char* cache = std::getenv("SEXTANT_CACHE"); cache != nullptr && *cache != 0)
    return std::string(cache) + "/advisor";
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && *cache == '/')
    return std::string(cache) + "/sextant/advisor";
  const char* home = std::getenv("HOME");
  return home != nullptr && *home != 0 ? std::string(home) + "/.cache/sextant/advisor" : "";
}

std::optional<double> NumberReader::next() {
  double x = 0;
  if (bytes_.size() < sizeof x) return std::nullopt;
  std::memcpy(&x, bytes_.data(), sizeof x);
  bytes_.remove_prefix(sizeof x);
  return std::isfinite(x) ? std::optional<double>(x) : std::nullopt;
}

bool NumberReader::get(std::vector<double>& list) {
  const auto size = next();
  const size_t left = bytes_.size() / sizeof(double);
  if (!size || !(*size >= 0 && *size <= static_cast<double>(left))) return false;
  list.resize(static_cast<size_t>(*size));
  for (double& x : list) {
    const auto value = next();
    if (!value) return false;
    x = *value;
  }
  return true;
}

}  // namespace sextant::advisor

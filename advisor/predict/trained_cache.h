// What training found out, kept between starts: one file per set of training rows and program version, in the user's cache
// folder. A file that is missing, damaged, of other rows or of another version is no error: training runs again. Several
// processes may read and write at once. It knows numbers only, not what they mean. Not for two threads at once.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "advisor/predict/residual_process.h"

namespace sextant::advisor {

class TrainedCache {
 public:
  // An empty `directory` keeps nothing. `version` is the program's.
  TrainedCache(std::string directory, std::string version)
      : directory_(std::move(directory)), version_(std::move(version)) {}

  // Of the very figures that training uses: rows, their features, the kernels.
  std::string key(const std::vector<ServingPoint>& rows, const std::vector<PointFeatures>& features) const;
  std::optional<std::string> read(const std::string& key);
  // Best effort: a full disk or a folder that cannot be written costs time at the next start, nothing else.
  void write(const std::string& key, const std::string& learned) const;
  void missed() { hit_ = false; }
  bool hit() const { return hit_; }  // the last read was used

 private:
  std::string path_of(const std::string& key) const { return directory_ + "/trained-" + key.substr(0, 32); }

  std::string directory_;
  std::string version_;
  bool hit_ = false;
};

// "advisor" in $SEXTANT_CACHE, else in the user's cache folder; empty when there is neither.
std::string default_advisor_cache();

// Lists of finite numbers as bytes.
class NumberWriter {
 public:
  template <typename List>
  void put(const List& list) {
    add(static_cast<double>(list.size()));
    for (const double x : list) add(x);
  }
  const std::string& bytes() const { return bytes_; }

 private:
  void add(double x) { bytes_.append(reinterpret_cast<const char*>(&x), sizeof x); }
  std::string bytes_;
};

class NumberReader {
 public:
  explicit NumberReader(std::string_view bytes) : bytes_(bytes) {}
  bool get(std::vector<double>& list);
  template <size_t N>
  bool get(std::array<double, N>& list) {
    std::vector<double> read;
    if (!get(read) || read.size() != N) return false;
    for (size_t i = 0; i < N; ++i) list[i] = read[i];
    return true;
  }
  bool done() const { return bytes_.empty(); }

 private:
  std::optional<double> next();
  std::string_view bytes_;
};

}  // namespace sextant::advisor

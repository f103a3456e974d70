// The plain regression that accuracy reports print beside ours: extremely randomised trees (Geurts, Ernst and Wehenkel
// 2006) on the columns of the file as they stand: logarithms of numbers, one column per name. No physics. One thread.
#pragma once

#include <cstdint>
#include <vector>

#include "advisor/predict/roofline.h"

namespace sextant::advisor {

class ExtraTrees {
 public:
  static constexpr int kTrees = 100;
  // log(metric) of the points: each split the best of one random threshold per column, leaves of one row.
  ExtraTrees(const std::vector<ServingPoint>& train, Metric metric, uint64_t seed);
  double milliseconds(const ServingPoint& point) const;

 private:
  struct Node {
    int feature = -1;  // -1: a leaf
    double threshold = 0;
    double value = 0;
    size_t left = 0, right = 0;
  };
  std::vector<double> encode(const ServingPoint& point) const;
  size_t grow(std::vector<size_t>& ids, size_t begin, size_t end, uint64_t& random);

  std::vector<std::vector<std::string>> levels_;  // of each text column
  std::vector<std::vector<double>> rows_;         // encoded training rows; emptied after growth
  std::vector<double> y_;
  std::vector<Node> nodes_;
  std::vector<size_t> roots_;
};

}  // namespace sextant::advisor

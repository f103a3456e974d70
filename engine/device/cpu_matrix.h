// CpuMatrix: a weight matrix in panels (kernels/panel.h), made of parts that are stacked by rows. Neighbouring parts of one type
// share panels, so there is one run of panels per change of type.
#pragma once

#include <vector>

#include "engine/device/backend.h"
#include "engine/device/cpu_memory.h"
#include "engine/device/host_matrix.h"
#include "engine/device/thread_pool.h"
#include "kernels/panel.h"

namespace sextant {

class CpuMatrix final : public WeightMatrix {
 public:
  struct Run {
    kernels::PanelType type;
    int64_t first_row;
    int64_t rows;
    int64_t first_panel;  // counted over all runs
    const uint8_t* panels;

    int64_t num_panels() const { return kernels::num_panels(rows); }
  };

  // Packs on the pool's threads, each of which re-encodes 16 rows at a time of types that are held as another (held_type()). Refuses
  // types, sizes and lengths that do not fit, and values that the held type does not have.
  static Result<std::unique_ptr<CpuMatrix>> create(std::span<const HostMatrix> parts, ThreadPool& pool,
                                                   CpuArena& arena);

  int64_t rows() const override { return rows_; }
  int64_t cols() const override { return cols_; }
  size_t size_bytes() const override { return buffer_->size_bytes(); }

  const std::vector<Run>& runs() const { return runs_; }
  // The pieces in which threads share a product: panels [panel_begin[i], panel_begin[i + 1]), about equal in bytes.
  const std::vector<int64_t>& panel_begin() const { return panel_begin_; }
  // What size_bytes() of a matrix of one part will be.
  static uint64_t bytes_of(WeightType type, int64_t rows, int64_t cols);
  // out[0..cols) = row `row` in fp32.
  void read_row(int64_t row, float* out) const;

 private:
  CpuMatrix() = default;
  Status pack(std::span<const HostMatrix> parts, ThreadPool& pool);
  void split(int num_threads);

  int64_t rows_ = 0;
  int64_t cols_ = 0;
  std::vector<Run> runs_;
  std::vector<int64_t> panel_begin_;
  std::unique_ptr<CpuBuffer> buffer_;
};

}  // namespace sextant

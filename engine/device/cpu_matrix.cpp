// From a file's rows to panels; at load, on the loader's thread and the pool.
#include "engine/device/cpu_matrix.h"

#include <algorithm>
#include <atomic>

namespace sextant {

using kernels::PanelType;

namespace {

// A piece is long beside what claiming it costs, and short beside the step that waits for the last one.
constexpr int64_t kPiecesPerThread = 4;
constexpr int64_t kMinPieceBytes = 32 << 10;
constexpr int64_t kMaxPieceBytes = 512 << 10;

WeightType held(WeightType type) { return *held_type(type, HeldBy::kCpu); }
PanelType panel_type(WeightType type) { return *panel_type_of(held(type)); }

}  // namespace

Result<std::unique_ptr<CpuMatrix>> CpuMatrix::create(std::span<const HostMatrix> parts, ThreadPool& pool,
                                                     CpuArena& arena) {
  if (parts.empty()) return invalid_argument("a weight matrix needs at least one part");
  std::unique_ptr<CpuMatrix> matrix(new CpuMatrix);
  matrix->cols_ = parts[0].cols;
  std::vector<int64_t> offsets;
  int64_t num_panels = 0;
  for (const HostMatrix& part : parts) {
    RETURN_IF_ERROR(check_host_matrix(part, matrix->cols_, "CPU"));
    const PanelType type = panel_type(part.type);
    if (matrix->runs_.empty() || matrix->runs_.back().type != type) {
      matrix->runs_.push_back({type, matrix->rows_, 0, 0, nullptr});
    }
    matrix->runs_.back().rows += part.rows;
    matrix->rows_ += part.rows;
  }
  // Cannot overflow: the parts exist in memory, and panels round them up to 16 rows and 32 columns.
  size_t size_bytes = 0;
  for (Run& run : matrix->runs_) {
    run.first_panel = num_panels;
    num_panels += run.num_panels();
    offsets.push_back(static_cast<int64_t>(size_bytes));
    size_bytes += static_cast<size_t>(run.num_panels() * kernels::panel_bytes(run.type, matrix->cols_));
    size_bytes = (size_bytes + 63) / 64 * 64;
  }
  ASSIGN_OR_RETURN(matrix->buffer_, arena.create(size_bytes));
  for (size_t i = 0; i < offsets.size(); ++i) {
    matrix->runs_[i].panels = static_cast<const uint8_t*>(matrix->buffer_->data()) + offsets[i];
  }
  RETURN_IF_ERROR(matrix->pack(parts, pool));
  matrix->split(pool.num_threads());
  return matrix;
}

uint64_t CpuMatrix::bytes_of(WeightType type, int64_t rows, int64_t cols) {
  if (!is_computable(type))
    return encoded_bytes(type, static_cast<uint64_t>(rows), static_cast<uint64_t>(cols)).value_or(0);
  return static_cast<uint64_t>(kernels::num_panels(rows) * kernels::panel_bytes(panel_type(type), cols));
}

Status CpuMatrix::pack(std::span<const HostMatrix> parts, ThreadPool& pool) {
  size_t next_part = 0;
  std::atomic<const HostMatrix*> refused = nullptr;
  for (const Run& run : runs_) {
    struct Row {
      const HostMatrix* part;
      int64_t at;  // in the part
    };
    std::vector<Row> rows;
    rows.reserve(static_cast<size_t>(run.rows));
    for (; static_cast<int64_t>(rows.size()) < run.rows; ++next_part) {
      for (int64_t r = 0; r < parts[next_part].rows; ++r) rows.push_back({&parts[next_part], r});
    }
    uint8_t* panels =
        static_cast<uint8_t*>(buffer_->data()) + (run.panels - static_cast<const uint8_t*>(buffer_->data()));
    const int64_t panel_bytes = kernels::panel_bytes(run.type, cols_),
                  row_bytes = kernels::file_row_bytes(run.type, cols_);
    pool.parallel_for(run.num_panels(), 1, [&](int64_t begin, int64_t end) {
      std::vector<uint8_t> recoded;
      std::vector<float> values;
      for (int64_t panel = begin; panel < end; ++panel) {
        const uint8_t* of_panel[kernels::kPanelRows] = {};
        for (int64_t r = 0; r < kernels::kPanelRows && panel * kernels::kPanelRows + r < run.rows; ++r) {
          const auto& [part, at] = rows[static_cast<size_t>(panel * kernels::kPanelRows + r)];
          const WeightType type = held(part->type);
          if (type == part->type) {
            of_panel[r] = reinterpret_cast<const uint8_t*>(part->data.data()) + at * row_bytes;
            continue;
          }
          recoded.resize(static_cast<size_t>(kernels::kPanelRows * row_bytes));
          values.resize(static_cast<size_t>(cols_));
          uint8_t* to = recoded.data() + r * row_bytes;
          if (!recode_row(*part, at, type, values.data(), to)) refused = part;
          of_panel[r] = to;
        }
        kernels::cpu::pack_panel(run.type, of_panel, cols_, panels + panel * panel_bytes);
      }
    });
    if (const HostMatrix* part = refused) return does_not_hold(part->type, held(part->type));
  }
  return ok_status();
}

void CpuMatrix::split(int num_threads) {
  int64_t total = 0, num_panels = 0;
  for (const Run& run : runs_) {
    total += run.num_panels() * kernels::panel_bytes(run.type, cols_);
    num_panels += run.num_panels();
  }
  // Pieces for every thread, so that one that is slow or was late does not hold up the others for long.
  const int64_t wanted = num_threads == 1 ? 1
                                          : std::max(std::min(num_threads * kPiecesPerThread, total / kMinPieceBytes),
                                                     total / kMaxPieceBytes);
  const int64_t pieces = std::min(num_panels, std::max<int64_t>(wanted, num_threads));
  panel_begin_ = {0};
  int64_t before = 0;  // bytes
  for (const Run& run : runs_) {
    const int64_t bytes = kernels::panel_bytes(run.type, cols_);
    for (int64_t panel = 0; panel < run.num_panels(); ++panel) {
      // A panel belongs to the piece in which it begins.
      if (before * pieces / total > static_cast<int64_t>(panel_begin_.size()) - 1) {
        panel_begin_.push_back(run.first_panel + panel);
      }
      before += bytes;
    }
  }
  panel_begin_.push_back(num_panels);
}

void CpuMatrix::read_row(int64_t row, float* out) const {
  for (const Run& run : runs_) {
    const int64_t at = row - run.first_row;
    if (at >= run.rows) continue;
    const uint8_t* panel = run.panels + at / kernels::kPanelRows * kernels::panel_bytes(run.type, cols_);
    kernels::cpu::unpack_row(run.type, panel, static_cast<int>(at % kernels::kPanelRows), cols_, out);
    return;
  }
}

}  // namespace sextant

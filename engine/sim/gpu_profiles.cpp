// GPUs by name, out of data/gpu_profiles.csv and data/gpu_aliases.csv, which the build puts into the program. Each row of the
// profiles says where its figures come from.
#include <algorithm>
#include <cctype>
#include <charconv>
#include <string_view>
#include <utility>

#include "engine/base/nearest.h"
#include "engine/sim/gpu_tables.h"
#include "engine/sim/roofline_time.h"

namespace sextant::sim {
namespace {

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

// RFC 4180 without line breaks inside quotes.
std::vector<std::string> fields_of(std::string_view line) {
  std::vector<std::string> fields(1);
  bool quoted = false;
  for (size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (c == '"' && quoted && i + 1 < line.size() && line[i + 1] == '"') {
      fields.back() += '"';
      ++i;
    } else if (c == '"') {
      quoted = !quoted;
    } else if (c == ',' && !quoted) {
      fields.emplace_back();
    } else if (c != '\r') {
      fields.back() += c;
    }
  }
  return fields;
}

std::vector<std::vector<std::string>> rows_of(std::string_view csv) {
  std::vector<std::vector<std::string>> rows;
  while (!csv.empty()) {
    const size_t end = csv.find('\n');
    if (const std::string_view line = csv.substr(0, end); !line.empty()) rows.push_back(fields_of(line));
    csv = end == std::string_view::npos ? std::string_view() : csv.substr(end + 1);
  }
  return rows;
}

// "16/32", of a GPU sold with two sizes, is the smaller.
std::optional<double> number(const std::string& text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool ok = error == std::errc() && (end == text.data() + text.size() || *end == '/');
  return ok ? std::optional(value) : std::nullopt;
}

}  // namespace

Result<std::vector<SimGpu>> parse_gpu_profiles(std::string_view csv) {
  const std::vector<std::vector<std::string>> rows = rows_of(csv);
  if (rows.empty()) return data_loss("the table of GPUs is empty");
  const auto column = [&](std::string_view name) {
    return static_cast<size_t>(std::find(rows[0].begin(), rows[0].end(), name) - rows[0].begin());
  };
  std::vector<SimGpu> gpus;
  for (size_t r = 1; r < rows.size(); ++r) {
    const auto text = [&](std::string_view name) {
      const size_t c = column(name);
      return c < rows[r].size() ? rows[r][c] : std::string();
    };
    SimGpu gpu;
    gpu.name = text("gpu");
    gpu.vendor = text("vendor");
    gpu.source = text("source");
    const auto memory_gib = number(text("memory_gib"));
    const auto gb_per_s = number(text("mem_bw_gbs"));
    if (!memory_gib || !gb_per_s) return data_loss("the table of GPUs: row " + std::to_string(r) + " lacks its memory");
    gpu.memory_gib = *memory_gib;
    gpu.bytes_per_s = *gb_per_s * 1e9;
    const auto flops = [&](const char* name) {
      const auto tera = number(text(name));
      return tera ? std::optional(*tera * 1e12) : std::nullopt;
    };
    gpu.bf16_flops_per_s = flops("bf16_dense_tflops");
    gpu.fp16_flops_per_s = flops("fp16_dense_tflops");
    const double both_directions = number(text("nvlink_gbs_bidir")).value_or(0);
    gpu.link_bytes_per_s =
        (both_directions > 0 ? both_directions / 2 : number(text("pcie_gbs_unidir")).value_or(16)) * 1e9;
    gpus.push_back(std::move(gpu));
  }
  return gpus;
}

std::vector<std::string> gpu_names() {
  std::vector<std::string> names;
  for (const auto& row : rows_of(kGpuProfilesCsv)) names.push_back(row[0]);
  names.erase(names.begin());
  return names;
}

Result<SimGpu> find_gpu(const std::string& name) {
  std::string wanted = lower(name);
  std::vector<std::string> known = gpu_names();
  for (const auto& row : rows_of(kGpuAliasesCsv)) {
    if (row.size() < 2) continue;
    if (lower(row[0]) == wanted) wanted = lower(row[1]);
    known.push_back(row[0]);
  }
  ASSIGN_OR_RETURN(const std::vector<SimGpu> gpus, parse_gpu_profiles(kGpuProfilesCsv));
  for (const SimGpu& gpu : gpus) {
    if (lower(gpu.name) == wanted) return gpu;
  }
  const auto nearest = nearest_name(name, known);
  std::string list;
  for (const SimGpu& gpu : gpus) list += (list.empty() ? "" : ", ") + gpu.name;
  return invalid_argument("gpu_type '" + name + "' is not known" +
                              (nearest ? "; did you mean " + *nearest + "?" : ".") + " Known are " + list,
                          "gpu_type");
}

}  // namespace sextant::sim

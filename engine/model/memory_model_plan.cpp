// MemoryPlan: how a budget is divided into weights, workspace and KV cache blocks, and what that holds.

#include <algorithm>
#include <array>
#include <cstdio>

#include "engine/model/memory_model.h"

namespace sextant {
namespace {

// Block ids are int32.
constexpr int64_t kMaxBlocks = INT32_MAX;

Status too_large(std::string message, std::string param) {
  return Status(StatusCode::kTooLarge, std::move(message), std::move(param));
}

std::string in_model(const MemoryPlanInputs& inputs) {
  return inputs.model.empty() ? std::string() : inputs.model + ": ";
}

}  // namespace

int64_t MemoryPlan::sequences_of(int64_t num_tokens) const {
  if (num_tokens <= 0 || num_blocks <= 1) return 0;
  const int64_t blocks = (num_tokens - 1) / block_size + 1;
  return (num_blocks - 1) / blocks;
}

Result<MemoryPlan> plan_memory(const MemoryPlanInputs& inputs) {
  CHECK_GT(inputs.kv_bytes_per_token, 0u);
  CHECK_GT(inputs.block_size, 0);
  CHECK_GT(inputs.max_model_len, 0);
  const uint64_t block_bytes = inputs.kv_bytes_per_token * static_cast<uint64_t>(inputs.block_size);
  const uint64_t fixed = inputs.weights_bytes + inputs.workspace_bytes;
  // One sequence of the full length, and the null block.
  const uint64_t needed_blocks = static_cast<uint64_t>((inputs.max_model_len - 1) / inputs.block_size) + 2;
  uint64_t needed_kv = 0;
  if (__builtin_mul_overflow(needed_blocks, block_bytes, &needed_kv)) needed_kv = UINT64_MAX;
  const std::string budget = format_bytes(inputs.weights_bytes) + " of weights and " +
                             format_bytes(inputs.workspace_bytes) + " of workspace, of " +
                             format_bytes(inputs.available_bytes) + " that may be used";

  if (fixed > inputs.available_bytes || inputs.available_bytes - fixed < 2 * block_bytes) {
    return too_large(in_model(inputs) + "does not fit: " + budget + ". At least " +
                         format_bytes(fixed + 2 * block_bytes) + " are needed; with the full context of " +
                         format_count(inputs.max_model_len) + " tokens " +
                         (needed_kv > UINT64_MAX - fixed ? std::string("far more") : format_bytes(fixed + needed_kv)),
                     "model");
  }
  const uint64_t room = inputs.available_bytes - fixed;
  if (inputs.kv_cache_bytes && *inputs.kv_cache_bytes > room) {
    return too_large(in_model(inputs) + "a KV cache of " + format_bytes(*inputs.kv_cache_bytes) +
                         " does not fit beside " + budget + "; at most " + format_bytes(room) + " would",
                     "kv_cache_memory_bytes");
  }
  const uint64_t kv_budget = inputs.kv_cache_bytes.value_or(room);
  const int64_t num_blocks =
      static_cast<int64_t>(std::min<uint64_t>(kv_budget / block_bytes, static_cast<uint64_t>(kMaxBlocks)));
  if (static_cast<uint64_t>(num_blocks) < needed_blocks) {
    const int64_t fits = std::max<int64_t>(num_blocks - 1, 0) * inputs.block_size;
    return too_large(in_model(inputs) + "one sequence of " + format_count(inputs.max_model_len) +
                         " tokens needs a KV cache of " + format_bytes(needed_kv) + ", there is room for " +
                         format_bytes(kv_budget) + " (" + budget + "). A context of " + format_count(fits) +
                         " tokens would fit: lower max_model_len to that, or give more memory",
                     inputs.kv_cache_bytes ? "kv_cache_memory_bytes" : "max_model_len");
  }
  MemoryPlan plan;
  plan.model = inputs.model;
  plan.weights_bytes = inputs.weights_bytes;
  plan.workspace_bytes = inputs.workspace_bytes;
  plan.kv_cache_bytes = static_cast<uint64_t>(num_blocks) * block_bytes;
  plan.total_bytes = fixed + plan.kv_cache_bytes;
  plan.available_bytes = inputs.available_bytes;
  plan.kv_bytes_per_token = inputs.kv_bytes_per_token;
  plan.block_size = inputs.block_size;
  plan.num_blocks = num_blocks;
  plan.max_tokens = (num_blocks - 1) * inputs.block_size;
  plan.max_model_len = inputs.max_model_len;
  plan.max_num_seqs = inputs.max_num_seqs;
  return plan;
}

std::string render(const MemoryPlan& plan) {
  std::string text = "memory plan" + (plan.model.empty() ? std::string() : " of " + plan.model) + "\n";
  const auto line = [&](const char* name, uint64_t bytes, const std::string& note) {
    char row[64];
    std::snprintf(row, sizeof(row), "  %-10s %12s", name, format_bytes(bytes).c_str());
    text += row + (note.empty() ? std::string() : "   " + note) + "\n";
  };
  line("weights", plan.weights_bytes, "");
  line("KV cache", plan.kv_cache_bytes,
       format_count(plan.max_tokens) + " tokens: " + format_count(plan.num_blocks) + " blocks of " +
           std::to_string(plan.block_size) + ", " + format_bytes(plan.kv_bytes_per_token) + " a token");
  line("workspace", plan.workspace_bytes, "");
  line("total", plan.total_bytes, "of " + format_bytes(plan.available_bytes) + " that may be used");

  const int64_t full = plan.max_model_len;
  const int64_t quarter = full / 4;
  text += "  fits " + format_count(plan.sequences_of(full)) +
          (plan.sequences_of(full) == 1 ? " sequence" : " sequences") + " of " + format_count(full) + " tokens";
  if (quarter >= plan.block_size) {
    text += " or " + format_count(plan.sequences_of(quarter)) + " of " + format_count(quarter);
  }
  if (plan.max_num_seqs > 0) text += "; at most " + format_count(plan.max_num_seqs) + " run at once";
  return text + "\n";
}

std::string format_bytes(uint64_t bytes) {
  static constexpr std::array<const char*, 7> kUnits = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  if (bytes < 1024) return std::to_string(bytes) + " B";
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  // 1023.995 would print as "1024.00".
  while (value >= 1023.995 && unit + 1 < kUnits.size()) {
    value /= 1024.0;
    ++unit;
  }
  char text[32];
  std::snprintf(text, sizeof(text),
                value < 9.995   ? "%.2f %s"
                : value < 99.95 ? "%.1f %s"
                                : "%.0f %s",
                value, kUnits[unit]);
  return text;
}

std::string format_count(int64_t count) {
  std::string digits = std::to_string(count);
  const size_t first = count < 0 ? 1 : 0;
  for (size_t at = digits.size(); at > first + 3; at -= 3) digits.insert(at - 3, 1, ',');
  return digits;
}

}  // namespace sextant

#include "engine/format/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>
#include <utility>

#include "engine/format/json_file.h"
#include "engine/format/printable.h"

namespace sextant {
namespace {

using Json = nlohmann::json;

static_assert(std::endian::native == std::endian::little, "numbers are copied from the file as they are");

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit
constexpr int kMaxHeaderDepth = 4;                 // {tensor: {shape: [..]}} needs 3
constexpr size_t kMaxShards = 4096;
constexpr size_t kMaxTensorNameLength = 1024;
constexpr size_t kMaxDimensions = 16;
constexpr std::string_view kIndexSuffix = ".safetensors.index.json";

bool has_suffix(std::string_view text, std::string_view suffix) {
  return text.size() > suffix.size() && text.substr(text.size() - suffix.size()) == suffix;
}

std::optional<WeightType> type_of_dtype(const std::string& dtype) {
  const std::optional<WeightType> type = parse_weight_type(dtype);
  // Block types have names too, but none that a safetensors file can use.
  if (!type || is_block_quantized(*type)) return std::nullopt;
  return type;
}

// One entry of the header. Offsets stay relative to the end of the header.
Result<TensorInfo> parse_entry(const std::string& name, const Json& entry, const std::string& path) {
  const auto fail = [&](const std::string& what) {
    return data_loss(path + ": tensor " + printable(name) + ": " + what);
  };
  if (name.empty() || name.size() > kMaxTensorNameLength) {
    return fail("its name has " + std::to_string(name.size()) + " bytes, 1 to " + std::to_string(kMaxTensorNameLength) +
                " are allowed");
  }
  if (!entry.is_object()) return fail("its entry is no object");
  const auto dtype = entry.find("dtype");
  if (dtype == entry.end() || !dtype->is_string()) return fail("dtype is missing or no string");
  const std::optional<WeightType> type = type_of_dtype(dtype->get_ref<const std::string&>());
  if (!type) return fail("dtype " + printable(dtype->get_ref<const std::string&>()) + " is not known");
  TensorInfo info;
  info.name = name;
  info.type = *type;

  const auto shape = entry.find("shape");
  if (shape == entry.end() || !shape->is_array() || shape->size() > kMaxDimensions) {
    return fail("shape is missing, no array, or has more than " + std::to_string(kMaxDimensions) + " dimensions");
  }
  uint64_t num_elements = 1;
  for (const Json& dimension : *shape) {
    if (!dimension.is_number_unsigned() || dimension.get<uint64_t>() > INT64_MAX) {
      return fail("shape has an impossible dimension " + printable(dimension.dump(), 40));
    }
    const uint64_t size = dimension.get<uint64_t>();
    if (__builtin_mul_overflow(num_elements, size, &num_elements)) return fail("the shape overflows");
    info.shape.push_back(static_cast<int64_t>(size));
  }
  const std::optional<uint64_t> num_bytes = encoded_bytes(*type, 1, num_elements);
  if (!num_bytes) return fail("the shape overflows");

  const auto offsets = entry.find("data_offsets");
  if (offsets == entry.end() || !offsets->is_array() || offsets->size() != 2 || !(*offsets)[0].is_number_unsigned() ||
      !(*offsets)[1].is_number_unsigned()) {
    return fail("data_offsets is missing or no pair of offsets");
  }
  const uint64_t begin = (*offsets)[0].get<uint64_t>();
  const uint64_t end = (*offsets)[1].get<uint64_t>();
  if (end < begin || end - begin != *num_bytes) {
    return fail("data_offsets " + std::to_string(begin) + " to " + std::to_string(end) + " do not match " +
                TensorSource::describe(info) + ", which takes " + std::to_string(*num_bytes) + " bytes");
  }
  info.offset = begin;
  info.num_bytes = *num_bytes;
  return info;
}

// The data must be covered from its first to its last byte, each byte once.
Status check_coverage(std::vector<TensorInfo>& tensors, uint64_t data_begin, uint64_t data_bytes,
                      const std::string& path) {
  std::sort(tensors.begin(), tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::pair(a.offset, a.num_bytes) < std::pair(b.offset, b.num_bytes);
  });
  uint64_t covered = 0;
  for (const TensorInfo& info : tensors) {
    const auto fail = [&](const std::string& what) {
      return data_loss(path + ": at byte " + std::to_string(data_begin + covered) + ": tensor " + printable(info.name) +
                       " " + what);
    };
    if (info.num_bytes > data_bytes || info.offset > data_bytes - info.num_bytes) {
      return fail("ends at byte " + std::to_string(info.offset + info.num_bytes) + " of " + std::to_string(data_bytes) +
                  " bytes of data; was the download or copy cut short?");
    }
    if (info.offset < covered) return fail("overlaps the tensor before it");
    if (info.offset > covered) {
      return fail("leaves a hole of " + std::to_string(info.offset - covered) + " bytes before it");
    }
    covered += info.num_bytes;
  }
  if (covered != data_bytes) {
    return data_loss(path + ": at byte " + std::to_string(data_begin + covered) + ": " +
                     std::to_string(data_bytes - covered) + " bytes belong to no tensor");
  }
  return ok_status();
}

}  // namespace

bool is_plain_file_name(std::string_view name) {
  return !name.empty() && name.size() <= 255 && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\\\0", 3)) == std::string_view::npos;
}

Result<std::unique_ptr<SafetensorsSource>> SafetensorsSource::open(const std::string& path) {
  namespace fs = std::filesystem;
  std::unique_ptr<SafetensorsSource> source(new SafetensorsSource(path));
  std::error_code error;
  if (!fs::is_directory(path, error)) {
    RETURN_IF_ERROR(has_suffix(path, kIndexSuffix) ? source->add_shards(path) : source->add_file(path));
    return source;
  }
  const std::string single = path + "/model.safetensors";
  const std::string index = path + "/model.safetensors.index.json";
  if (fs::is_regular_file(single, error)) {
    RETURN_IF_ERROR(source->add_file(single));
    return source;
  }
  if (fs::is_regular_file(index, error)) {
    RETURN_IF_ERROR(source->add_shards(index));
    return source;
  }
  std::vector<std::string> others;
  for (fs::directory_iterator it(path, error), end; !error && it != end; it.increment(error)) {
    if (has_suffix(it->path().filename().string(), ".safetensors")) others.push_back(it->path().string());
  }
  if (others.size() == 1) {
    RETURN_IF_ERROR(source->add_file(others[0]));
    return source;
  }
  return not_found(path + ": no weights: looked for model.safetensors and model.safetensors.index.json" +
                   (others.empty() ? std::string()
                                   : "; there are " + std::to_string(others.size()) +
                                         " .safetensors files and no index that says which belong together"));
}

Status SafetensorsSource::add_file(const std::string& path) {
  ASSIGN_OR_RETURN(RandomAccessFile file, RandomAccessFile::open(path));
  uint64_t header_bytes = 0;
  if (file.size() < sizeof(header_bytes)) {
    return data_loss(path + ": at byte 0: " + std::to_string(file.size()) +
                     " bytes are too few for a safetensors file");
  }
  RETURN_IF_ERROR(file.read_at(0, std::as_writable_bytes(std::span(&header_bytes, 1))));
  const uint64_t after_length = file.size() - sizeof(header_bytes);
  if (header_bytes < 2 || header_bytes > after_length || header_bytes > kMaxHeaderBytes) {
    return data_loss(path + ": at byte 0: the header claims " + std::to_string(header_bytes) + " bytes; the file has " +
                     std::to_string(after_length) + " after this number, and at most " +
                     std::to_string(kMaxHeaderBytes) + " are allowed. Is this a safetensors file?");
  }
  std::string text(static_cast<size_t>(header_bytes), '\0');
  RETURN_IF_ERROR(file.read_at(sizeof(header_bytes), std::as_writable_bytes(std::span(text.data(), text.size()))));
  JsonLimits limits;
  limits.max_depth = kMaxHeaderDepth;
  ASSIGN_OR_RETURN(const Json header, parse_json(text, path + ": header after byte 8", limits));
  if (!header.is_object()) return data_loss(path + ": at byte 8: the header is no JSON object");

  const uint64_t data_begin = sizeof(header_bytes) + header_bytes;
  const uint64_t data_bytes = file.size() - data_begin;
  std::vector<TensorInfo> added;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      if (!entry.is_object()) return data_loss(path + ": __metadata__ is no object");
      continue;
    }
    ASSIGN_OR_RETURN(TensorInfo info, parse_entry(name, entry, path));
    added.push_back(std::move(info));
  }
  RETURN_IF_ERROR(check_coverage(added, data_begin, data_bytes, path));
  for (TensorInfo& info : added) {
    const auto [it, inserted] = tensor_idx_by_name_.emplace(info.name, tensors_.size());
    if (!inserted) {
      return data_loss(path + ": tensor " + printable(info.name) + " is also in " +
                       files_[tensors_[it->second].file_idx].path());
    }
    info.offset += data_begin;
    info.file_idx = static_cast<uint32_t>(files_.size());
    tensors_.push_back(std::move(info));
  }
  files_.push_back(std::move(file));
  return ok_status();
}

Status SafetensorsSource::add_shards(const std::string& index_path) {
  ASSIGN_OR_RETURN(const Json index, read_json_file(index_path));
  const auto weight_map = index.is_object() ? index.find("weight_map") : index.end();
  if (weight_map == index.end() || !weight_map->is_object() || weight_map->empty()) {
    return data_loss(index_path + ": weight_map is missing, empty or no object");
  }
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : weight_map->items()) {
    if (!shard.is_string() || !is_plain_file_name(shard.get_ref<const std::string&>()) ||
        !has_suffix(shard.get_ref<const std::string&>(), ".safetensors")) {
      return data_loss(index_path + ": weight_map names " + printable(shard.dump(), 80) + " for tensor " +
                       printable(tensor) + "; a .safetensors file in the same directory is needed");
    }
    shards.insert(shard.get<std::string>());
    if (shards.size() > kMaxShards) {
      return data_loss(index_path + ": more than " + std::to_string(kMaxShards) + " shards");
    }
  }
  const std::string directory = std::filesystem::path(index_path).parent_path().string();
  const std::string prefix = directory.empty() ? "" : directory + "/";
  std::string missing;
  size_t num_missing = 0;
  for (const std::string& shard : shards) {
    std::error_code error;
    if (std::filesystem::is_regular_file(prefix + shard, error)) continue;
    if (++num_missing <= 5) missing += (missing.empty() ? "" : ", ") + printable(shard);
  }
  if (num_missing > 0) {
    return not_found(index_path + ": " + std::to_string(num_missing) + " of " + std::to_string(shards.size()) +
                     " shards are missing: " + missing + (num_missing > 5 ? ", ..." : ""));
  }
  for (const std::string& shard : shards) RETURN_IF_ERROR(add_file(prefix + shard));
  for (const auto& [tensor, shard] : weight_map->items()) {
    const TensorInfo* info = find(tensor);
    if (!info || file_path(info->file_idx) != prefix + shard.get_ref<const std::string&>()) {
      return data_loss(index_path + ": tensor " + printable(tensor) + " is not in " +
                       shard.get_ref<const std::string&>() + " as weight_map says");
    }
  }
  return ok_status();
}

const TensorInfo* SafetensorsSource::find(std::string_view name) const {
  const auto it = tensor_idx_by_name_.find(std::string(name));
  return it == tensor_idx_by_name_.end() ? nullptr : &tensors_[it->second];
}

Status SafetensorsSource::read_range(const TensorInfo& info, uint64_t begin, std::span<std::byte> out) const {
  CHECK(begin <= info.num_bytes && out.size() <= info.num_bytes - begin) << info.name;
  return files_[info.file_idx].read_at(info.offset + begin, out);
}

}  // namespace sextant

#include "engine/step_dump.h"

#include <fcntl.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <concepts>
#include <cstring>
#include <ctime>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <type_traits>
#include <utility>

#include "engine/format/json_file.h"

namespace sextant {
namespace {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;

constexpr int64_t kVersion = 1;
// A step of a million prompt tokens and its history.
constexpr JsonLimits kLimits = {.max_bytes = size_t{1} << 30, .max_depth = 16, .max_values = 32'000'000};

// --- the fields, once for both directions ----------------------------------------------------------------------------

template <typename Params, typename Visitor>
void visit_sampling(Params& params, Visitor&& visitor) {
  visitor("n", params.n);
  visitor("temperature", params.temperature);
  visitor("top_p", params.top_p);
  visitor("top_k", params.top_k);
  visitor("min_p", params.min_p);
  visitor("presence_penalty", params.presence_penalty);
  visitor("frequency_penalty", params.frequency_penalty);
  visitor("repetition_penalty", params.repetition_penalty);
  visitor("logit_bias", params.logit_bias);
  visitor("allowed_token_ids", params.allowed_token_ids);
  visitor("seed", params.seed);
  visitor("max_tokens", params.max_tokens);
  visitor("min_tokens", params.min_tokens);
  visitor("ignore_eos", params.ignore_eos);
  visitor("stop_token_ids", params.stop_token_ids);
  visitor("logprobs", params.logprobs);
  visitor("prompt_logprobs", params.prompt_logprobs);
}

template <typename Scheduled, typename Visitor>
void visit_scheduled(Scheduled& scheduled, Visitor&& visitor) {
  visitor("sequence_id", scheduled.sequence_id);
  visitor("num_computed_tokens", scheduled.num_computed_tokens);
  visitor("num_scheduled_tokens", scheduled.num_scheduled_tokens);
  visitor("token_offset", scheduled.token_offset);
  visitor("num_prompt_tokens", scheduled.num_prompt_tokens);
  visitor("restarts_block_table", scheduled.restarts_block_table);
  visitor("samples", scheduled.samples);
  visitor("last_token_on_device", scheduled.last_token_on_device);
}

// --- writing ---------------------------------------------------------------------------------------------------------

template <typename T>
OrderedJson to_json(const T& value) {
  return value;
}
template <typename T>
OrderedJson to_json(const std::optional<T>& value) {
  return value ? OrderedJson(*value) : OrderedJson(nullptr);
}

auto writer(OrderedJson& object) {
  return [&object](const char* key, const auto& field, const char* = nullptr) { object[key] = to_json(field); };
}

OrderedJson render(const SchedulerOutput& step) {
  OrderedJson object = {{"step_id", step.step_id}};
  object["new_sequences"] = OrderedJson::array();
  for (const NewSequence& added : step.new_sequences) object["new_sequences"].push_back(added.sequence_id);
  object["sequences"] = OrderedJson::array();
  for (const ScheduledSequence& scheduled : step.sequences) {
    visit_scheduled(scheduled, writer(object["sequences"].emplace_back(OrderedJson::object())));
  }
  object["token_ids"] = step.token_ids;
  object["new_blocks"] = OrderedJson::array();
  for (const NewBlocks& group : step.new_blocks) {
    object["new_blocks"].push_back({{"block_ids", group.block_ids}, {"offsets", group.offsets}});
  }
  object["finished_sequences"] = step.finished_sequences;
  return object;
}

// --- reading ---------------------------------------------------------------------------------------------------------

// Each read() is false when the value is not of the field's type or does not fit into it.
bool read(const Json& value, bool& field) {
  if (!value.is_boolean()) return false;
  field = value.get<bool>();
  return true;
}

template <std::integral T>
bool read(const Json& value, T& field) {
  using Limits = std::numeric_limits<T>;
  if (value.is_number_unsigned()) {
    const auto number = value.get<uint64_t>();
    if (number > static_cast<uint64_t>(Limits::max())) return false;
    field = static_cast<T>(number);
    return true;
  }
  if (!value.is_number_integer() || std::is_unsigned_v<T>) return false;
  const auto number = value.get<int64_t>();
  if (number < static_cast<int64_t>(Limits::min())) return false;  // negative, as it is not unsigned
  field = static_cast<T>(number);
  return true;
}

template <std::floating_point T>
bool read(const Json& value, T& field) {
  if (!value.is_number()) return false;
  const auto number = value.get<double>();
  if (!(number >= -static_cast<double>(std::numeric_limits<T>::max()) &&
        number <= static_cast<double>(std::numeric_limits<T>::max()))) {
    return false;
  }
  field = static_cast<T>(number);
  return true;
}

bool read(const Json& value, std::string& field) {
  if (!value.is_string()) return false;
  field = value.get<std::string>();
  return true;
}

template <typename T>
bool read(const Json& value, std::optional<T>& field) {
  if (value.is_null()) {
    field.reset();
    return true;
  }
  return read(value, field.emplace());
}

template <typename First, typename Second>
bool read(const Json& value, std::pair<First, Second>& field) {
  return value.is_array() && value.size() == 2 && read(value[0], field.first) && read(value[1], field.second);
}

template <typename T>
bool read(const Json& value, std::vector<T>& field) {
  if (!value.is_array()) return false;
  field.clear();
  field.reserve(value.size());
  for (const Json& element : value) {
    if (!read(element, field.emplace_back())) return false;
  }
  return true;
}

// The fields of one object; the first thing wrong with it is what status() says. Every field is required and no other is
// taken, so that nothing is lost between versions unsaid.
class ObjectReader {
 public:
  ObjectReader(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object.is_object()) fail(" must be an object");
  }
  template <typename T>
  void operator()(const char* key, T& field) {
    if (const Json* value = find(key); value != nullptr && !read(*value, field)) {
      fail(std::string(".") + key + " is of the wrong type or out of range");
    }
  }
  // An array or object that the caller reads; an empty array when there is none.
  const Json& child(const char* key) {
    static const Json kNone = Json::array();
    const Json* value = find(key);
    return value == nullptr ? kNone : *value;
  }
  Status status() {
    if (status_.ok() && object_.size() != num_fields_) fail(" has fields that are not known");
    return status_;
  }

 private:
  const Json* find(const char* key) {
    if (!status_.ok()) return nullptr;
    const auto found = object_.find(key);
    if (found == object_.end()) {
      fail(std::string(".") + key + " is missing");
      return nullptr;
    }
    ++num_fields_;
    return &*found;
  }
  void fail(const std::string& what) {
    if (status_.ok()) status_ = data_loss(where_ + what);
  }

  const Json& object_;
  std::string where_;
  size_t num_fields_ = 0;
  Status status_;
};

class Parser {
 public:
  explicit Parser(std::string_view name) : name_(name) {}

  Result<StepDump> parse(const Json& document) {
    ObjectReader reader(document, name_);
    int64_t version = 0;
    reader("version", version);
    if (version != kVersion && document.is_object() && document.contains("version")) {
      return wrong("has version " + document["version"].dump().substr(0, 24) + ", this program reads version " +
                   std::to_string(kVersion));
    }
    reader("reason", dump_.reason);
    reader("device", dump_.device);
    const Json& config = reader.child("config");
    const Json& requests = reader.child("requests");
    const Json& sequences = reader.child("sequences");
    const Json& steps = reader.child("steps");
    RETURN_IF_ERROR(reader.status());
    RETURN_IF_ERROR(parse_config(config));
    RETURN_IF_ERROR(each(requests, "requests",
                         [&](const Json& value, const std::string& where) { return parse_request(value, where); }));
    RETURN_IF_ERROR(each(sequences, "sequences",
                         [&](const Json& value, const std::string& where) { return parse_sequence(value, where); }));
    RETURN_IF_ERROR(
        each(steps, "steps", [&](const Json& value, const std::string& where) { return parse_step(value, where); }));
    return std::move(dump_);
  }

 private:
  Status wrong(const std::string& what) const { return data_loss(name_ + ": " + what); }

  template <typename Body>
  Status each(const Json& list, const std::string& key, const Body& body) const {
    if (!list.is_array()) return wrong(key + " must be an array");
    for (size_t i = 0; i < list.size(); ++i) {
      RETURN_IF_ERROR(body(list[i], name_ + ": " + key + "[" + std::to_string(i) + "]"));
    }
    return ok_status();
  }

  // Settings that are missing keep their defaults: an older program did not have them.
  Status parse_config(const Json& config) {
    if (!config.is_object()) return wrong("config must be an object");
    size_t num_known = 0;
    Status status;
    visit_engine_config(dump_.config, [&](const char* key, auto& field, const char*) {
      const auto found = config.find(key);
      if (found == config.end()) return;
      ++num_known;
      if (!read(*found, field) && status.ok()) {
        status = wrong(std::string("config.") + key + " is of the wrong type or out of range");
      }
    });
    RETURN_IF_ERROR(status);
    if (num_known != config.size()) return wrong("config has settings that are not known");
    return ok_status();
  }

  Status parse_request(const Json& value, const std::string& where) {
    auto request = std::make_shared<Request>();
    ObjectReader reader(value, where);
    reader("request_id", request->request_id);
    reader("prompt_token_ids", request->prompt_token_ids);
    const Json& sampling = reader.child("sampling");
    RETURN_IF_ERROR(reader.status());
    ObjectReader sampling_reader(sampling, where + ".sampling");
    visit_sampling(request->sampling, sampling_reader);
    RETURN_IF_ERROR(sampling_reader.status());
    if (const Status valid = request->sampling.validate(std::numeric_limits<int32_t>::max()); !valid.ok()) {
      return data_loss(where + ".sampling: " + valid.message());
    }
    RETURN_IF_ERROR(check_ids(request->prompt_token_ids, where + ".prompt_token_ids"));
    if (request->prompt_token_ids.empty()) return data_loss(where + ".prompt_token_ids is empty");
    const RequestId request_id = request->request_id;
    if (!requests_.emplace(request_id, std::move(request)).second) return data_loss(where + " is there twice");
    return ok_status();
  }

  Status parse_sequence(const Json& value, const std::string& where) {
    StepDump::SequenceState sequence;
    RequestId request_id = 0;
    ObjectReader reader(value, where);
    reader("sequence_id", sequence.sequence_id);
    reader("choice_idx", sequence.choice_idx);
    reader("request_id", request_id);
    reader("output_token_ids", sequence.output_token_ids);
    reader("block_tables", sequence.block_tables);
    RETURN_IF_ERROR(reader.status());
    const auto request = requests_.find(request_id);
    if (request == requests_.end()) {
      return data_loss(where + " belongs to request " + std::to_string(request_id) + ", which is not there");
    }
    sequence.request = request->second;
    if (sequence.choice_idx < 0 || sequence.choice_idx >= sequence.request->sampling.n) {
      return data_loss(where + ".choice_idx is not one of its request's");
    }
    RETURN_IF_ERROR(check_ids(sequence.output_token_ids, where + ".output_token_ids"));
    for (const std::vector<BlockId>& table : sequence.block_tables) {
      RETURN_IF_ERROR(check_ids(table, where + ".block_tables"));
    }
    if (!sequences_.emplace(sequence.sequence_id, dump_.sequences.size()).second) {
      return data_loss(where + " is there twice");
    }
    dump_.sequences.push_back(std::move(sequence));
    return ok_status();
  }

  Status parse_step(const Json& value, const std::string& where) {
    SchedulerOutput step;
    std::vector<SequenceId> new_sequences;
    ObjectReader reader(value, where);
    reader("step_id", step.step_id);
    reader("new_sequences", new_sequences);
    const Json& sequences = reader.child("sequences");
    reader("token_ids", step.token_ids);
    const Json& new_blocks = reader.child("new_blocks");
    reader("finished_sequences", step.finished_sequences);
    RETURN_IF_ERROR(reader.status());
    if (!dump_.steps.empty() && step.step_id <= dump_.steps.back()->step_id) {
      return data_loss(where + ".step_id does not come after the step before");
    }
    RETURN_IF_ERROR(check_ids(step.token_ids, where + ".token_ids"));
    if (!sequences.is_array() || sequences.empty()) return data_loss(where + ".sequences must be a list with entries");
    int64_t offset = 0;
    std::set<SequenceId> seen;
    for (size_t i = 0; i < sequences.size(); ++i) {
      RETURN_IF_ERROR(parse_scheduled(sequences[i], where + ".sequences[" + std::to_string(i) + "]", offset, seen,
                                      step.sequences.emplace_back()));
    }
    if (offset != static_cast<int64_t>(step.token_ids.size())) {
      return data_loss(where + ".token_ids are not as many as the sequences have");
    }
    if (!new_blocks.is_array()) return data_loss(where + ".new_blocks must be an array");
    for (size_t g = 0; g < new_blocks.size(); ++g) {
      NewBlocks& group = step.new_blocks.emplace_back();
      RETURN_IF_ERROR(
          parse_new_blocks(new_blocks[g], where + ".new_blocks[" + std::to_string(g) + "]", sequences.size(), group));
    }
    for (const SequenceId sequence_id : seen) {
      if (dump_.sequences[sequences_.at(sequence_id)].block_tables.size() != step.new_blocks.size()) {
        return data_loss(where + " has other cache groups than sequence " + std::to_string(sequence_id));
      }
    }
    for (const SequenceId sequence_id : new_sequences) {
      if (!seen.contains(sequence_id)) {
        return data_loss(where + ".new_sequences names " + std::to_string(sequence_id) +
                         ", which it does not schedule");
      }
      const StepDump::SequenceState& state = dump_.sequences[sequences_.at(sequence_id)];
      step.new_sequences.push_back({sequence_id, state.choice_idx, state.request});
    }
    dump_.steps.push_back(std::make_shared<const SchedulerOutput>(std::move(step)));
    return ok_status();
  }

  Status parse_scheduled(const Json& value, const std::string& where, int64_t& offset, std::set<SequenceId>& seen,
                         ScheduledSequence& scheduled) const {
    ObjectReader reader(value, where);
    visit_scheduled(scheduled, reader);
    RETURN_IF_ERROR(reader.status());
    const auto known = sequences_.find(scheduled.sequence_id);
    if (known == sequences_.end()) return data_loss(where + " is of a sequence that is not there");
    if (!seen.insert(scheduled.sequence_id).second) return data_loss(where + " is of a sequence scheduled before");
    if (scheduled.token_offset != offset || scheduled.num_scheduled_tokens < 1 || scheduled.num_computed_tokens < 0) {
      return data_loss(where + " does not follow the sequence before it");
    }
    offset += scheduled.num_scheduled_tokens;
    const Request& request = *dump_.sequences[known->second].request;
    const auto num_prompt = static_cast<int64_t>(request.prompt_token_ids.size());
    if (scheduled.num_prompt_tokens != num_prompt) return data_loss(where + ".num_prompt_tokens is not the prompt's");
    // The last of max_tokens is never computed.
    const int64_t end = int64_t{scheduled.num_computed_tokens} + scheduled.num_scheduled_tokens;
    if (end - num_prompt >= request.sampling.max_tokens) return data_loss(where + " goes beyond max_tokens");
    return ok_status();
  }

  static Status parse_new_blocks(const Json& value, const std::string& where, size_t num_sequences, NewBlocks& group) {
    ObjectReader reader(value, where);
    reader("block_ids", group.block_ids);
    reader("offsets", group.offsets);
    RETURN_IF_ERROR(reader.status());
    RETURN_IF_ERROR(check_ids(group.block_ids, where + ".block_ids"));
    if (group.offsets.size() != num_sequences + 1 || group.offsets.front() != 0 ||
        !std::ranges::is_sorted(group.offsets) ||
        group.offsets.back() != static_cast<int64_t>(group.block_ids.size())) {
      return data_loss(where + ".offsets do not divide the block ids among the sequences");
    }
    return ok_status();
  }

  static Status check_ids(const std::vector<int32_t>& ids, const std::string& where) {
    if (std::ranges::any_of(ids, [](int32_t id) { return id < 0; })) return data_loss(where + " holds a negative id");
    return ok_status();
  }

  std::string name_;
  StepDump dump_;
  std::map<RequestId, std::shared_ptr<const Request>> requests_;
  std::map<SequenceId, size_t> sequences_;  // places in dump_.sequences
};

std::string utc_stamp() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  char text[24];
  return {text, std::strftime(text, sizeof text, "%Y%m%dT%H%M%SZ", &utc)};
}

Status write_all(int file, std::string_view text, const std::string& path) {
  while (!text.empty()) {
    const ssize_t written = ::write(file, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return data_loss(path + ": " + std::strerror(errno));
    text.remove_prefix(static_cast<size_t>(written));
  }
  return ok_status();
}

}  // namespace

std::string render_step_dump(const StepDump& dump) {
  OrderedJson document = {{"version", kVersion}, {"reason", dump.reason}, {"device", dump.device}};
  OrderedJson& config = document["config"] = OrderedJson::object();
  visit_engine_config(dump.config, writer(config));
  std::map<RequestId, const Request*> requests;
  OrderedJson sequences = OrderedJson::array();
  for (const StepDump::SequenceState& sequence : dump.sequences) {
    requests.emplace(sequence.request->request_id, sequence.request.get());
    sequences.push_back({{"sequence_id", sequence.sequence_id},
                         {"choice_idx", sequence.choice_idx},
                         {"request_id", sequence.request->request_id},
                         {"output_token_ids", sequence.output_token_ids},
                         {"block_tables", sequence.block_tables}});
  }
  document["requests"] = OrderedJson::array();
  for (const auto& [request_id, request] : requests) {
    OrderedJson sampling = OrderedJson::object();
    visit_sampling(request->sampling, writer(sampling));
    document["requests"].push_back({{"request_id", request_id},
                                    {"prompt_token_ids", request->prompt_token_ids},
                                    {"sampling", std::move(sampling)}});
  }
  document["sequences"] = std::move(sequences);
  document["steps"] = OrderedJson::array();
  for (const auto& step : dump.steps) document["steps"].push_back(render(*step));
  return document.dump(-1, ' ', false, OrderedJson::error_handler_t::replace) + "\n";
}

Result<StepDump> parse_step_dump(std::string_view text, std::string_view name) {
  ASSIGN_OR_RETURN(const Json document, parse_json(text, name, kLimits));
  return Parser(name).parse(document);
}

Result<std::string> write_step_dump(const StepDump& dump, const std::string& directory) {
  const std::string text = render_step_dump(dump);
  const std::string stem = directory + "/sextant-steps-" + utc_stamp() + "-" + std::to_string(::getpid());
  constexpr int kMaxAttempts = 100;  // engines of one process may fail in one second
  for (int i = 0; i < kMaxAttempts; ++i) {
    const std::string path = stem + (i > 0 ? "-" + std::to_string(i) : "") + ".json";
    // Never a file that is there, nor one behind a link: the directory may be everyone's.
    const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (file < 0 && errno == EEXIST) continue;
    if (file < 0) return data_loss(path + ": " + std::strerror(errno));
    Status written = write_all(file, text, path);
    if (::close(file) != 0 && written.ok()) written = data_loss(path + ": " + std::strerror(errno));
    if (!written.ok()) {
      ::unlink(path.c_str());
      return written;
    }
    return path;
  }
  return data_loss(stem + "*.json: " + std::to_string(kMaxAttempts) + " of them are there already");
}

}  // namespace sextant

#include "engine/group/step_message.h"

#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "engine/group/bytes.h"

namespace sextant {
namespace {

// The fields of SamplingParams, once for both directions.
template <typename Params, typename Visitor>
void visit_sampling(Params& params, Visitor&& visit) {
  visit(params.n);
  visit(params.temperature);
  visit(params.top_p);
  visit(params.top_k);
  visit(params.min_p);
  visit(params.presence_penalty);
  visit(params.frequency_penalty);
  visit(params.repetition_penalty);
  visit(params.logit_bias);
  visit(params.allowed_token_ids);
  visit(params.seed);
  visit(params.max_tokens);
  visit(params.min_tokens);
  visit(params.ignore_eos);
  visit(params.stop_token_ids);
  visit(params.logprobs);
  visit(params.prompt_logprobs);
}

class FieldWriter {
 public:
  explicit FieldWriter(ByteWriter& to) : to_(to) {}
  template <typename T>
  void operator()(const T& value) {
    to_.write(value);
  }
  void operator()(const std::vector<int32_t>& values) { to_.write_list(values); }
  void operator()(const std::vector<std::pair<int32_t, float>>& values) {
    to_.write(values.size());
    for (const auto& [id, bias] : values) {
      to_.write(id);
      to_.write(bias);
    }
  }
  void operator()(const std::optional<int32_t>& value) {
    to_.write(value.has_value());
    if (value) to_.write(*value);
  }

 private:
  ByteWriter& to_;
};

class FieldReader {
 public:
  explicit FieldReader(ByteReader& from) : from_(from) {}
  template <std::integral T>
  void operator()(T& value) {
    value = from_.read<T>();
  }
  void operator()(float& value) { value = from_.read_float(); }
  void operator()(std::vector<int32_t>& values) { values = from_.read_list<int32_t>(); }
  void operator()(std::vector<std::pair<int32_t, float>>& values) {
    values.resize(from_.read_count(5));
    for (auto& [id, bias] : values) {
      id = from_.read<int32_t>();
      bias = from_.read_float();
    }
  }
  void operator()(std::optional<int32_t>& value) {
    value.reset();
    if (from_.read<bool>()) value = from_.read<int32_t>();
  }

 private:
  ByteReader& from_;
};

bool sampling_reads_prompt(const SamplingParams& params) {
  return params.repetition_penalty != 1.0f || params.prompt_logprobs.has_value();
}

enum ScheduledFlags : uint8_t { kRestarts = 1, kSamples = 2, kLastTokenOnDevice = 4, kAllFlags = 7 };

Status bad(const char* what) { return data_loss(std::string("a step's message is damaged: ") + what); }

// What the worker takes for granted.
Status check_step(const SchedulerOutput& step, const StepBounds& bounds) {
  const auto num_tokens = static_cast<int64_t>(step.token_ids.size());
  if (num_tokens > bounds.max_num_batched_tokens) return bad("more tokens than a step may have");
  if (static_cast<int64_t>(step.sequences.size()) > bounds.max_num_seqs) return bad("more sequences than may run");
  for (const int32_t id : step.token_ids) {
    if (id < 0 || id >= bounds.vocab_size) return bad("a token id outside the vocabulary");
  }
  int64_t next_token = 0;
  for (const ScheduledSequence& scheduled : step.sequences) {
    if (scheduled.num_scheduled_tokens < 1 || scheduled.num_computed_tokens < 0 || scheduled.num_prompt_tokens < 1) {
      return bad("a sequence without tokens");
    }
    if (int64_t{scheduled.num_computed_tokens} + scheduled.num_scheduled_tokens > bounds.max_model_len) {
      return bad("a sequence longer than max_model_len");
    }
    if (scheduled.token_offset != next_token) return bad("a sequence's tokens do not follow those of the one before");
    next_token += scheduled.num_scheduled_tokens;
  }
  if (next_token != num_tokens) return bad("its sequences and its tokens differ in number");
  for (const NewBlocks& blocks : step.new_blocks) {
    if (blocks.offsets.size() != step.sequences.size() + 1 || blocks.offsets.front() != 0 ||
        blocks.offsets.back() != static_cast<int64_t>(blocks.block_ids.size())) {
      return bad("blocks that belong to no sequence");
    }
    for (size_t i = 1; i < blocks.offsets.size(); ++i) {
      if (blocks.offsets[i] < blocks.offsets[i - 1]) return bad("blocks out of order");
    }
    for (const BlockId id : blocks.block_ids) {
      if (id < 1 || id >= bounds.num_blocks) return bad("a block outside the cache");
    }
  }
  if (!step.sequences.empty() && step.new_blocks.empty()) return bad("no cache group");
  for (const NewSequence& added : step.new_sequences) {
    RETURN_IF_ERROR(added.request->sampling.validate(bounds.vocab_size));
    if (added.choice_idx < 0 || added.choice_idx >= added.request->sampling.n)
      return bad("a choice that does not exist");
    for (const int32_t id : added.request->prompt_token_ids) {
      if (id < 0 || id >= bounds.vocab_size) return bad("a token id outside the vocabulary");
    }
  }
  return ok_status();
}

void write_logprobs(const std::vector<PositionLogprobs>& positions, ByteWriter& out) {
  out.write(positions.size());
  for (const PositionLogprobs& position : positions) {
    out.write(position.chosen.token_id);
    out.write(position.chosen.logprob);
    out.write(position.rank);
    out.write(position.top.size());
    for (const TokenLogprob& token : position.top) {
      out.write(token.token_id);
      out.write(token.logprob);
    }
  }
}

std::vector<PositionLogprobs> read_logprobs(ByteReader& in) {
  std::vector<PositionLogprobs> positions(in.read_count(7));
  for (PositionLogprobs& position : positions) {
    position.chosen.token_id = in.read<int32_t>();
    position.chosen.logprob = in.read_float();
    position.rank = in.read<int32_t>();
    position.top.resize(in.read_count(5));
    for (TokenLogprob& token : position.top) {
      token.token_id = in.read<int32_t>();
      token.logprob = in.read_float();
    }
  }
  return positions;
}

}  // namespace

std::string serialize_step(const SchedulerOutput& step) {
  ByteWriter out;
  out.write(step.step_id);
  out.write_list(step.finished_sequences);
  out.write(step.new_sequences.size());
  const Request* previous = nullptr;
  for (const NewSequence& added : step.new_sequences) {
    out.write(added.sequence_id);
    out.write(added.choice_idx);
    const Request& request = *added.request;
    out.write(&request == previous);  // choices of one request follow one another
    if (&request == previous) continue;
    previous = &request;
    out.write(request.request_id);
    visit_sampling(request.sampling, FieldWriter(out));
    const std::vector<int32_t> none;
    out.write_list(sampling_reads_prompt(request.sampling) ? request.prompt_token_ids : none);
  }
  out.write(step.sequences.size());
  for (const ScheduledSequence& scheduled : step.sequences) {
    out.write(scheduled.sequence_id);
    out.write(scheduled.num_computed_tokens);
    out.write(scheduled.num_scheduled_tokens);
    out.write(scheduled.num_prompt_tokens);
    out.write(static_cast<uint8_t>((scheduled.restarts_block_table ? kRestarts : 0) |
                                   (scheduled.samples ? kSamples : 0) |
                                   (scheduled.last_token_on_device ? kLastTokenOnDevice : 0)));
  }
  out.write_list(step.token_ids);
  out.write(step.new_blocks.size());
  for (const NewBlocks& blocks : step.new_blocks) {
    for (size_t i = 1; i < blocks.offsets.size(); ++i) out.write(blocks.offsets[i] - blocks.offsets[i - 1]);
    out.write_list(blocks.block_ids);
  }
  return out.take();
}

Result<std::shared_ptr<const SchedulerOutput>> parse_step(std::string_view bytes, const StepBounds& bounds) {
  ByteReader in(bytes);
  auto step = std::make_shared<SchedulerOutput>();
  step->step_id = in.read<uint64_t>();
  step->finished_sequences = in.read_list<SequenceId>();
  step->new_sequences.resize(in.read_count(3));
  std::shared_ptr<const Request> previous;
  for (NewSequence& added : step->new_sequences) {
    added.sequence_id = in.read<SequenceId>();
    added.choice_idx = in.read<int32_t>();
    if (!in.read<bool>()) {
      auto request = std::make_shared<Request>();
      request->request_id = in.read<RequestId>();
      visit_sampling(request->sampling, FieldReader(in));
      request->prompt_token_ids = in.read_list<int32_t>();
      previous = std::move(request);
    }
    if (previous == nullptr) return bad("a sequence of no request");
    added.request = previous;
  }
  step->sequences.resize(in.read_count(5));
  int64_t offset = 0;
  for (ScheduledSequence& scheduled : step->sequences) {
    scheduled.sequence_id = in.read<SequenceId>();
    scheduled.num_computed_tokens = in.read<int32_t>();
    scheduled.num_scheduled_tokens = in.read<int32_t>();
    scheduled.num_prompt_tokens = in.read<int32_t>();
    const auto flags = in.read<uint8_t>();
    if (flags > kAllFlags) return bad("a flag that this version does not know");
    scheduled.restarts_block_table = (flags & kRestarts) != 0;
    scheduled.samples = (flags & kSamples) != 0;
    scheduled.last_token_on_device = (flags & kLastTokenOnDevice) != 0;
    if (offset > std::numeric_limits<int32_t>::max()) return bad("more tokens than a step may have");
    scheduled.token_offset = static_cast<int32_t>(offset);
    offset += scheduled.num_scheduled_tokens;
  }
  step->token_ids = in.read_list<int32_t>();
  step->new_blocks.resize(in.read_count(1 + step->sequences.size()));
  for (NewBlocks& blocks : step->new_blocks) {
    int64_t end = 0;
    blocks.offsets.push_back(0);
    for (size_t i = 0; i < step->sequences.size(); ++i) {
      end += in.read<int32_t>();
      if (end < 0 || end > std::numeric_limits<int32_t>::max()) return bad("blocks out of order");
      blocks.offsets.push_back(static_cast<int32_t>(end));
    }
    blocks.block_ids = in.read_list<BlockId>();
  }
  if (!in.at_end()) return bad(in.ok() ? "bytes behind its end" : "it ends too early");
  RETURN_IF_ERROR(check_step(*step, bounds));
  return std::shared_ptr<const SchedulerOutput>(std::move(step));
}

std::string serialize_output(const ModelOutput& output) {
  ByteWriter out;
  out.write(output.step_id);
  out.write(output.sequences.size());
  for (const SequenceOutput& sequence : output.sequences) {
    out.write(sequence.sequence_id);
    out.write_list(sequence.token_ids);
    write_logprobs(sequence.logprobs, out);
    write_logprobs(sequence.prompt_logprobs, out);
  }
  return out.take();
}

Result<ModelOutput> parse_output(std::string_view bytes) {
  ByteReader in(bytes);
  ModelOutput output;
  output.step_id = in.read<uint64_t>();
  output.sequences.resize(in.read_count(4));
  for (SequenceOutput& sequence : output.sequences) {
    sequence.sequence_id = in.read<SequenceId>();
    sequence.token_ids = in.read_list<int32_t>();
    sequence.logprobs = read_logprobs(in);
    sequence.prompt_logprobs = read_logprobs(in);
  }
  if (!in.at_end()) return data_loss("a step's results are damaged");
  return output;
}

}  // namespace sextant

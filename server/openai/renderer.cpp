// The parts that completions and chat share.
#include "server/openai/renderer.h"

#include "server/http/sse_writer.h"

namespace sextant::openai {

void append_json_string(std::string_view text, std::string* out) {
  static constexpr char kHex[] = "0123456789abcdef";
  const size_t begin = out->size();
  *out += '"';
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x80) {  // the serialiser knows what is valid UTF-8
      out->resize(begin);
      *out += dump_json(std::string(text));
      return;
    }
    switch (c) {
      case '"': *out += "\\\""; break;
      case '\\': *out += "\\\\"; break;
      case '\b': *out += "\\b"; break;
      case '\f': *out += "\\f"; break;
      case '\n': *out += "\\n"; break;
      case '\r': *out += "\\r"; break;
      case '\t': *out += "\\t"; break;
      default:
        if (byte < 0x20) {
          *out += "\\u00";
          *out += kHex[byte >> 4];
          *out += kHex[byte & 15];
        } else {
          *out += c;
        }
    }
  }
  *out += '"';
}

Json fingerprint_json(const std::string& system_fingerprint) {
  return system_fingerprint.empty() ? Json(nullptr) : Json(system_fingerprint);
}

const char* finish_reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop: return "stop";
    case FinishReason::kLength: return "length";
    case FinishReason::kAbort: return "abort";
    case FinishReason::kError: return "error";
  }
  return "error";
}

Json finish_reason_json(const ChoiceUpdate& update) {
  return update.finish_reason ? Json(finish_reason_name(*update.finish_reason)) : Json(nullptr);
}

Json stop_reason_json(const StopReason& reason) {
  if (const auto* id = std::get_if<int32_t>(&reason)) return *id;
  if (const auto* text = std::get_if<std::string>(&reason)) return *text;
  return nullptr;
}

Json usage_json(const Usage& usage) {
  return {{"prompt_tokens", usage.num_prompt_tokens},
          {"completion_tokens", usage.num_completion_tokens},
          {"total_tokens", usage.num_prompt_tokens + usage.num_completion_tokens},
          {"prompt_tokens_details", {{"cached_tokens", usage.num_cached_tokens}, {"audio_tokens", 0}}},
          {"completion_tokens_details",
           {{"reasoning_tokens", 0},
            {"audio_tokens", 0},
            {"accepted_prediction_tokens", 0},
            {"rejected_prediction_tokens", 0}}}};
}

ChunkEnvelope::ChunkEnvelope(const GenerationSpec& spec, const std::string& object,
                             const std::string& system_fingerprint)
    : spec_(spec) {
  const Json head = {{"id", spec.id},
                     {"object", object},
                     {"created", spec.created_unix_s},
                     {"model", spec.model},
                     {"system_fingerprint", fingerprint_json(system_fingerprint)}};
  head_ = dump_json(head);
  head_.back() = ',';  // its closing brace: the members that change follow
  head_ += "\"choices\":";
}

// No document is built: this is what every streamed token goes through.
void ChunkEnvelope::append_choice(std::string_view choice, const Usage& so_far, std::string* out) const {
  if (spec_.include_usage && spec_.continuous_usage_stats) {
    append_event("[" + std::string(choice) + "]", nullptr, usage_json(so_far), out);
    return;
  }
  // As sse_event() writes it: the JSON has no line breaks.
  *out += "data: ";
  *out += head_;
  *out += '[';
  *out += choice;
  *out += spec_.include_usage ? "],\"usage\":null}\n\n" : "]}\n\n";
}

void ChunkEnvelope::append_event(const std::string& choices, const Json& extra, const Json& usage,
                                 std::string* out) const {
  std::string json = head_ + choices;
  for (const auto& [name, value] : extra.items()) json += "," + dump_json(name) + ":" + dump_json(value);
  if (spec_.include_usage) json += ",\"usage\":" + dump_json(usage);
  *out += http::sse_event(json + "}");
}

void ChunkEnvelope::append(const Json& choice, const Json& extra, const Usage& so_far, std::string* out) const {
  append_event("[" + dump_json(choice) + "]", extra, spec_.continuous_usage_stats ? usage_json(so_far) : Json(nullptr),
               out);
}

void ChunkEnvelope::append_end(const Usage& total, std::string* out) const {
  if (spec_.include_usage) append_event("[]", nullptr, usage_json(total), out);
  *out += http::sse_done();
}

}  // namespace sextant::openai

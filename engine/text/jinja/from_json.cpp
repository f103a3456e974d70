#include "engine/text/jinja/interpreter.h"

namespace sextant::jinja {
namespace {

constexpr int kMaxJsonDepth = 250;  // within what containers may nest

Value convert(Runtime& runtime, const nlohmann::ordered_json& json, int depth) {
  if (depth > kMaxJsonDepth) fail_limit("the request's variables nest too deeply");
  switch (json.type()) {
    case nlohmann::ordered_json::value_t::null: return Value::none();
    case nlohmann::ordered_json::value_t::boolean: return Value::boolean(json.get<bool>());
    case nlohmann::ordered_json::value_t::number_integer: return Value::integer(json.get<int64_t>());
    case nlohmann::ordered_json::value_t::number_unsigned: {
      const auto number = json.get<uint64_t>();
      if (number <= static_cast<uint64_t>(INT64_MAX)) return Value::integer(static_cast<int64_t>(number));
      auto* object = runtime.heap.make<StringObject>();
      object->text = std::to_string(number);
      return Value(Kind::kBigInt, object);
    }
    case nlohmann::ordered_json::value_t::number_float: return Value::real(json.get<double>());
    case nlohmann::ordered_json::value_t::string: return runtime.heap.text(json.get_ref<const std::string&>());
    case nlohmann::ordered_json::value_t::array: {
      runtime.heap.check(json.size() * sizeof(Value));
      std::vector<Value> items;
      items.reserve(json.size());
      for (const auto& item : json) items.push_back(convert(runtime, item, depth + 1));
      return runtime.heap.list(std::move(items));
    }
    case nlohmann::ordered_json::value_t::object: {
      runtime.heap.check(json.size() * 2 * sizeof(Value));
      std::vector<std::pair<Value, Value>> entries;
      entries.reserve(json.size());
      for (const auto& [key, item] : json.items()) {
        entries.emplace_back(runtime.heap.text(key), convert(runtime, item, depth + 1));
      }
      return runtime.heap.dict(std::move(entries));
    }
    case nlohmann::ordered_json::value_t::binary:
    case nlohmann::ordered_json::value_t::discarded: break;
  }
  fail("the request's variables hold something that is not JSON");
}

}  // namespace

Value from_json(Runtime& runtime, const nlohmann::ordered_json& json) { return convert(runtime, json, 0); }

}  // namespace sextant::jinja

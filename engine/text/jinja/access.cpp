// Attributes, items, slices, lengths and iteration, in the order in which Jinja's sandbox looks: x.name asks
// the object's methods before its keys, x[name] its keys before its methods.
#include <algorithm>
#include <cstring>

#include "engine/text/jinja/functions.h"
#include "engine/text/jinja/operators.h"
#include "engine/text/jinja/tracked.h"
#include "engine/text/jinja/unicode.h"

namespace sextant::jinja {
namespace {

std::string owner_name(const Value& object) {
  switch (object.kind()) {
    case Kind::kNone: return "None";
    case Kind::kNamespace: return "jinja2.utils.Namespace object";
    default: return std::string(type_name(object)) + " object";
  }
}

Value missing_of(Runtime& runtime, const Value& object, const Value& key) {
  auto* undefined = runtime.heap.make<UndefinedObject>();
  Value value(Kind::kUndefined, undefined);
  undefined->owner = owner_name(object);
  if (key.is_string()) {
    undefined->owner = "'" + undefined->owner + "'";
    undefined->name = key.text().substr(0, 200);
  } else {
    undefined->is_element = true;
    append_repr(runtime, undefined->name, key);
  }
  return value;
}

Value bound_method(Runtime& runtime, const Value& object, const Builtin& builtin) {
  if (builtin.function == nullptr) {
    return undefined_hint(runtime, "SecurityError: access to attribute '" + std::string(builtin.name) + "' of '" +
                                       type_name(object) + "' object is unsafe.");
  }
  auto* function = runtime.heap.make<FunctionObject>();
  function->builtin = &builtin;
  function->self = object;
  return Value(Kind::kFunction, function);
}

// Attributes that are data; kMissing when there is none.
Value data_attribute(Runtime& runtime, const Value& object, const Attribute& attribute) {
  const std::string& name = attribute.name.text();
  switch (object.kind()) {
    case Kind::kNamespace: {
      charge_key(runtime, attribute.name);
      const Value* found = object.as<NamespaceObject>().attributes.find(attribute.name);
      return found == nullptr ? Value() : *found;
    }
    case Kind::kLoop: return attribute.of_loop == nullptr ? Value() : attribute.of_loop->get(runtime, object);
    case Kind::kTuple:
      if (!object.as<ListObject>().is_group) return {};
      if (name == "grouper") return object.items()[0];
      if (name == "list") return object.items()[1];
      return {};
    case Kind::kBool:
    case Kind::kInt:
      if (name == "real" || name == "numerator") return Value::integer(object.integer());
      if (name == "imag") return Value::integer(0);
      if (name == "denominator") return Value::integer(1);
      return {};
    case Kind::kRange:
      if (name == "start") return Value::integer(object.as<RangeObject>().start);
      if (name == "step") return Value::integer(object.as<RangeObject>().step);
      return {};
    case Kind::kMacro: return macro_attribute(runtime, object, name);
    case Kind::kCycler: return cycler_attribute(runtime, object, name);
    default: return {};
  }
}

struct SliceBounds {
  int64_t start = 0;
  int64_t stop = 0;
  int64_t step = 1;
  int64_t count = 0;
};

SliceBounds slice_bounds(const Value& start, const Value& stop, const Value& step, int64_t length) {
  const auto bound = [](const Value& value) { return to_index(value, "slice indices must be integers or None"); };
  SliceBounds bounds;
  if (!step.is_none()) bounds.step = bound(step);
  if (bounds.step == 0) fail("ValueError: slice step cannot be zero");
  const bool down = bounds.step < 0;
  const int64_t lowest = down ? -1 : 0;
  const int64_t highest = down ? length - 1 : length;
  const auto clamp = [&](int64_t index) {
    if (index < 0) index = index < -length ? lowest : std::max(index + length, lowest);
    return std::min(index, highest);
  };
  bounds.start = start.is_none() ? (down ? highest : lowest) : clamp(bound(start));
  bounds.stop = stop.is_none() ? (down ? lowest : highest) : clamp(bound(stop));
  // Distances fit: all bounds lie within the length of something in memory.
  const int64_t distance = down ? bounds.start - bounds.stop : bounds.stop - bounds.start;
  if (distance > 0) {
    const uint64_t stride =
        down ? uint64_t{0} - static_cast<uint64_t>(bounds.step) : static_cast<uint64_t>(bounds.step);
    bounds.count = static_cast<int64_t>((static_cast<uint64_t>(distance) - 1) / stride) + 1;
  }
  return bounds;
}

// With a stride beyond the length only one element is taken, so the product below never leaves the length.
int64_t position(const SliceBounds& bounds, int64_t i) {
  return i == 0 ? bounds.start : bounds.start + i * bounds.step;
}

Value slice_text(Runtime& runtime, const Value& object, const SliceBounds& bounds) {
  const auto& source = object.as<StringObject>();
  const std::string& text = source.text;
  runtime.charge_text(text.size());
  const bool ascii = source.num_chars == text.size();
  if (bounds.step == 1) {
    const size_t begin = ascii ? bounds.start : char_offset(text, bounds.start);
    const size_t num_bytes = ascii ? bounds.count : char_offset(std::string_view(text).substr(begin), bounds.count);
    return runtime.text(text.substr(begin, bounds.count == 0 ? 0 : num_bytes), source.markup);
  }
  std::string out;
  if (ascii) {
    for (int64_t i = 0; i < bounds.count; ++i) out += text[position(bounds, i)];
    return runtime.text(std::move(out), source.markup);
  }
  runtime.charge_items(source.num_chars);
  std::vector<uint32_t> offsets;
  offsets.reserve(source.num_chars + 1);
  for (size_t i = 0; i < text.size(); i += decode_char(text, i).num_bytes) offsets.push_back(i);
  offsets.push_back(text.size());
  for (int64_t i = 0; i < bounds.count; ++i) {
    const int64_t at = position(bounds, i);
    out.append(text, offsets[at], offsets[at + 1] - offsets[at]);
  }
  return runtime.text(std::move(out), source.markup);
}

}  // namespace

Value undefined_variable(Runtime& runtime, std::string_view name) {
  auto* undefined = runtime.heap.make<UndefinedObject>();
  Value value(Kind::kUndefined, undefined);
  undefined->name = name;
  return value;
}

Value undefined_hint(Runtime& runtime, std::string_view hint) {
  auto* undefined = runtime.heap.make<UndefinedObject>(hint.size());
  Value value(Kind::kUndefined, undefined);
  undefined->hint = hint;
  return value;
}

Value get_attribute(Runtime& runtime, const Value& object, const Attribute& attribute) {
  runtime.step();
  if (object.is_undefined()) fail_undefined(object);
  if (const Builtin* method = attribute.method_of(object.kind())) return bound_method(runtime, object, *method);
  if (object.is(Kind::kDict)) {
    charge_key(runtime, attribute.name);
    const Value* found = object.as<DictObject>().find(attribute.name);
    return found == nullptr ? missing_of(runtime, object, attribute.name) : *found;
  }
  Value found = data_attribute(runtime, object, attribute);
  return found.is_missing() ? missing_of(runtime, object, attribute.name) : found;
}

Value get_item(Runtime& runtime, const Value& object, const Value& key) {
  runtime.step();
  if (object.is_undefined()) fail_undefined(object);
  if (object.is(Kind::kDict)) {
    charge_key(runtime, key);
    const Value* found = is_hashable(key) ? object.as<DictObject>().find(key) : nullptr;
    if (found != nullptr) return *found;
  } else if (key.is_integer()) {
    const int64_t given = key.integer();
    const auto size = static_cast<int64_t>(
        object.is_sequence() || object.is_string() || object.is(Kind::kRange) ? *length(runtime, object) : 0);
    const int64_t index = given < 0 ? given + size : given;
    if (index < 0 || index >= size) return missing_of(runtime, object, key);
    if (object.is_sequence()) return object.items()[index];
    if (object.is_string()) return char_at(runtime, object, index);
    return Value::integer(object.as<RangeObject>().at(index));
  }
  if (!key.is_string()) return missing_of(runtime, object, key);
  charge_key(runtime, key);
  const Attribute attribute = make_attribute(key);
  if (const Builtin* method = attribute.method_of(object.kind())) return bound_method(runtime, object, *method);
  Value found = data_attribute(runtime, object, attribute);
  return found.is_missing() ? missing_of(runtime, object, key) : found;
}

Value get_slice(Runtime& runtime, const Value& object, const Value& start, const Value& stop, const Value& step) {
  runtime.step();
  if (object.is_undefined()) fail_undefined(object);
  if (!object.is_sequence() && !object.is_string() && !object.is(Kind::kRange)) {
    fail(std::string("TypeError: '") + type_name(object) + "' object cannot be sliced");
  }
  const SliceBounds bounds = slice_bounds(start, stop, step, static_cast<int64_t>(*length(runtime, object)));
  if (object.is_string()) return slice_text(runtime, object, bounds);
  if (object.is(Kind::kRange)) {
    const auto& whole = object.as<RangeObject>();
    auto* part = runtime.heap.make<RangeObject>();
    // All of these fit: a range's bounds are at most 2^60, and it has at most 100000 elements.
    part->start = whole.start + bounds.start * whole.step;
    part->stop = whole.start + bounds.stop * whole.step;
    if (__builtin_mul_overflow(whole.step, bounds.step, &part->step)) part->step = 1;  // of a single element
    part->count = bounds.count;
    return Value(Kind::kRange, part);
  }
  runtime.charge_items(bounds.count);
  std::vector<Value> items;
  items.reserve(bounds.count);
  for (int64_t i = 0; i < bounds.count; ++i) items.push_back(object.items()[position(bounds, i)]);
  return object.is(Kind::kList) ? runtime.heap.list(std::move(items)) : runtime.heap.tuple(std::move(items));
}

Value get_path(Runtime& runtime, const Value& object, const Value& path, const Value& fallback) {
  if (path.is_missing() || path.is_none()) return object;
  const auto look_up = [&](const Value& from, const Value& key) {
    Value found = get_item(runtime, from, key);
    return found.is_undefined() && !fallback.is_missing() && !fallback.is_none() ? fallback : found;
  };
  if (!path.is_string()) return look_up(object, path);
  Value current = object;
  std::string_view rest = path.text();
  for (;;) {
    const size_t dot = rest.find('.');
    const std::string_view part = rest.substr(0, dot);
    const bool is_number = !part.empty() && part.size() < 18 && part.find_first_not_of("0123456789") == part.npos;
    current = look_up(current, is_number ? Value::integer(*parse_integer(part, 10)) : runtime.text(std::string(part)));
    if (dot == rest.npos) return current;
    rest.remove_prefix(dot + 1);
  }
}

size_t num_chars(Runtime& runtime, const Value& text) {
  auto& object = text.as<StringObject>();
  if (object.num_chars == StringObject::kUnknown) {
    runtime.charge_text(object.text.size());
    object.num_chars = count_chars(object.text);
  }
  return object.num_chars;
}

Value char_at(Runtime& runtime, const Value& text, size_t char_idx) {
  const std::string& bytes = text.text();
  const bool ascii = num_chars(runtime, text) == bytes.size();
  if (!ascii) runtime.step(char_idx / 16);
  const size_t offset = ascii ? char_idx : char_offset(bytes, char_idx);
  return runtime.text(bytes.substr(offset, decode_char(bytes, offset).num_bytes), text.as<StringObject>().markup);
}

std::optional<size_t> length(Runtime& runtime, const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined: return 0;
    case Kind::kString: return num_chars(runtime, value);
    case Kind::kList:
    case Kind::kTuple: return value.items().size();
    case Kind::kDict: return value.as<DictObject>().entries().size();
    case Kind::kDictView: return value.as<DictViewObject>().dict.as<DictObject>().entries().size();
    case Kind::kRange: return static_cast<size_t>(value.as<RangeObject>().count);
    case Kind::kLoop: return static_cast<size_t>(value.as<LoopObject>().length(runtime));
    default: return std::nullopt;
  }
}

bool is_iterable(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
    case Kind::kString:
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kDict:
    case Kind::kDictView:
    case Kind::kRange:
    case Kind::kIterator:
    case Kind::kLoop: return true;
    default: return false;
  }
}

Value iterate(Runtime& runtime, const Value& value) {
  if (value.is_sequence()) return value;
  std::vector<Value> items;
  switch (value.kind()) {
    case Kind::kUndefined: break;
    case Kind::kString: {
      const std::string& text = value.text();
      runtime.charge_items(num_chars(runtime, value) * 4);
      for (size_t i = 0; i < text.size();) {
        const size_t num_bytes = decode_char(text, i).num_bytes;
        items.push_back(runtime.heap.text(text.substr(i, num_bytes)));
        i += num_bytes;
      }
      break;
    }
    case Kind::kDict:
    case Kind::kDictView: {
      const bool is_view = value.is(Kind::kDictView);
      const DictViewKind view = is_view ? value.as<DictViewObject>().view : DictViewKind::kKeys;
      const Value& dict = is_view ? value.as<DictViewObject>().dict : value;
      const auto& entries = dict.as<DictObject>().entries();
      runtime.charge_items(entries.size());
      items.reserve(entries.size());
      for (const auto& [key, item] : entries) {
        if (view == DictViewKind::kKeys) {
          items.push_back(key);
        } else if (view == DictViewKind::kValues) {
          items.push_back(item);
        } else {
          items.push_back(runtime.heap.tuple({key, item}));
        }
      }
      break;
    }
    case Kind::kRange: {
      const auto& range = value.as<RangeObject>();
      runtime.charge_items(range.count);
      items.reserve(range.count);
      for (int64_t i = 0; i < range.count; ++i) items.push_back(Value::integer(range.at(i)));
      break;
    }
    case Kind::kIterator: {
      auto& iterator = value.as<IteratorObject>();
      runtime.charge_items(iterator.items.size() - iterator.next);
      items.assign(iterator.items.begin() + static_cast<ptrdiff_t>(iterator.next), iterator.items.end());
      iterator.next = iterator.items.size();
      break;
    }
    default: fail(std::string("TypeError: '") + type_name(value) + "' object is not iterable");
  }
  return runtime.heap.list(std::move(items));
}

void charge_key(Runtime& runtime, const Value& key) {
  if (key.is_string()) runtime.charge_text(key.text().size());
  if (key.is_sequence()) runtime.step(key.items().size());
}

size_t find_text(std::string_view text, std::string_view part, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  if (part.empty()) return from;
  const void* found = memmem(text.data() + from, text.size() - from, part.data(), part.size());
  return found == nullptr ? std::string_view::npos : static_cast<const char*>(found) - text.data();
}

size_t find_last_text(std::string_view text, std::string_view part) {
  if (part.size() <= 1) return part.empty() ? text.size() : text.rfind(part[0]);
  const std::string backwards(text.rbegin(), text.rend());
  const std::string part_backwards(part.rbegin(), part.rend());
  const size_t found = find_text(backwards, part_backwards, 0);
  return found == std::string_view::npos ? found : text.size() - found - part.size();
}

int64_t to_index(const Value& value, const char* what) {
  if (value.is_undefined()) fail_undefined(value);
  if (!value.is_integer()) fail(std::string("TypeError: ") + what + ", not " + type_name(value));
  return value.integer();
}

}  // namespace sextant::jinja

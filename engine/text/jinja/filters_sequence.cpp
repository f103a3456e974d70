// Filters that take sequences apart and put them together.
#include <algorithm>

#include "engine/text/jinja/operators.h"
#include "engine/text/jinja/text_operations.h"
#include "engine/text/jinja/unicode.h"

namespace sextant::jinja {
namespace {

Value length_of(Runtime& runtime, CallArguments& arguments) {
  const auto size = length(runtime, arguments.positional[0]);
  if (!size) fail(std::string("TypeError: object of type '") + type_name(arguments.positional[0]) + "' has no len()");
  return Value::integer(static_cast<int64_t>(*size));
}

Value first(Runtime& runtime, CallArguments& arguments) {
  const Value& value = arguments.positional[0];
  if (value.is_string() && !value.text().empty()) return char_at(runtime, value, 0);
  if (value.is(Kind::kIterator)) {
    auto& iterator = value.as<IteratorObject>();
    if (iterator.next < iterator.items.size()) return iterator.items[iterator.next++];
  }
  const Value items = iterate(runtime, value);
  return items.items().empty() ? undefined_hint(runtime, "No first item, sequence was empty.") : items.items()[0];
}

Value last(Runtime& runtime, CallArguments& arguments) {
  const Value& value = arguments.positional[0];
  if (value.is(Kind::kIterator)) fail(std::string("TypeError: '") + type_name(value) + "' object is not reversible");
  const Value items = iterate(runtime, value);
  return items.items().empty() ? undefined_hint(runtime, "No last item, sequence was empty.") : items.items().back();
}

Value list(Runtime& runtime, CallArguments& arguments) {
  const Value items = iterate(runtime, arguments.positional[0]);
  if (items.is(Kind::kList)) return items;
  runtime.charge_items(items.items().size());
  return runtime.heap.list(items.items());
}

Value join(Runtime& runtime, CallArguments& arguments) {
  const Value items = iterate(runtime, arguments.positional[0]);
  const Value separator = arguments.has(1) ? as_string(runtime, arguments.positional[1]) : runtime.text("");
  const bool by_attribute = arguments.has(2) && !arguments.positional[2].is_none();
  std::string out;
  for (size_t i = 0; i < items.items().size(); ++i) {
    runtime.step();
    if (i > 0) runtime.append(out, separator.text());
    const Value& item = items.items()[i];
    append_text(runtime, out, by_attribute ? get_path(runtime, item, arguments.positional[2], Value()) : item);
  }
  return runtime.text(std::move(out));
}

Value reverse(Runtime& runtime, CallArguments& arguments) {
  const Value& value = arguments.positional[0];
  if (value.is_string()) {
    const std::string& text = value.text();
    runtime.charge_new_text(text.size());
    std::string out(text.size(), '\0');
    size_t end = text.size();
    for (size_t i = 0; i < text.size();) {
      const size_t num_bytes = decode_char(text, i).num_bytes;
      end -= num_bytes;
      std::copy_n(text.begin() + static_cast<ptrdiff_t>(i), num_bytes, out.begin() + static_cast<ptrdiff_t>(end));
      i += num_bytes;
    }
    return runtime.text(std::move(out), is_markup(value));
  }
  if (!is_iterable(value)) fail("argument must be iterable");
  const Value items = iterate(runtime, value);
  runtime.charge_items(items.items().size());
  std::vector<Value> reversed(items.items().rbegin(), items.items().rend());
  if (value.is(Kind::kIterator)) return runtime.heap.list(std::move(reversed));
  return runtime.heap.iterator(std::move(reversed), "reversed");
}

Value batch(Runtime& runtime, CallArguments& arguments) {
  const Value items = iterate(runtime, arguments.positional[0]);
  const int64_t size = to_index(arguments.positional[1], "linecount must be an integer");
  // Python's loop, which starts a new batch when the current one has exactly `size` items, never does for
  // size < 0.
  const size_t per_batch = size < 0 ? SIZE_MAX : static_cast<size_t>(size);
  std::vector<Value> batches;
  std::vector<Value> current;
  const auto flush = [&] {
    runtime.charge_items(current.size() + 1);
    batches.push_back(runtime.heap.list(std::move(current)));
    current = {};
  };
  for (const Value& item : items.items()) {
    runtime.step();
    if (current.size() == per_batch) flush();
    current.push_back(item);
  }
  if (!current.empty()) {
    if (arguments.has(2) && !arguments.positional[2].is_none() && size > 0 && current.size() < per_batch) {
      runtime.charge_items(per_batch);
      current.resize(per_batch, arguments.positional[2]);
    }
    flush();
  }
  return runtime.heap.iterator(std::move(batches), "generator");
}

Value slice(Runtime& runtime, CallArguments& arguments) {
  const Value items = iterate(runtime, arguments.positional[0]);
  const int64_t given = to_index(arguments.positional[1], "slices must be an integer");
  if (given == 0) fail("ZeroDivisionError: integer division or modulo by zero");
  const size_t num_slices = given < 0 ? 0 : static_cast<size_t>(given);
  runtime.charge_items(num_slices);
  std::vector<Value> slices;
  const std::vector<Value>& all = items.items();
  size_t begin = 0;
  for (size_t i = 0; i < num_slices; ++i) {
    runtime.step();
    const bool extra = i < all.size() % num_slices;
    const size_t size = all.size() / num_slices + (extra ? 1 : 0);
    std::vector<Value> part(all.begin() + static_cast<ptrdiff_t>(begin),
                            all.begin() + static_cast<ptrdiff_t>(begin + size));
    begin += size;
    if (!extra && arguments.has(2) && !arguments.positional[2].is_none()) part.push_back(arguments.positional[2]);
    slices.push_back(runtime.heap.list(std::move(part)));
  }
  return runtime.heap.iterator(std::move(slices), "generator");
}

Value items(Runtime& runtime, CallArguments& arguments) {
  const Value& value = arguments.positional[0];
  std::vector<Value> pairs;
  if (value.is(Kind::kDict)) {
    const auto& entries = value.as<DictObject>().entries();
    runtime.charge_items(entries.size());
    for (const auto& [key, item] : entries) pairs.push_back(runtime.heap.tuple({key, item}));
  } else if (!value.is_undefined()) {
    fail("TypeError: Can only get item pairs from a mapping.");
  }
  return runtime.heap.iterator(std::move(pairs), "generator");
}

constexpr Builtin kFilters[] = {
    {"length", length_of, 1, {"obj"}},
    {"count", length_of, 1, {"obj"}},
    {"first", first, 1, {"seq"}},
    {"last", last, 1, {"seq"}},
    {"list", list, 1, {"value"}},
    {"join", join, 1, {"value", "d", "attribute"}},
    {"reverse", reverse, 1, {"value"}},
    {"batch", batch, 2, {"value", "linecount", "fill_with"}},
    {"slice", slice, 2, {"value", "slices", "fill_with"}},
    {"items", items, 1, {"value"}},
};

}  // namespace

std::span<const Builtin> sequence_filters() { return kFilters; }

}  // namespace sextant::jinja

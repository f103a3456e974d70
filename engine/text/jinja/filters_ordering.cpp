// Filters that compare items with each other: sort, dictsort, unique, min, max, groupby, sum.
#include <algorithm>
#include <set>

#include "engine/text/jinja/operators.h"
#include "engine/text/jinja/unicode.h"

namespace sextant::jinja {
namespace {

struct Keyed {
  Value key;
  Value item;
};

Value fold_case(Runtime& runtime, const Value& value, bool case_sensitive) {
  if (case_sensitive || !value.is_string()) return value;
  runtime.charge_new_text(3 * value.text().size());
  return runtime.text(to_lower(value.text()));
}

std::vector<Keyed> with_keys(Runtime& runtime, const Value& items, const Value& path, bool case_sensitive,
                             const Value& fallback = {}) {
  runtime.charge_items(2 * items.items().size());
  std::vector<Keyed> keyed;
  keyed.reserve(items.items().size());
  for (const Value& item : items.items()) {
    keyed.push_back({fold_case(runtime, get_path(runtime, item, path, fallback), case_sensitive), item});
  }
  return keyed;
}

// Stable in both directions, as sorted(reverse=True) is.
template <typename Less>
void sort_keyed(std::vector<Keyed>& keyed, bool reverse, Less less) {
  std::stable_sort(keyed.begin(), keyed.end(),
                   [&](const Keyed& a, const Keyed& b) { return reverse ? less(b.key, a.key) : less(a.key, b.key); });
}

Value items_of(Runtime& runtime, std::vector<Keyed>& keyed) {
  std::vector<Value> items;
  items.reserve(keyed.size());
  for (Keyed& entry : keyed) items.push_back(std::move(entry.item));
  return runtime.heap.list(std::move(items));
}

bool flag(const CallArguments& arguments, size_t i) { return arguments.has(i) && is_true(arguments.positional[i]); }
Value given(const CallArguments& arguments, size_t i) {
  return arguments.has(i) ? arguments.positional[i] : Value::none();
}

Value sort(Runtime& runtime, CallArguments& arguments) {
  const Value items = iterate(runtime, arguments.positional[0]);
  const bool case_sensitive = flag(arguments, 2);
  const Value attribute = given(arguments, 3);
  // Jinja sorts by a list of keys, in which equal keys (two undefined values, say) need no order.
  const auto less = [&](const Value& a, const Value& b) { return !is_equal(runtime, a, b) && is_less(runtime, a, b); };
  std::vector<Keyed> keyed;
  if (attribute.is_string() && attribute.text().find(',') != std::string::npos) {
    std::vector<Value> paths;
    std::string_view rest = attribute.text();
    for (;;) {
      const size_t comma = rest.find(',');
      paths.push_back(runtime.text(std::string(rest.substr(0, comma))));
      if (comma == rest.npos) break;
      rest.remove_prefix(comma + 1);
    }
    for (const Value& item : items.items()) {
      runtime.charge_items(paths.size() + 2);
      std::vector<Value> keys;
      for (const Value& path : paths) {
        keys.push_back(fold_case(runtime, get_path(runtime, item, path, Value()), case_sensitive));
      }
      keyed.push_back({runtime.heap.list(std::move(keys)), item});
    }
  } else {
    keyed = with_keys(runtime, items, attribute, case_sensitive);
  }
  sort_keyed(keyed, flag(arguments, 1), less);
  return items_of(runtime, keyed);
}

Value dictsort(Runtime& runtime, CallArguments& arguments) {
  const Value& dict = arguments.positional[0];
  if (dict.is_undefined()) fail_undefined(dict);
  if (!dict.is(Kind::kDict)) fail(std::string("TypeError: dictsort needs a dict, not ") + type_name(dict));
  const bool case_sensitive = flag(arguments, 1);
  bool by_value = false;
  if (arguments.has(2)) {
    const Value& by = arguments.positional[2];
    by_value = by.is_string() && by.text() == "value";
    if (!by_value && !(by.is_string() && by.text() == "key")) fail("You can only sort by either \"key\" or \"value\"");
  }
  const auto& entries = dict.as<DictObject>().entries();
  runtime.charge_items(3 * entries.size());
  std::vector<Keyed> keyed;
  for (const auto& [key, value] : entries) {
    keyed.push_back({fold_case(runtime, by_value ? value : key, case_sensitive), runtime.heap.tuple({key, value})});
  }
  sort_keyed(keyed, flag(arguments, 3), [&](const Value& a, const Value& b) { return is_less(runtime, a, b); });
  return items_of(runtime, keyed);
}

Value unique(Runtime& runtime, CallArguments& arguments) {
  const Value items = iterate(runtime, arguments.positional[0]);
  std::vector<Keyed> keyed = with_keys(runtime, items, given(arguments, 2), flag(arguments, 1));
  std::set<Value, KeyLess> seen;
  std::vector<Value> kept;
  for (Keyed& entry : keyed) {
    if (!is_hashable(entry.key)) fail(std::string("TypeError: unhashable type: '") + type_name(entry.key) + "'");
    charge_key(runtime, entry.key);
    runtime.charge_items(8);  // the set's node
    if (seen.insert(entry.key).second) kept.push_back(std::move(entry.item));
  }
  return runtime.heap.iterator(std::move(kept), "generator");
}

Value extreme(Runtime& runtime, CallArguments& arguments, bool want_max) {
  const Value items = iterate(runtime, arguments.positional[0]);
  if (items.items().empty()) return undefined_hint(runtime, "No aggregated item, sequence was empty.");
  const std::vector<Keyed> keyed = with_keys(runtime, items, given(arguments, 2), flag(arguments, 1));
  size_t best = 0;
  for (size_t i = 1; i < keyed.size(); ++i) {
    const bool better =
        want_max ? is_less(runtime, keyed[best].key, keyed[i].key) : is_less(runtime, keyed[i].key, keyed[best].key);
    if (better) best = i;
  }
  return keyed[best].item;
}
Value min(Runtime& runtime, CallArguments& arguments) { return extreme(runtime, arguments, false); }
Value max(Runtime& runtime, CallArguments& arguments) { return extreme(runtime, arguments, true); }

Value groupby(Runtime& runtime, CallArguments& arguments) {
  const Value items = iterate(runtime, arguments.positional[0]);
  const Value& attribute = arguments.positional[1];
  const Value fallback = given(arguments, 2);
  std::vector<Keyed> keyed = with_keys(runtime, items, attribute, flag(arguments, 3), fallback);
  sort_keyed(keyed, false, [&](const Value& a, const Value& b) { return is_less(runtime, a, b); });
  std::vector<Value> groups;
  for (size_t begin = 0; begin < keyed.size();) {
    std::vector<Value> members;
    size_t end = begin;
    while (end < keyed.size() && is_equal(runtime, keyed[begin].key, keyed[end].key)) {
      members.push_back(keyed[end++].item);
    }
    if (end == begin) members.push_back(keyed[end++].item);  // NaN equals nothing, itself included
    // The group is named by its first member's own spelling.
    Value grouper = get_path(runtime, members[0], attribute, fallback);
    runtime.charge_items(members.size() + 4);
    Value group = runtime.heap.tuple({std::move(grouper), runtime.heap.list(std::move(members))});
    group.as<ListObject>().is_group = true;
    groups.push_back(std::move(group));
    begin = end;
  }
  return runtime.heap.list(std::move(groups));
}

Value sum(Runtime& runtime, CallArguments& arguments) {
  const Value items = iterate(runtime, arguments.positional[0]);
  Value total = arguments.has(2) ? arguments.positional[2] : Value::integer(0);
  if (total.is_string()) fail("TypeError: sum() can't sum strings [use ''.join(seq) instead]");
  for (const Value& item : items.items()) {
    runtime.step();
    total = binary(runtime, BinaryOp::kAdd, std::move(total), get_path(runtime, item, given(arguments, 1), Value()));
  }
  return total;
}

constexpr Builtin kFilters[] = {
    {"sort", sort, 1, {"value", "reverse", "case_sensitive", "attribute"}},
    {"dictsort", dictsort, 1, {"value", "case_sensitive", "by", "reverse"}},
    {"unique", unique, 1, {"value", "case_sensitive", "attribute"}},
    {"min", min, 1, {"value", "case_sensitive", "attribute"}},
    {"max", max, 1, {"value", "case_sensitive", "attribute"}},
    {"groupby", groupby, 2, {"value", "attribute", "default", "case_sensitive"}},
    {"sum", sum, 1, {"iterable", "attribute", "start"}},
};

}  // namespace

std::span<const Builtin> ordering_filters() { return kFilters; }

}  // namespace sextant::jinja

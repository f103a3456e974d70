#include "engine/text/jinja/value.h"

#include <algorithm>

#include "engine/text/jinja/failure.h"
#include "engine/text/jinja/unicode.h"

namespace sextant::jinja {
namespace {

constexpr int kMaxContainerDepth = 256;
constexpr size_t kIndexedDictEntries = 9;  // up to eight entries a scan is faster than a tree

int key_class(const Value& key) {
  if (key.is_number()) return 1;
  if (key.is_string()) return 2;
  if (key.is(Kind::kTuple)) return 3;
  return static_cast<int>(key.kind()) + 10;
}

// Exact even where an int64 does not fit a double.
int compare_numbers(const Value& a, const Value& b) {
  if (a.is_integer() && b.is_integer()) {
    return a.integer() < b.integer() ? -1 : (a.integer() > b.integer() ? 1 : 0);
  }
  const long double x = a.is_integer() ? static_cast<long double>(a.integer()) : a.real();
  const long double y = b.is_integer() ? static_cast<long double>(b.integer()) : b.real();
  return x < y ? -1 : (x > y ? 1 : 0);
}

int compare_keys(const Value& a, const Value& b) {
  const int class_a = key_class(a);
  const int class_b = key_class(b);
  if (class_a != class_b) return class_a < class_b ? -1 : 1;
  switch (class_a) {
    case 1: return compare_numbers(a, b);
    case 2: return a.text().compare(b.text());
    case 3: {
      const size_t common = std::min(a.items().size(), b.items().size());
      for (size_t i = 0; i < common; ++i) {
        if (const int order = compare_keys(a.items()[i], b.items()[i]); order != 0) return order;
      }
      return a.items().size() < b.items().size() ? -1 : (a.items().size() > b.items().size() ? 1 : 0);
    }
    default: break;
  }
  if (a.is_none() || a.is_undefined()) return 0;  // one None; undefined values are all equal
  if (a.is(Kind::kBigInt)) return a.as<StringObject>().text.compare(b.as<StringObject>().text);
  return a.object() < b.object() ? -1 : (a.object() > b.object() ? 1 : 0);
}

int depth_around(const std::vector<Value>& items) {
  int depth = 0;
  for (const Value& item : items) depth = std::max(depth, container_depth(item));
  if (depth >= kMaxContainerDepth) fail_limit("lists and dicts nest too deeply");
  return depth + 1;
}

}  // namespace

Object::~Object() {
  if (heap != nullptr) heap->used_bytes_ -= charged_bytes;
}

TrackedObject::~TrackedObject() {
  if (previous != nullptr) previous->next = next;
  if (next != nullptr) next->previous = previous;
  if (heap != nullptr && heap->tracked_ == this) heap->tracked_ = next;
}

void destroy(Object* object) {
  if (object->tracked) {
    object->heap->bury(static_cast<TrackedObject*>(object));
  } else {
    delete object;
  }
}

std::string UndefinedObject::message() const {
  if (!hint.empty()) return hint;
  if (owner.empty()) return "'" + name + "' is undefined";
  return owner + (is_element ? " has no element " + name : " has no attribute '" + name + "'");
}

bool is_hashable(const Value& value) {
  switch (value.kind()) {
    case Kind::kList:
    case Kind::kDict: return false;
    case Kind::kTuple: return value.as<ListObject>().depth == 1;
    default: return true;
  }
}

int container_depth(const Value& value) {
  if (value.is_sequence()) return value.as<ListObject>().depth;
  if (value.is(Kind::kDict)) return value.as<DictObject>().depth;
  if (value.is(Kind::kDictView)) return 1 + container_depth(value.as<DictViewObject>().dict);
  if (value.is(Kind::kFunction)) return 1 + container_depth(value.as<FunctionObject>().self);
  if (value.is(Kind::kIterator)) return value.as<IteratorObject>().depth;
  return 0;
}

bool KeyLess::operator()(const Value& a, const Value& b) const { return compare_keys(a, b) < 0; }

size_t DictObject::find_index(const Value& key) const {
  if (!index_.empty()) {
    const auto found = index_.find(key);
    return found == index_.end() ? kNoEntry : found->second;
  }
  for (size_t i = 0; i < entries_.size(); ++i) {
    if (compare_keys(entries_[i].first, key) == 0) return i;
  }
  return kNoEntry;
}

const Value* DictObject::find(const Value& key) const {
  const size_t i = find_index(key);
  return i == kNoEntry ? nullptr : &entries_[i].second;
}

const Value* DictObject::find(std::string_view key) const {
  if (!index_.empty()) {
    StringObject probe;
    probe.text = key;
    probe.immortal = true;
    return find(Value(Kind::kString, &probe));
  }
  for (const auto& [name, value] : entries_) {
    if (name.is_string() && name.text() == key) return &value;
  }
  return nullptr;
}

void DictObject::set(Value key, Value value) {
  depth = std::max({depth, container_depth(key) + 1, container_depth(value) + 1});
  const size_t i = find_index(key);
  if (i != kNoEntry) {
    entries_[i].second = std::move(value);
    return;
  }
  entries_.emplace_back(std::move(key), std::move(value));
  if (entries_.size() == kIndexedDictEntries) {
    for (size_t k = 0; k < entries_.size(); ++k) index_.emplace(entries_[k].first, k);
  } else if (entries_.size() > kIndexedDictEntries) {
    index_.emplace(entries_.back().first, entries_.size() - 1);
  }
}

void DictObject::clear() {
  index_.clear();
  std::vector<std::pair<Value, Value>>().swap(entries_);
}

Heap::~Heap() {
  while (tracked_ != nullptr) {
    const Ref<TrackedObject> object(tracked_);
    TrackedObject* following = object->next;
    // Out of the list first: what it drops may end other objects, and it may itself outlive this turn in a
    // cycle.
    if (following != nullptr) following->previous = nullptr;
    tracked_ = following;
    object->next = object->previous = nullptr;
    object->drop_references();
  }
  for (Object* object : immortals_) delete object;
}

void Heap::check(size_t bytes) const {
  if (bytes > limit_bytes_ || used_bytes_ > limit_bytes_ - bytes) {
    fail_limit("the template needs more than " + std::to_string(limit_bytes_ >> 20) + " MiB of memory");
  }
}

void Heap::adopt(Object* object, size_t bytes) {
  object->heap = this;
  object->charged_bytes = bytes;
  used_bytes_ += bytes;
  if (immortal_) {
    object->immortal = true;
    immortals_.push_back(object);
  } else if (auto* tracked = dynamic_cast<TrackedObject*>(object)) {
    track(tracked);
  }
}

void Heap::recharge(Object& object, size_t bytes) {
  if (bytes > object.charged_bytes) check(bytes - object.charged_bytes);
  used_bytes_ = used_bytes_ - object.charged_bytes + bytes;
  object.charged_bytes = bytes;
}

void Heap::track(TrackedObject* object) {
  object->tracked = true;
  object->next = tracked_;
  if (tracked_ != nullptr) tracked_->previous = object;
  tracked_ = object;
}

void Heap::bury(TrackedObject* object) {
  if (object->previous != nullptr) object->previous->next = object->next;
  if (object->next != nullptr) object->next->previous = object->previous;
  if (tracked_ == object) tracked_ = object->next;
  object->previous = nullptr;
  object->next = dead_;
  dead_ = object;
  if (burying_) return;
  burying_ = true;
  while (dead_ != nullptr) {
    TrackedObject* dead = dead_;
    dead_ = dead->next;
    dead->next = nullptr;
    delete dead;
  }
  burying_ = false;
}

Value Heap::text(std::string text, bool markup) {
  auto* object = make<StringObject>(text.size());
  object->text = std::move(text);
  object->markup = markup;
  if (immortal_) object->num_chars = count_chars(object->text);
  return Value(Kind::kString, object);
}

Value Heap::sequence(Kind kind, std::vector<Value> items) {
  const int depth = depth_around(items);
  auto* object = make<ListObject>(items.capacity() * sizeof(Value));
  object->items = std::move(items);
  object->depth = depth;
  return Value(kind, object);
}

Value Heap::iterator(std::vector<Value> items, const char* type_name) {
  const int depth = depth_around(items);
  auto* object = make<IteratorObject>(items.capacity() * sizeof(Value));
  object->items = std::move(items);
  object->type_name = type_name;
  object->depth = depth;
  return Value(Kind::kIterator, object);
}

Value Heap::dict(std::vector<std::pair<Value, Value>> entries) {
  constexpr size_t kIndexEntryBytes = 64;
  const size_t bytes = entries.size() * (2 * sizeof(Value) + kIndexEntryBytes);
  Value value(Kind::kDict, make<DictObject>(bytes));
  auto& object = value.as<DictObject>();
  for (auto& [key, item] : entries) {
    if (!is_hashable(key)) fail("TypeError: unhashable type used as a dict key");
    object.set(std::move(key), std::move(item));
  }
  if (object.depth > kMaxContainerDepth) fail_limit("lists and dicts nest too deeply");
  return value;
}

}  // namespace sextant::jinja

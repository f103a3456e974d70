// Value: what a template computes with, after Python's types. Objects are counted references that belong to a
// Heap, which holds one render's objects to a byte budget and frees their cycles at its end. One thread per
// heap; a template's constants are immortal: their counts never change, so that renders on several threads
// share them. Lists, tuples and dicts never change after construction (the sandbox forbids it), so cycles
// pass only through tracked objects (namespaces, scopes, macros, loops).
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sextant::jinja {

class Heap;

struct Object {
  Object() = default;
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
  virtual ~Object();

  Heap* heap = nullptr;
  size_t charged_bytes = 0;
  uint32_t num_references = 0;
  bool immortal = false;
  bool tracked = false;
};

// An object that may be part of a cycle.
struct TrackedObject : Object {
  ~TrackedObject() override;
  virtual void drop_references() = 0;

  TrackedObject* previous = nullptr;
  TrackedObject* next = nullptr;
};

void destroy(Object* object);  // when its last reference is gone

template <typename T>
class Ref {
 public:
  Ref() = default;
  explicit Ref(T* object) : object_(object) { retain(); }
  Ref(const Ref& other) : object_(other.object_) { retain(); }
  Ref(Ref&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  Ref& operator=(Ref other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  ~Ref() {
    if (object_ != nullptr && !object_->immortal && --object_->num_references == 0) destroy(object_);
  }
  T* get() const { return object_; }
  T* operator->() const { return object_; }
  T& operator*() const { return *object_; }
  explicit operator bool() const { return object_ != nullptr; }

 private:
  void retain() {
    if (object_ != nullptr && !object_->immortal) ++object_->num_references;
  }
  T* object_ = nullptr;
};

enum class Kind : uint8_t {
  kMissing,  // no value at all: an argument that was not given
  kNone,
  kBool,
  kInt,
  kFloat,
  kUndefined,  // the first kind that holds an object
  kString,
  kBigInt,  // an integer beyond 64 bits from the request: it can be shown, not computed with
  kList,
  kTuple,
  kDict,
  kDictView,
  kRange,
  kIterator,
  kNamespace,
  kMacro,
  kFunction,
  kLoop,
  kCycler,
  kJoiner,
};

class Value {
 public:
  Value() = default;
  static Value none() { return Value(Kind::kNone, int64_t{0}); }
  static Value boolean(bool value) { return Value(Kind::kBool, int64_t{value}); }
  static Value integer(int64_t value) { return Value(Kind::kInt, value); }
  static Value real(double value) {
    Value v(Kind::kFloat, int64_t{0});
    v.data_.real = value;
    return v;
  }
  Value(Kind kind, Object* object) : kind_(kind) {
    data_.object = object;
    retain();
  }
  Value(const Value& other) : kind_(other.kind_), data_(other.data_) { retain(); }
  Value(Value&& other) noexcept : kind_(std::exchange(other.kind_, Kind::kMissing)), data_(other.data_) {}
  Value& operator=(const Value& other) {
    Value copy(other);
    swap(copy);
    return *this;
  }
  Value& operator=(Value&& other) noexcept {
    Value moved(std::move(other));
    swap(moved);
    return *this;
  }
  ~Value() {
    if (holds_object() && !data_.object->immortal && --data_.object->num_references == 0) destroy(data_.object);
  }
  void swap(Value& other) noexcept {
    std::swap(kind_, other.kind_);
    std::swap(data_, other.data_);
  }

  Kind kind() const { return kind_; }
  bool is(Kind kind) const { return kind_ == kind; }
  bool is_missing() const { return kind_ == Kind::kMissing; }
  bool is_none() const { return kind_ == Kind::kNone; }
  bool is_undefined() const { return kind_ == Kind::kUndefined; }
  bool is_string() const { return kind_ == Kind::kString; }
  bool is_sequence() const { return kind_ == Kind::kList || kind_ == Kind::kTuple; }
  // bool is an int, as in Python.
  bool is_integer() const { return kind_ == Kind::kInt || kind_ == Kind::kBool; }
  bool is_number() const { return is_integer() || kind_ == Kind::kFloat; }

  // Preconditions: the kind.
  bool boolean() const { return data_.integer != 0; }
  int64_t integer() const { return data_.integer; }
  double real() const { return kind_ == Kind::kFloat ? data_.real : static_cast<double>(data_.integer); }
  Object* object() const { return data_.object; }
  template <typename T>
  T& as() const {
    return static_cast<T&>(*data_.object);
  }
  const std::string& text() const;
  const std::vector<Value>& items() const;

 private:
  Value(Kind kind, int64_t integer) : kind_(kind) { data_.integer = integer; }
  bool holds_object() const { return kind_ >= Kind::kUndefined; }
  void retain() {
    if (holds_object() && !data_.object->immortal) ++data_.object->num_references;
  }

  Kind kind_ = Kind::kMissing;
  union {
    int64_t integer;
    double real;
    Object* object;
  } data_{0};
};

struct UndefinedObject : Object {
  std::string name;         // of the variable or attribute
  std::string owner;        // "'dict object'", when an attribute or element of it is missing
  std::string hint;         // the whole message, when there is a better one
  bool is_element = false;  // x[3] rather than x.name
  std::string message() const;
};

struct StringObject : Object {
  std::string text;
  size_t num_chars = kUnknown;  // counted on demand; known for immortals
  bool markup = false;          // marked by `safe`: `+` then escapes the other operand
  static constexpr size_t kUnknown = SIZE_MAX;
};

// Lists, tuples and the groups of `groupby`.
struct ListObject : Object {
  std::vector<Value> items;
  int depth = 1;          // nesting of containers, bounded so that recursion over values is
  bool is_group = false;  // answers .grouper and .list
};

// Orders dict keys: numbers (bool, int and float as one), then strings, then tuples.
struct KeyLess {
  bool operator()(const Value& a, const Value& b) const;
};

class DictObject : public Object {
 public:
  const std::vector<std::pair<Value, Value>>& entries() const { return entries_; }
  // Precondition: is_hashable(key).
  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;
  // Keeps the place of a key that is already there. For construction and namespaces only.
  void set(Value key, Value value);
  void clear();
  int depth = 1;

 private:
  static constexpr size_t kNoEntry = SIZE_MAX;
  size_t find_index(const Value& key) const;
  std::vector<std::pair<Value, Value>> entries_;
  std::map<Value, size_t, KeyLess> index_;  // only of dicts with more than a handful of entries
};

// Tuples of tuples are not: shared parts would make comparing them exponential.
bool is_hashable(const Value& value);

enum class DictViewKind : uint8_t { kKeys, kValues, kItems };
struct DictViewObject : Object {
  DictViewKind view = DictViewKind::kKeys;
  Value dict;
};

struct RangeObject : Object {
  int64_t start = 0;
  int64_t stop = 0;  // as written, for repr()
  int64_t step = 1;
  int64_t count = 0;
  int64_t at(int64_t index) const { return start + index * step; }
};

// A Python generator or iterator: always true, has no length, can be consumed once.
struct IteratorObject : Object {
  const char* type_name = "generator";
  std::vector<Value> items;
  size_t next = 0;
  int depth = 1;
};

struct NamespaceObject : TrackedObject {
  DictObject attributes;
  void drop_references() override { attributes.clear(); }
};

struct CyclerObject : TrackedObject {
  std::vector<Value> items;
  size_t position = 0;
  void drop_references() override { std::vector<Value>().swap(items); }
};

struct JoinerObject : TrackedObject {
  Value separator;
  bool used = false;
  void drop_references() override { separator = Value(); }
};

struct Builtin;
struct FunctionObject : Object {
  const Builtin* builtin = nullptr;
  Value self;  // of a bound method
};

// Objects of one render (or of one template's constants) and their bytes.
class Heap {
 public:
  explicit Heap(size_t limit_bytes, bool immortal = false) : limit_bytes_(limit_bytes), immortal_(immortal) {}
  Heap(const Heap&) = delete;
  Heap& operator=(const Heap&) = delete;
  ~Heap();

  // Fails when the budget does not allow `bytes` more; call before an allocation whose size a template
  // chooses.
  void check(size_t bytes) const;
  template <typename T>
  T* make(size_t extra_bytes = 0) {
    check(sizeof(T) + extra_bytes);
    auto owned = std::make_unique<T>();
    T* object = owned.get();
    adopt(owned.release(), sizeof(T) + extra_bytes);
    return object;
  }
  void recharge(Object& object, size_t bytes);
  // Bytes that are not an object's, such as captured output.
  void charge(size_t bytes) {
    check(bytes);
    used_bytes_ += bytes;
  }
  void refund(size_t bytes) { used_bytes_ -= bytes; }
  size_t used_bytes() const { return used_bytes_; }

  Value text(std::string text, bool markup = false);
  Value list(std::vector<Value> items) { return sequence(Kind::kList, std::move(items)); }
  Value tuple(std::vector<Value> items) { return sequence(Kind::kTuple, std::move(items)); }
  Value iterator(std::vector<Value> items, const char* type_name);
  // Fails when the containers nest too deeply.
  Value dict(std::vector<std::pair<Value, Value>> entries);

 private:
  friend void destroy(Object* object);
  friend struct Object;
  friend struct TrackedObject;
  Value sequence(Kind kind, std::vector<Value> items);
  void adopt(Object* object, size_t bytes);
  void track(TrackedObject* object);
  void bury(TrackedObject* object);

  size_t limit_bytes_;
  size_t used_bytes_ = 0;
  bool immortal_;
  bool burying_ = false;
  TrackedObject* tracked_ = nullptr;
  TrackedObject* dead_ = nullptr;  // waiting to be deleted one after another: a chain of them must not recurse
  std::vector<Object*> immortals_;
};

int container_depth(const Value& value);

inline const std::string& Value::text() const { return as<StringObject>().text; }
inline const std::vector<Value>& Value::items() const { return as<ListObject>().items; }

}  // namespace sextant::jinja

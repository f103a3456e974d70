// The tables of everything a template can call, and how their arguments are bound. Built once, read by all
// threads.
#include <unordered_map>

#include "engine/text/jinja/functions.h"
#include "engine/text/jinja/runtime.h"
#include "engine/text/jinja/test_functions.h"

namespace sextant::jinja {
namespace {

using Table = std::unordered_map<std::string_view, const Builtin*>;

Table table_of(std::initializer_list<std::span<const Builtin>> groups) {
  Table table;
  for (const auto group : groups) {
    for (const Builtin& builtin : group) table.emplace(builtin.name, &builtin);
  }
  return table;
}

const Builtin* find_in(const Table& table, std::string_view name) {
  const auto found = table.find(name);
  return found == table.end() ? nullptr : found->second;
}

std::string in_quotes(std::string_view name) { return "'" + std::string(name) + "'"; }

}  // namespace

void Runtime::fail_steps() const {
  fail_limit("the template takes more than " + std::to_string(limits_.max_steps) + " steps");
}

void Runtime::fail_text(size_t bytes) const {
  fail_limit("the template makes a text of " + std::to_string(bytes) + " bytes; the limit is " +
             std::to_string(limits_.max_output_bytes));
}

size_t Builtin::num_parameters() const {
  size_t count = 0;
  while (count < parameters.size() && !parameters[count].empty()) ++count;
  return count;
}

void bind(const Builtin& builtin, CallArguments& arguments) {
  const size_t num_parameters = builtin.num_parameters();
  const size_t num_given = arguments.positional.size();
  if (num_given > num_parameters) {
    fail("TypeError: " + in_quotes(builtin.name) + " takes at most " + std::to_string(num_parameters) +
         " arguments but " + std::to_string(num_given) + " were given");
  }
  arguments.positional.resize(num_parameters);
  for (auto& [name, value] : arguments.named) {
    size_t i = 0;
    while (i < num_parameters && builtin.parameters[i] != name.text()) ++i;
    if (i == num_parameters) {
      fail("TypeError: " + in_quotes(builtin.name) + " got an unexpected keyword argument " + in_quotes(name.text()));
    }
    if (!arguments.positional[i].is_missing()) {
      fail("TypeError: " + in_quotes(builtin.name) + " got multiple values for argument " + in_quotes(name.text()));
    }
    arguments.positional[i] = std::move(value);
  }
  arguments.named.clear();
  for (size_t i = 0; i < builtin.num_required; ++i) {
    if (arguments.positional[i].is_missing()) {
      fail("TypeError: " + in_quotes(builtin.name) + " misses its argument " + in_quotes(builtin.parameters[i]));
    }
  }
}

const Builtin* find_filter(std::string_view name) {
  static const Table table = table_of({text_filters(), markup_filters(), number_filters(), sequence_filters(),
                                       ordering_filters(), selection_filters(), json_filters()});
  return find_in(table, name);
}

const Builtin* find_test(std::string_view name) {
  static const Table table = table_of({test_functions()});
  return find_in(table, name);
}

const Builtin* find_function(std::string_view name) {
  static const Table table = table_of({global_functions()});
  return find_in(table, name);
}

Attribute make_attribute(Value name) {
  static const Table of_string = table_of({string_methods(), string_search_methods()});
  static const Table of_list = table_of({list_methods()});
  static const Table of_tuple = table_of({tuple_methods()});
  static const Table of_dict = table_of({dict_methods()});
  static const Table of_float = table_of({float_methods()});
  Attribute attribute;
  const std::string& text = name.text();
  attribute.of_string = find_in(of_string, text);
  attribute.of_list = find_in(of_list, text);
  attribute.of_tuple = find_in(of_tuple, text);
  attribute.of_dict = find_in(of_dict, text);
  attribute.of_float = find_in(of_float, text);
  attribute.of_loop = find_loop_field(text);
  attribute.name = std::move(name);
  return attribute;
}

}  // namespace sextant::jinja

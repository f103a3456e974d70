// ChatTemplate's own promises: limits, hostile templates and variables, the clock, threads.
#include "engine/text/chat_template.h"

#include <gtest/gtest.h>
#include <chrono>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "tests/engine/text/chat_template_cases.h"

namespace sextant {
namespace {

using nlohmann::ordered_json;

std::string repeated(std::string_view text, size_t count) {
  std::string out;
  for (size_t i = 0; i < count; ++i) out += text;
  return out;
}

Result<std::string> render(std::string_view source, const ordered_json& variables = ordered_json::object(),
                           const ChatTemplateLimits& limits = {}) {
  auto parsed = ChatTemplate::parse(source, limits);
  if (!parsed.ok()) return parsed.status();
  return parsed->render(variables, kTestNow);
}

// Fails with a message that holds `part`, and soon: a limit that lets a template work for seconds is none.
void expect_stopped(std::string_view source, std::string_view part,
                    const ordered_json& variables = ordered_json::object(), const ChatTemplateLimits& limits = {}) {
  SCOPED_TRACE(std::string(source.substr(0, 200)));
  const auto start = std::chrono::steady_clock::now();
  const auto result = render(source, variables, limits);
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  ASSERT_FALSE(result.ok()) << "rendered " << result->size() << " bytes";
  EXPECT_TRUE(result.status().message().starts_with("line ")) << result.status().message();
  EXPECT_NE(result.status().message().find(part), std::string::npos) << result.status().message();
  EXPECT_LT(elapsed.count(), 60.0);  // generous: sanitizers, busy machines
}

// The defaults' proportions at a size that tests under sanitizers can exhaust quickly.
ChatTemplateLimits small_limits() {
  ChatTemplateLimits limits;
  limits.max_steps = 1'000'000;
  limits.max_output_bytes = 1 << 20;
  return limits;
}

TEST(ChatTemplate, RaiseExceptionGivesTheMessageAlone) {
  const auto result = render("\n\n{{ raise_exception('Roles must alternate: ' ~ 1) }}");
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(result.status().message(), "Roles must alternate: 1");
}

TEST(ChatTemplate, VariablesMustBeAnObject) {
  const auto parsed = ChatTemplate::parse("x");
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed->render(ordered_json::array(), 0).status().code(), StatusCode::kInternal);
}

TEST(ChatTemplate, VariablesShadowFunctions) {
  EXPECT_EQ(*render("{{ range }} {{ namespace }}", {{"range", "mine"}, {"namespace", 1}}), "mine 1");
}

TEST(ChatTemplate, KeepsTheOrderOfKeys) {
  EXPECT_EQ(*render("{{ x|tojson }}", ordered_json::parse(R"({"x": {"z": 1, "a": 2, "m": {"y": 1, "b": 2}}})")),
            R"({"z": 1, "a": 2, "m": {"y": 1, "b": 2}})");
}

TEST(ChatTemplate, LargeDictsFindTheirKeys) {
  ordered_json large;
  for (int i = 0; i < 1000; ++i) large["key" + std::to_string(i)] = i;
  EXPECT_EQ(*render("{{ d.key0 }} {{ d['key8'] }} {{ d.key9 }} {{ d.key999 }} {{ 'key1000' in d }} {{ d|length }} "
                    "{{ d.get('key500') }} {{ (d.keys()|list)[10] }}",
                    {{"d", large}}),
            "0 8 9 999 False 1000 500 key10");
}

TEST(ChatTemplate, NumbersAtTheEdgeOf64Bits) {
  const auto variables =
      ordered_json::parse(R"({"big": 18446744073709551615, "max": 9223372036854775807, "min": -9223372036854775808})");
  EXPECT_EQ(*render("{{ big }} {{ big|tojson }} {{ [big] }} {{ big is number }} {{ big is integer }} {{ big == big }}",
                    {{"big", variables["big"]}}),
            "18446744073709551615 18446744073709551615 [18446744073709551615] True True True");
  EXPECT_EQ(*render("{{ max }} {{ min }} {{ max - 1 }} {{ min + 1 }} {{ min % -1 }} {{ max // -1 }}",
                    {{"max", variables["max"]}, {"min", variables["min"]}}),
            "9223372036854775807 -9223372036854775808 9223372036854775806 -9223372036854775807 0 "
            "-9223372036854775807");
  for (const char* overflow :
       {"{{ max + 1 }}", "{{ min - 1 }}", "{{ max * 2 }}", "{{ -min }}", "{{ min // -1 }}", "{{ min|abs }}",
        "{{ 2 ** 63 }}", "{{ 10 ** 100 }}", "{{ (-3) ** 41 }}", "{{ big + 1 }}", "{{ -big }}", "{{ 1e300|int }}",
        "{{ '99999999999999999999'|int }}", "{{ 99999999999999999999 }}", "{{ '%d' % 1e300 }}",
        "{{ 1e30|round(-1)|int }}", "{{ max|round(-1) }}", "{{ [max, 1]|sum }}"}) {
    const auto result = render(overflow, variables);
    ASSERT_FALSE(result.ok()) << overflow << " gave " << *result;
    EXPECT_NE(result.status().message().find("64 bits"), std::string::npos) << result.status().message();
  }
}

TEST(ChatTemplate, ClockIsTheCallersInUtc) {
  const auto parsed = ChatTemplate::parse("{{ strftime_now('%Y-%m-%d %H:%M:%S %a %j %V %U %W') }}");
  ASSERT_TRUE(parsed.ok());
  const nlohmann::ordered_json none = ordered_json::object();
  EXPECT_EQ(*parsed->render(none, kTestNow), "2026-11-22 12:00:00 Sun 326 47 47 46");
  EXPECT_EQ(*parsed->render(none, 0), "1970-01-01 00:00:00 Thu 001 01 00 00");
  EXPECT_EQ(*parsed->render(none, -1), "1969-12-31 23:59:59 Wed 365 01 52 52");
  EXPECT_EQ(*parsed->render(none, 951782400), "2000-02-29 00:00:00 Tue 060 09 09 09");
  EXPECT_EQ(*parsed->render(none, 1609459200), "2021-01-01 00:00:00 Fri 001 53 00 00");
  EXPECT_EQ(*parsed->render(none, INT64_MAX), "9999-12-31 23:59:59 Fri 365 52 52 52");
  EXPECT_EQ(*parsed->render(none, INT64_MIN), "1-01-01 00:00:00 Mon 001 01 00 01");
}

TEST(ChatTemplate, SourceLimits) {
  ChatTemplateLimits limits;
  limits.max_source_bytes = 10;
  EXPECT_TRUE(ChatTemplate::parse("0123456789", limits).ok());
  const auto result = ChatTemplate::parse("0123456789a", limits);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.status().code(), StatusCode::kTooLarge);
  EXPECT_EQ(ChatTemplate::parse("a\xFF").status().message(), "line 1: the chat template is not valid UTF-8");
  EXPECT_FALSE(ChatTemplate::parse("{{ '\xC3' }}").ok());
}

TEST(ChatTemplate, DeepSourceIsRefused) {
  for (const auto& [open, middle, close] : std::vector<std::array<const char*, 3>>{{"(", "1", ")"},
                                                                                   {"[", "", "]"},
                                                                                   {"{1:", "1", "}"},
                                                                                   {"-", "1", ""},
                                                                                   {"not ", "1", ""},
                                                                                   {"f(", "1", ")"},
                                                                                   {"x[", "1", "]"},
                                                                                   {"1 if 1 else ", "1", ""},
                                                                                   {"x|f(", "1", ")"},
                                                                                   {"x is eq(", "1", ")"},
                                                                                   {"x is eq ", "1", ""},
                                                                                   {"1 + (", "1", ")"}}) {
    SCOPED_TRACE(open);
    const std::string deep = "{{ " + repeated(open, 20'000) + middle + repeated(close, 20'000) + " }}";
    EXPECT_FALSE(ChatTemplate::parse(deep).ok());
  }
  for (const char* link : {".a", "[0]", "()", "|upper", "|upper()"}) {
    SCOPED_TRACE(link);
    EXPECT_FALSE(ChatTemplate::parse("{{ x" + repeated(link, 50'000) + " }}").ok());
  }
  EXPECT_FALSE(ChatTemplate::parse(repeated("{% if 1 %}", 10'000) + repeated("{% endif %}", 10'000)).ok());
  EXPECT_FALSE(ChatTemplate::parse(repeated("{% for x in y %}", 10'000)).ok());
  EXPECT_FALSE(ChatTemplate::parse("{% set " + repeated("(", 100'000) + " = 1 %}").ok());
}

TEST(ChatTemplate, LongSourceIsFine) {
  // Chains of one precedence level do not nest.
  EXPECT_EQ(*render("{{ 1" + repeated(" + 1", 20'000) + " }}"), "20001");
  EXPECT_EQ(render("{{ 'a'" + repeated(" ~ 'b'", 20'000) + " }}")->size(), 20'001u);
  EXPECT_EQ(render("{{ ''" + repeated(" + 'b'", 20'000) + " }}")->size(), 20'000u);
  EXPECT_EQ(*render("{{ 0" + repeated(" or 0", 20'000) + " }}"), "0");
  EXPECT_EQ(*render("{{ 1" + repeated(" == 1", 20'000) + " }}"), "True");
  EXPECT_EQ(*render("{% if 0 %}" + repeated("{% elif 0 %}", 20'000) + "{% else %}x{% endif %}"), "x");
  EXPECT_EQ(*render("{{ " + repeated("'a' ", 20'000) + "|length }}"), "20000");
}

TEST(ChatTemplate, RecursionStops) {
  expect_stopped("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "levels deep");
  expect_stopped("{% macro m(n) %}{{ [[[[[[m(n)]]]]]] }}{% endmacro %}{{ m(1) }}", "levels deep");
  expect_stopped("{% macro m() %}{% call m() %}{{ caller() }}{% endcall %}{% endmacro %}{{ m() }}", "levels deep");
  expect_stopped("{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}",
                 "levels deep");
  expect_stopped("{% macro m(x=m2()) %}{% endmacro %}{% macro m2() %}{{ m() }}{% endmacro %}{{ m() }}", "levels deep");
  expect_stopped("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}", "levels deep");
  const std::string deep = repeated("{{ f(", 1) + repeated("(", 150) + "n" + repeated(")", 150) + ") }}";
  expect_stopped("{% macro f(n) %}" + deep + "{% endmacro %}{{ f(1) }}", "levels deep");
}

TEST(ChatTemplate, RecursionThatEndsIsFine) {
  const std::string countdown =
      "{% macro m(n) %}{% if n > 0 %}{{ n % 10 }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}";
  EXPECT_EQ(render(countdown)->size(), 60u);
}

TEST(ChatTemplate, LoopsStop) {
  const ordered_json none = ordered_json::object();
  const ChatTemplateLimits limits = small_limits();
  const std::string loop = "{% for a in range(10000) %}";
  expect_stopped(repeated(loop, 3) + repeated("{% endfor %}", 3), "steps", none, limits);
  expect_stopped(repeated(loop, 3) + "x" + repeated("{% endfor %}", 3), "steps", none, limits);
  expect_stopped(loop + loop + "{% macro m() %}{% endmacro %}{{ m() }}{% endfor %}{% endfor %}", "the template ", none,
                 limits);
  expect_stopped(loop + loop + "{{ -1 in range(10000) }}{% endfor %}{% endfor %}", "steps", none, limits);
  ChatTemplateLimits few;
  few.max_steps = 1000;
  expect_stopped(loop + "{% endfor %}", "more than 1000 steps", ordered_json::object(), few);
}

TEST(ChatTemplate, MemoryIsBoundedBeforeItIsTaken) {
  for (const char* source : {
           "{{ 'a' * 999999999999 }}",
           "{{ 'ab' * 9223372036854775807 }}",
           "{{ 9223372036854775807 * 'abc' }}",
           "{{ [1] * 999999999999 }}",
           "{{ [1, 2] * 9223372036854775807 }}",
           "{{ (1,) * 99999999999 }}",
           "{{ 'a'|center(999999999999) }}",
           "{{ 'a'.ljust(9223372036854775807) }}",
           "{{ 'a'.zfill(99999999999) }}",
           "{{ '%999999999d' % 1 }}",
           "{{ '%.999999999f' % 1 }}",
           "{{ '%*d' % (999999999, 1) }}",
           "{{ '%.999999999d' % 1 }}",
           "{{ '%-999999999s' % 1 }}",
           "{{ '{:999999999}'.format(1) }}",
           "{{ '{:.999999999f}'.format(1.5) }}",
           "{{ '{:{w}}'.format(1, w=999999999) }}",
           "{{ 'a\nb'|indent(999999999999) }}",
           "{{ [[1]]|tojson(indent=999999999) }}",
           "{{ [1]|batch(999999999999, 1)|list }}",
           "{{ [1]|slice(999999999999)|list }}",
           "{{ 'a\tb'.expandtabs(999999999999) }}",
           "{% set a = 'a' * 900000 %}{{ a.replace('a', a) }}",
           "{% set a = 'a' * 900000 %}{{ a|replace('', a) }}",
           "{% set a = 'a' * 900000 %}{{ a.join(a) }}",
           "{% set a = 'a' * 900000 %}{{ [a, a, a]|join }}",
           "{% set a = 'a' * 900000 %}{{ a ~ a }}",
           "{% set a = 'a' * 900000 %}{{ a + a }}",
           "{% set a = 'a' * 900000 %}{{ a }}{{ a }}",
           "{% set a = '<' * 900000 %}{{ a|e }}",
           "{% set a = 'a' * 900000 %}{{ '%s%s' % (a, a) }}",
           "{% set a = 'a' * 900000 %}{{ '{0}{0}'.format(a) }}",
           "{% set a = '\\x01' * 900000 %}{{ a|tojson }}",
           "{% set a = '\\x01' * 900000 %}{{ [a] }}",
           "{% set a = 'a' * 900000 %}{{ a|list }}",
           "{% set a = 'a ' * 450000 %}{{ a.split() }}",
           "{% set a = '\n' * 900000 %}{{ a.splitlines() }}",
           "{% set a = '\n' * 450000 %}{{ a|indent(30, blank=true) }}",
           "{% set a = ' ' * 900000 %}{{ a|urlencode }}",
       }) {
    expect_stopped(source, "", ordered_json::object(), small_limits());
  }
  expect_stopped("{{ 'a' * 999999999999 }}", "the limit is 67108864");
  expect_stopped(
      "{% set a = 'a' * 60000000 %}{% set b = a ~ 'b' %}{% set c = a ~ 'c' %}{% set d = a ~ 'd' %}{{ a ~ 'e' "
      "}}",
      "memory");
}

TEST(ChatTemplate, GrowthOverManyStepsIsBounded) {
  const std::string forever = "{% set ns = namespace(v='ab', l=[1], d={}) %}{% for i in range(100000) %}";
  for (const char* step : {
           "{% set ns.v = ns.v ~ ns.v %}",
           "{% set ns.v = ns.v + ns.v %}",
           "{% set ns.l = ns.l + ns.l %}",
           "{% set ns.l = [ns.l] %}",
           "{% set ns.l = (ns.l, ns.l) %}",
           "{% set ns.l = {'a': ns.l} %}",
           "{% set ns.v = ns.v|replace('a', 'aaaaaaaaaaaaaaaaaa') %}",
           "{% set ns.v = [ns.v, ns.v]|tojson %}",

           "{% set ns.l = ns.l.__add__ %}{{ ns.l.x }}",
           "{% set ns.v %}{{ ns.v }}{{ ns.v }}{% endset %}",
           "{% set ns.v = ns.v|string|list|string %}",
       }) {
    expect_stopped(forever + step + "{% endfor %}", "", ordered_json::object(), small_limits());
  }
  // Shared parts make these exponential to look at.
  const std::string dag =
      "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}";
  for (const char* use : {"{{ ns.l }}", "{{ ns.l|tojson }}", "{{ ns.l|string|length }}", "{{ '%r' % [ns.l] }}"}) {
    expect_stopped(dag + use, "", ordered_json::object(), small_limits());
  }
  const std::string twin =
      "{% set ns = namespace(l=(1,), m=(1,)) %}{% for i in range(60) %}{% set ns.l = (ns.l, ns.l) %}"
      "{% set ns.m = (ns.m, ns.m) %}{% endfor %}";
  for (const char* use : {"{{ ns.l == ns.m }}", "{{ ns.l < ns.m }}", "{{ ns.l in [ns.m] }}", "{{ {ns.l: 1, ns.m: 2} }}",
                          "{{ [ns.l, ns.m]|unique|list }}", "{{ [ns.l, ns.m]|sort }}"}) {
    expect_stopped(twin + use, "", ordered_json::object(), small_limits());
  }
}

TEST(ChatTemplate, CyclesAreFreedAndPrintable) {
  // Leaks show under the address sanitizer.
  EXPECT_EQ(*render("{% set a = namespace() %}{% set a.self = a %}{% set b = namespace(a=a) %}{% set a.b = b %}x"),
            "x");
  EXPECT_EQ(*render("{% set ns = namespace() %}{% macro m() %}{{ ns.n }}{% endmacro %}{% set ns.m = m %}{% "
                    "set ns.n = 3 %}"
                    "{{ ns.m() }}"),
            "3");
  EXPECT_EQ(*render("{% set ns = namespace() %}{% for i in [1,2] %}{% set ns.loop = loop %}{{ "
                    "loop.changed(loop) }}{% endfor %}"
                    "{{ ns.loop.index }}"),
            "TrueFalse2");
  EXPECT_EQ(*render("{% set ns = namespace() %}{% for i in [1, 2, 3] %}{% macro m() %}{{ i }}{% endmacro %}"
                    "{% if loop.first %}{% set ns.m = m %}{% endif %}{% endfor %}{{ ns.m is callable }}"),
            "True");
  EXPECT_EQ(*render("{% set ns = namespace() %}{% set ns.c = cycler(ns, 1) %}{% set ns.j = joiner(ns) %}y"), "y");
  expect_stopped("{% set ns = namespace() %}{% set ns.x = [ns] %}{{ ns }}", "contains itself");
  // A long chain of namespaces must not recurse when it is freed.
  EXPECT_EQ(*render("{% set ns = namespace(head=none) %}{% for i in range(100000) %}"
                    "{% set ns.head = namespace(next=ns.head) %}{% endfor %}z"),
            "z");
}

TEST(ChatTemplate, FewNamesOrManyTakeNoMoreThanTheirShare) {
  // A scope of many variables is searched at a price.
  std::string source;
  for (int i = 0; i < 5000; ++i) source += "{% set v" + std::to_string(i) + " = 1 %}";
  EXPECT_EQ(*render(source + "{{ v4999 }}"), "1");
  source += "{% for a in range(10000) %}{% for b in range(10000) %}{{ nope }}{% endfor %}{% endfor %}";
  expect_stopped(source, "steps", ordered_json::object(), small_limits());
}

TEST(ChatTemplate, DeepVariablesAreRefused) {
  ordered_json deep = 1;
  for (int i = 0; i < 1000; ++i) deep = ordered_json::array({std::move(deep)});
  expect_stopped("{{ x }}", "nest too deeply", {{"x", deep}});
  EXPECT_EQ(*render("{{ y }}", {{"x", deep}, {"y", 1}}), "1");  // not asked for, not looked at
  ordered_json fine = 1;
  for (int i = 0; i < 200; ++i) fine = ordered_json{{"a", std::move(fine)}};
  EXPECT_EQ(*render("{{ x|tojson == x|tojson }}", {{"x", fine}}), "True");
}

TEST(ChatTemplate, InvalidBytesInVariablesDoNoHarm) {
  const ordered_json variables = {{"s", "a\xFF\xC3(\xF0\x9F"}};
  EXPECT_EQ(*render("{{ s }}", variables), "a\xFF\xC3(\xF0\x9F");
  EXPECT_EQ(*render("{{ s|length }} {{ s[::-1]|length }} {{ s|upper|length }} {{ s|list|length }}", variables),
            "6 6 6 6");
  EXPECT_TRUE(
      render("{{ s.strip() }}{{ s|tojson(ensure_ascii=true) }}{{ [s] }}{{ s.rsplit() }}{{ s.title() }}", variables)
          .ok());
}

TEST(ChatTemplate, TheSandboxGivesNothingOfTheHost) {
  for (const char* name : {"__class__", "__init__", "__globals__", "__subclasses__", "__dict__", "_x", "mro"}) {
    SCOPED_TRACE(name);
    const std::string attribute = name;
    EXPECT_EQ(*render("{{ 'a'." + attribute + " is defined }}{{ []." + attribute + " is defined }}{{ {}['" + attribute +
                      "'] is defined }}{{ range." + attribute + " is defined }}{{ (1|attr('" + attribute +
                      "')) is defined }}"),
              "FalseFalseFalseFalseFalse");
  }
  expect_stopped("{{ ''.__class__.__mro__ }}", "no attribute");
  expect_stopped("{{ '{0.__class__.__mro__}'.format('') }}", "no attribute");
  expect_stopped("{{ [].append(1) }}", "SecurityError");
  expect_stopped("{{ [[]]|map('append', 1)|list }}", "No filter named");
}

TEST(ChatTemplate, OneTemplateOnManyThreads) {
  const auto parsed = ChatTemplate::parse(
      "{% set sep = 'constant – ' %}{% macro m(x) %}{{ sep }}{{ x|upper }}{{ 'é'|length }}{% endmacro %}"
      "{% for i in range(20) %}{{ m('v' ~ n) }}{{ missing }}{{ range is callable }}{% endfor %}");
  ASSERT_TRUE(parsed.ok());
  std::vector<std::thread> threads;
  std::vector<std::string> wrong(4);
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      const std::string expected = repeated("constant – V" + std::to_string(t) + "1True", 20);
      for (int i = 0; i < 50; ++i) {
        const auto rendered = parsed->render({{"n", t}}, kTestNow);
        if (!rendered.ok() || *rendered != expected) wrong[t] = rendered.ok() ? *rendered : rendered.status().message();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::string& text : wrong) EXPECT_EQ(text, "");
}

TEST(ChatTemplate, MovesLeaveNothingBehind) {
  auto first = ChatTemplate::parse("{{ 'x' * 3 }}");
  ASSERT_TRUE(first.ok());
  ChatTemplate second = std::move(*first);
  EXPECT_EQ(*second.render(ordered_json::object(), 0), "xxx");
}

}  // namespace
}  // namespace sextant

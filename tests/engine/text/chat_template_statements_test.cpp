// White space control and statements: loops, scopes, macros, blocks. What is expected is what Jinja 3.1.6
// made of the same templates, in the environment that transformers sets up, on Python 3.11.
#include <gtest/gtest.h>

#include "tests/engine/text/chat_template_cases.h"

namespace sextant {
namespace {

TEST(ChatTemplateStatements, WhiteSpace) {
  expect_renders({
      {"a\n{% if true %}\nb\n{% endif %}\nc\n", "a\nb\nc"},
      {"a\n  {% if true %}\n  b\n  {% endif %}\nc", "a\n  b\nc"},
      {"a {%- if true -%} b {%- endif -%} c", "abc"},
      {"  {{ 1 }}  \n", "  1  "},
      {"x\n\n\n", "x\n\n"},
      {"x\n", "x"},
      {"{#c#}\nfoo", "foo"},
      {"  {# c #}\n  foo", "  foo"},
      {"a  {#- c -#}  b", "ab"},
      {"a\n  {%+ if true %}\nb{% endif +%}\nc", "a\n  b\nc"},
      {"a {{- 1 -}} b", "a1b"},
      {"a\r\nb\r{% if t %}\r\nc{% endif %}", "a\nb\nc"},
      {"{% raw %}{{ x }} {% if %}{% endraw %}!", "{{ x }} {% if %}!"},
      {"{%- raw -%}  a  {%- endraw -%}  b", "ab"},
      {"a\n  {% raw %}\n x{% endraw %}\ny", "a\n\n xy"},
      {"{{ '}}' }}", "}}"},
      {"{{ {'a': {'b': 1}}['a']['b'] }}", "1"},
      {"\n\n  {% set x = 1 %}\n\n{{ x }}", "\n\n\n1"},
      {"a{% set x = 1 %}\nb", "ab"},
      {"a   {% set x = 1 %}   b", "a      b"},
      {"{{ 1 }}\n{{ 2 }}\n", "1\n2"},
      {"{% for i in l %}\n  {{ i }}\n{% endfor %}\n", "  3\n  1\n  2\n"},
      {"{% for i in l -%}\n  {{ i }},\n{%- endfor %}", "3,1,2,"},
      {"  {%- if t %} a {% endif -%}  b", " a b"},
      {"\302\240 {%- if t %}x{% endif -%}\342\200\203y", "xy"},
      {"{# a {{ b }} {% c %} #}z", "z"},
      {"{{ 1 }}{# x #}\n{{ 2 }}", "12"},
      {"{%if t%}a{%endif%}", "a"},
      {"{#-#}x", "x"},
      {"a\n{#-\n-#}\nb", "ab"},
      {"\t{% if t %}\ta{% endif %}\n\t{{ 1 }}", "\ta\t1"},
      {"{%- if t -%}\n\n x \n\n{%- endif -%}\n\n", "x"},
  });
}

TEST(ChatTemplateStatements, For) {
  expect_renders({
      {"{% for i in [1,2,3] %}{{ loop.index }}/{{ loop.index0 }}/{{ loop.revindex }}/{{ loop.revindex0 }}/{{ "
       "loop.first }}/{{ loop.last }}/{{ loop.length }} {% endfor %}",
       "1/0/3/2/True/False/3 2/1/2/1/False/False/3 3/2/1/0/False/True/3 "},
      {"{% for i in [] %}x{% else %}empty{% endfor %}", "empty"},
      {"{% for i in [1] %}x{% else %}empty{% endfor %}", "x"},
      {"{% for i in [1,2] %}{% break %}{% else %}e{% endfor %}", "e"},
      {"{% for i in [1,2] %}{% continue %}{% else %}e{% endfor %}", "e"},
      {"{% for i in [1,2,3,4] %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% endif "
       "%}{{ i }}{% endfor %}",
       "13"},
      {"{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "b=1;a=[1, 2, {'x': None}];C=q;"},
      {"{% for k in d %}{{ k }}{% endfor %}", "baC"},
      {"{% for c in 'héy' %}{{ c }}-{% endfor %}", "h-é-y-"},
      {"{% for i in range(10) if i is even %}{{ i }}{{ ',' if not loop.last }}{% endfor %}", "0,2,4,6,8"},
      {"{% for i in range(3) if i > 5 %}x{% else %}none{% endfor %}", "none"},
      {"{% for a, (b, c) in [(1,(2,3)),(4,(5,6))] %}{{ a }}{{ b }}{{ c }} {% endfor %}", "123 456 "},
      {"{% for i in l %}{{ loop.previtem }}<{{ i }}>{{ loop.nextitem }} {% endfor %}", "<3>1 3<1>2 1<2> "},
      {"{% for i in [1,1,2,2,1] %}{{ loop.changed(i) }} {% endfor %}", "True False True False True "},
      {"{% for i in range(4) %}{{ loop.cycle('a','b','c') }}{% endfor %}", "abca"},
      {"{% for i in nested recursive %}{% if i is iterable %}[{{ loop(i) }}]{% else %}{{ i }}@{{ loop.depth "
       "}}{% endif %}{% endfor %}",
       "[1@2[2@33@3]][4@2]"},
      {"{% for i in [1,2] %}{% for j in [1,2] %}{{ loop.index }}{% endfor %}{{ loop.index }};{% endfor %}", "121;122;"},
      {"{% set x = 1 %}{% for i in [1,2] %}{% set x = x + i %}{{ x }} {% endfor %}{{ x }}", "2 3 1"},
      {"{% set ns = namespace(x=0) %}{% for i in [1,2,3] %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}", "6"},
      {"{% for i in missing %}x{% else %}e{% endfor %}", "e"},
      {"{% for i in [3,4] %}{{ i }}{% endfor %}{{ i }}|", "34|"},
      {"{% for i in (1,2) %}{% for i in 'ab' %}{{ i }}{% endfor %}{{ i }}{% endfor %}", "ab1ab2"},
      {"{% for x in [1,2] %}{% if loop.first %}{% set y = 5 %}{% endif %}{{ y }}|{% endfor %}", "5||"},
      {"{% for m in msgs %}{% if m.role == 'user' and not loop.first %}{{ loop.index0 }}{% endif %}{% endfor "
       "%}",
       "13"},
      {"{% for i in range(5) %}{% if loop.last %}L{% elif loop.first %}F{% else %}-{% endif %}{% endfor %}", "F---L"},
      {"{% set ns = namespace(stop=false) %}{% for i in range(5) if not ns.stop %}{{ i }}{% if i == 1 %}{% "
       "set ns.stop = true %}{% endif %}{% endfor %}",
       "01"},
      {"{% set ns = namespace(stop=false) %}{% for i in range(5) if not ns.stop %}{{ i }}{{ loop.last }}{% "
       "if i == 1 %}{% set ns.stop = true %}{% endif %}{% endfor %}",
       "0False1False2True"},
      {"{% for i in range(6) if i % 2 %}{{ i }}/{{ loop.length }}/{{ loop.revindex }} {% endfor %}",
       "1/3/3 3/3/2 5/3/1 "},
      {"{% for a in [[1,2],[3,4]] %}{% for b in a %}{{ b }}{% if not loop.last %},{% endif %}{% endfor %};{% "
       "endfor %}",
       "1,2;3,4;"},
      {"{% for x in [1,2,3] %}{% filter upper %}a{{ x }}{% if x == 2 %}{% break %}{% endif %}{% endfilter "
       "%}{% endfor %}",
       "A1"},
      {"{% for x in l|sort %}{{ x }}{% endfor %} {% for x in l|reverse %}{{ x }}{% endfor %}", "123 213"},
      {"{{ loop is defined }}{% for i in [1] %}{{ loop is defined }}{% endfor %}", "FalseTrue"},
      {"{% for i in [1,2,3] %}{{ loop }} {% endfor %}", "<LoopContext 1/3> <LoopContext 2/3> <LoopContext 3/3> "},
      {"{% for a,b in [[1,2]] %}{{ a+b }}{% endfor %}", "3"},
      {"{% for i in d.a if i is number %}{{ i }}{% endfor %}", "12"},
      {"{% for m in msgs[::-1] %}{{ m.role[0] }}{% endfor %}", "uaus"},
      {"{% for i in range(3) %}{{ i }}{% if loop.index == 2 %}{% break %}{% endif %}{% endfor %}{% for i in "
       "range(3) recursive %}{{ i }}{% endfor %}",
       "01012"},
  });
}

TEST(ChatTemplateStatements, SetAndScope) {
  expect_renders({
      {"{% set a, b = 1, 2 %}{{ a }}{{ b }}", "12"},
      {"{% set x %}  hi {{ 1 }} {% endset %}[{{ x }}]", "[  hi 1 ]"},
      {"{% set x | upper | trim %} hi {% endset %}[{{ x }}]", "[HI]"},
      {"{% set ns = namespace() %}{% set ns.a = 1 %}{% set ns.b %}B{% endset %}{{ ns.a }}{{ ns.b }}{{ ns }}",
       "1B<Namespace {'a': 1, 'b': 'B'}>"},
      {"{% if true %}{% set q = 1 %}{% endif %}{{ q }}", "1"},
      {"{% if false %}{% set q = 1 %}{% endif %}{{ q }}|{{ q is defined }}", "|False"},
      {"{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a }}|", "3|"},
      {"{% set a = 5 %}{% with a = 1, b = a %}{{ b }}{% endwith %}", "5"},
      {"{% with %}{% set z9 = 1 %}{{ z9 }}{% endwith %}{{ z9 }}|", "1|"},
      {"{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a }}{{ ns.b }}", "12"},
      {"{% set s = s|upper %}{{ s }}", "HELLO WORLD"},
      {"{% set x = 1 %}{% filter lower %}{% set x = 2 %}X{{ x }}{% endfilter %}{{ x }}", "x21"},
      {"{% set x %}{% set y = 3 %}{{ y }}{% endset %}{{ x }}{{ y }}|", "3|"},
      {"{% set d2 = dict(a=1, b=2) %}{{ d2 }} {{ dict({'x': 1}, y=2) }} {{ dict([('a', 1)]) }}",
       "{'a': 1, 'b': 2} {'x': 1, 'y': 2} {'a': 1}"},
      {"{% set x = 1 if false %}{{ x }}|{{ x is undefined }}", "|True"},
      {"{% set (a, b) = (1, 2) %}{{ a }}{{ b }}", "12"},
      {"{% set ns = namespace(l=[]) %}{% for i in range(3) %}{% set ns.l = ns.l + [i] %}{% endfor %}{{ ns.l "
       "}}",
       "[0, 1, 2]"},
      {"{% generation %}g{% set gg = 1 %}{{ gg }}{% endgeneration %}{{ gg }}|", "g1|"},
      {"{% for m in msgs %}{% if m.role == 'assistant' %}{% generation %}{{ loop.index }}{% endgeneration "
       "%}{% endif %}{% endfor %}",
       "3"},
      {"{% block a %}x{{ s }}{% endblock %}", "xHello World"},
      {"{% set ns = namespace(a=1) %}{% set ns.a, y = 5, 6 %}{{ ns.a }}{{ y }}", "56"},
      {"{% print 1, 'a' %}", "1a"},
      {"{% if 1 %}a{% elif 2 %}b{% else %}c{% endif %}{% if 0 %}a{% elif 2 %}b{% else %}c{% endif %}{% if 0 "
       "%}a{% elif 0 %}b{% else %}c{% endif %}",
       "abc"},
      {"{% if none %}{% else %}x{% endif %}", "x"},
      {"{% filter upper|replace('A','B') %}aaa{% endfilter %}", "BBB"},
      {"{% filter indent(2) %}a\nb{% endfilter %}", "a\n  b"},
      {"{% set range = 5 %}{{ range }}", "5"},
  });
}

TEST(ChatTemplateStatements, Macros) {
  expect_renders({
      {"{% macro m(a, b=2, c='x') %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }} {{ m(1, 3) }} {{ m(1, "
       "c='z') }} {{ m(a=5) }} {{ m() }}",
       "12x 13x 12z 52x 2x"},
      {"{% macro m() %}{{ varargs }} {{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}", "(1, 2) {'x': 3}"},
      {"{% macro m(x) %}[{{ caller() }}{{ x }}]{% endmacro %}{% call m(1) %}body{% endcall %}", "[body1]"},
      {"{% macro m() %}{{ caller(1, b=2) }}{% endmacro %}{% call(a, b) m() %}{{ a }}{{ b }}{% endcall %}", "12"},
      {"{% macro f(n) %}{% if n > 0 %}{{ n }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}", "54321"},
      {"{% macro m(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ m(3) }}", "33"},
      {"{% set x = 1 %}{% macro m() %}{{ x }}{% endmacro %}{% set x = 2 %}{{ m() }}", "2"},
      {"{% macro m() %}{% set x = 9 %}{{ x }}{% endmacro %}{% set x = 1 %}{{ m() }}{{ x }}", "91"},
      {"{% macro m(a) %}{{ a }}{% endmacro %}{{ m }} {{ m.name }} {{ m.arguments }} {{ m.caller }} {{ m is "
       "callable }}",
       "<Macro 'm'> m ('a',) False True"},
      {"{% macro m() %}a{% endmacro %}{{ m()|upper ~ 'b' }}", "Ab"},
      {"{% macro m(a) %}  {{ a }}\n{% endmacro %}[{{ m(1) }}]", "[  1\n]"},
      {"{% macro m(a) -%}  {{ a }}\n{%- endmacro %}[{{ m(1) }}]", "[1]"},
      {"{% macro outer() %}{% macro inner() %}i{% endmacro %}{{ inner() }}o{% endmacro %}{{ outer() }}", "io"},
      {"{% macro m(a) %}{{ a is defined }}{% endmacro %}{{ m() }}{{ m(1) }}", "FalseTrue"},
      {"{% macro m(a) %}{{ a }}{% endmacro %}{{ m(*[1]) }}{{ m(**{'a': 2}) }}", "12"},
      {"{% macro m() %}{{ caller is defined }}{% endmacro %}{{ m() }}", "False"},
      {"{% macro m(n) %}{% for i in n %}{% if i is iterable %}{{ m(i) }}{% else %}{{ i }}{% endif %}{% "
       "endfor %}{% endmacro %}{{ m(nested) }}",
       "1234"},
      {"{% for i in [1,2] %}{% macro q() %}{{ i }}{% endmacro %}{{ q() }}{% endfor %}", "12"},
      {"{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}B{% endmacro %}{{ a() }}", "B"},
      {"{% set ns = namespace(c=0) %}{% macro inc() %}{% set ns.c = ns.c + 1 %}{% endmacro %}{{ inc() }}{{ "
       "inc() }}{{ ns.c }}",
       "2"},
      {"{% macro m(messages) %}{{ messages|length }}{% endmacro %}{{ m(msgs) }}", "4"},
      {"{% macro w(t) %}<{{ t }}>{{ caller() }}</{{ t }}>{% endmacro %}{% call w('a') %}{% call w('b') %}x{% "
       "endcall %}{% endcall %}",
       "<a><b>x</b></a>"},
      {"{% macro m(caller=none) %}{{ caller is none }}{% endmacro %}{{ m() }}", "True"},
  });
}

}  // namespace
}  // namespace sextant

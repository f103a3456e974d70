// Filters and tests. What is expected is what Jinja 3.1.6 made of the same templates, in
// the environment that transformers sets up, on Python 3.11.
#include <gtest/gtest.h>

#include "tests/engine/text/chat_template_cases.h"

namespace sextant {
namespace {

TEST(ChatTemplateFilters, Tests) {
  expect_renders({
      {"{{ 1 is number }}{{ 1.5 is number }}{{ true is number }}{{ '1' is number }}", "TrueTrueTrueFalse"},
      {"{{ 1 is integer }}{{ true is integer }}{{ 1.0 is float }}{{ 1 is float }}", "TrueFalseTrueFalse"},
      {"{{ 'a' is string }}{{ 1 is string }}{{ [] is sequence }}{{ {} is sequence }}{{ 'a' is sequence }}{{ "
       "1 is sequence }}{{ range(2) is sequence }}{{ {}.items() is sequence }}",
       "TrueFalseTrueTrueTrueFalseTrueFalse"},
      {"{{ {} is mapping }}{{ [] is mapping }}{{ namespace() is mapping }}", "TrueFalseFalse"},
      {"{{ [] is iterable }}{{ 'a' is iterable }}{{ {} is iterable }}{{ 1 is iterable }}{{ none is iterable "
       "}}{{ missing is iterable }}{{ missing is sequence }}{{ missing is mapping }}{{ missing is string }}",
       "TrueTrueTrueFalseFalseTrueTrueFalseFalse"},
      {"{{ none is none }}{{ 0 is none }}{{ missing is none }}", "TrueFalseFalse"},
      {"{{ true is true }}{{ 1 is true }}{{ false is false }}{{ 0 is false }}{{ true is boolean }}{{ 1 is "
       "boolean }}",
       "TrueFalseTrueFalseTrueFalse"},
      {"{{ 3 is divisibleby 3 }}{{ 4 is divisibleby(3) }}{{ 3 is odd }}{{ 4 is even }}", "TrueFalseTrueTrue"},
      {"{{ 1 is eq 1 }}{{ 1 is equalto 2 }}{{ 1 is ne 2 }}{{ 1 is lt 2 }}{{ 1 is gt 2 }}{{ 1 is le 1 }}{{ 1 "
       "is ge 2 }}{{ 1 is lessthan 3 }}{{ 3 is greaterthan 1 }}",
       "TrueFalseTrueTrueFalseTrueFalseTrueTrue"},
      {"{{ 'a' is in 'abc' }}{{ 1 is in [2] }}{{ 1 is not in [2] }}", "TrueFalseTrue"},
      {"{{ 'abc' is lower }}{{ 'ABC' is upper }}{{ 'Abc' is lower }}{{ '1' is lower }}", "TrueTrueFalseFalse"},
      {"{{ m is callable }}{{ range is callable }}{{ 'x'.upper is callable }}{{ 'x' is callable }}",
       "TrueTrueTrueFalse"},
      {"{{ none is sameas none }}{{ true is sameas true }}{{ 1 is sameas true }}", "TrueTrueFalse"},
      {"{{ 'upper' is filter }}{{ 'nope' is filter }}{{ 'odd' is test }}", "TrueFalseTrue"},
      {"{{ 1 is not none }}{{ not 1 is none }}{{ 1 is not string and true }}", "TrueTrueTrue"},
      {"{{ 'x' is escaped }}{{ ('x'|safe) is escaped }}", "FalseTrue"},
      {"{{ missing is undefined }}{{ missing is not defined }}{{ s is defined }}", "TrueTrueTrue"},
      {"{{ [1] is not string }}{{ s is string and s|length > 3 }}", "TrueTrue"},
      {"{{ d is mapping and 'b' in d }}{{ msgs[2].content is none }}{{ msgs[2]['tool_calls'] is defined and "
       "msgs[2]['tool_calls'] is not none }}",
       "TrueTrueTrue"},
  });
}

TEST(ChatTemplateFilters, TextFilters) {
  expect_renders({
      {"{{ s|upper }} {{ s|lower }} {{ 'hELLO wORLD foo-bar (x'|title }} {{ 'hELLO'|capitalize }}",
       "HELLO WORLD hello world Hello World Foo-Bar (X Hello"},
      {"{{ u|upper }}", "HÉLLO WÖRLD ÀÉ SS Ñ 日本 🙂"},
      {"{{ u|lower }} {{ u|title }} {{ 'ΑΣ ΣΑΣ'|lower }} {{ 'İ'|lower|length }} {{ 'ﬁx'|upper }}",
       "héllo wörld àé ß ñ 日本 🙂 Héllo Wörld Àé SS Ñ 日本 🙂 ας σας 2 FIX"},
      {"[{{ '  a b '|trim }}] [{{ 'xxaxx'|trim('x') }}] [{{ '\302\240\342\200\203a\n'|trim }}]", "[a b] [a] [a]"},
      {"{{ 'aXbXc'|replace('X', '-') }} {{ 'aXbXc'|replace('X', '-', 1) }} {{ 'abc'|replace('', '-') }} {{ "
       "123|replace(2, 'x') }}",
       "a-b-c a-bXc -a-b-c- 1x3"},
      {"{{ 'a\nb\n\nc'|indent }}|{{ 'a\nb\n\nc'|indent(2, true) }}|{{ 'a\nb\n\nc'|indent(2, blank=true) "
       "}}|{{ 'a\nb'|indent('>>', first=true) }}|{{ ''|indent }}|{{ 'a\n'|indent }}|",
       "a\n    b\n\n    c|  a\n  b\n\n  c|a\n  b\n  \n  c|>>a\n>>b||a\n|"},
      {"[{{ 'ab'|center(7) }}] [{{ 'abc'|center(8) }}] [{{ 'abc'|center(2) }}]", "[   ab  ] [  abc   ] [abc]"},
      {"{{ 'hello big world'|truncate(9) }} {{ 'hello big world'|truncate(9, true) }} {{ 'hello'|truncate(4) "
       "}} {{ 'hello big world'|truncate(11, false, '!', 0) }} {{ 'x'|truncate(3) }}",
       "hello... hello ... hello hello big! x"},
      {"{{ 'a b, c-d _x é1'|wordcount }}", "6"},
      {"{{ '%s-%d-%5.2f|%-5s|%05d|%x|%%'|format('a', 3, 2.567, 'l', 42, 255) }}", "a-3- 2.57|l    |00042|ff|%"},
      {"{{ '%(a)s %(b)03d'|format(a='x', b=7) }}", "x 007"},
      {"{{ 1|string + 'a' }} {{ none|string }} {{ [1]|string }} {{ 1.0|string }}", "1a None [1] 1.0"},
      {"{{ 'a<b>&\"\\''|escape }} {{ 'a<'|e }} {{ ('<'|safe)|e }} {{ ('<'|safe)|forceescape }}",
       "a&lt;b&gt;&amp;&#34;&#39; a&lt; < &lt;"},
      {"{{ '<b>'|safe + '<i>' }} {{ '<i>' + '<b>'|safe }} {{ '<b>'|safe ~ '<i>' }} {{ ('<b>'|safe).upper() + "
       "'<' }} {{ '%s'|safe % '<' }} {{ ('a'|safe) * 2 + '<' }}",
       "<b>&lt;i&gt; &lt;i&gt;<b> <b><i> <B>&lt; &lt; aa&lt;"},
      {"{{ 'a b/c?d=é&'|urlencode }} {{ {'a b': 'c/d', 'e': 1}|urlencode }}", "a%20b/c%3Fd%3D%C3%A9%26 a+b=c%2Fd&e=1"},
      {"{{ s|reverse }} {{ u|reverse }}", "dlroW olleH 🙂 本日 ñ ß ÉÀ dlröw olléh"},
      {"{{ s|first }} {{ s|last }} {{ ''|first }}| {{ s|list }} {{ s|length }}",
       "H d | ['H', 'e', 'l', 'l', 'o', ' ', 'W', 'o', 'r', 'l', 'd'] 11"},
      {"{{ missing|upper }}|{{ missing|trim }}|{{ missing|replace('a','b') }}|{{ missing|string }}|{{ "
       "missing|length }}|{{ missing|join }}|{{ missing|list }}|{{ missing|first }}|",
       "||||0||[]||"},
      {"{{ 5|upper }} {{ none|lower }} {{ true|title }}", "5 none True"},
      {"{{ 'abc'|batch(2)|list }}", "[['a', 'b'], ['c']]"},
      {"{{ 'Hello'|string|safe|upper }}", "HELLO"},
      {"{{ 'ß'|upper }} {{ 'straße'|capitalize }} {{ 'ŉ'|upper }}", "SS Straße ʼN"},
      {"{{ 'a\\tb'|upper }} {{ 'x'|d }} {{ 'a\342\200\250b\013c\035d'|indent(1) }}", "A\tB x a\n b\n c\n d"},
      {"{{ {'a': '<', 'b': none, 'c': 1}|xmlattr }} [{{ {}|xmlattr }}]", " a=\"&lt;\" c=\"1\" []"},
  });
}

TEST(ChatTemplateFilters, SequenceFilters) {
  expect_renders({
      {"{{ l|sort }} {{ l|sort(reverse=true) }} {{ ls|sort }} {{ ls|sort(case_sensitive=true) }} {{ "
       "l|sort(true) }}",
       "[1, 2, 3] [3, 2, 1] ['A', 'a', 'b', 'c'] ['A', 'a', 'b', 'c'] [3, 2, 1]"},
      {"{{ people|sort(attribute='name')|map(attribute='name')|list }} {{ "
       "people|sort(attribute='age,name')|map(attribute='name')|join(',') }} {{ people|sort(attribute='age', "
       "reverse=true)|map(attribute='name')|join(',') }}",
       "['alice', 'Bob', 'Carl'] alice,Bob,Carl Bob,Carl,alice"},
      {"{{ l|join }} {{ l|join(', ') }} {{ people|join('/', attribute='name') }} {{ "
       "[1,none,'a',1.5]|join('-') }} {{ 'abc'|join('.') }} {{ d|join(',') }}",
       "312 3, 1, 2 Bob/alice/Carl 1-None-a-1.5 a.b.c b,a,C"},
      {"{{ l|first }} {{ l|last }} {{ []|first }}|{{ []|last }}| {{ l|length }} {{ l|count }} {{ d|length }} "
       "{{ d|first }} {{ d|last }}",
       "3 2 || 3 3 3 b C"},
      {"{{ l|min }} {{ l|max }} {{ []|min }}| {{ ls|min }} {{ ls|max }} {{ people|max(attribute='age') }} {{ "
       "ls|min(case_sensitive=true) }}",
       "1 3 | A c {'name': 'Bob', 'age': 30, 'city': 'X'} A"},
      {"{{ l|sum }} {{ people|sum(attribute='age') }} {{ []|sum }} {{ l|sum(start=10) }} {{ [1.5,2]|sum }}",
       "6 85 0 16 3.5"},
      {"{{ [1,2,1,'a','A',1.0]|unique|list }} {{ ['a','A']|unique(case_sensitive=true)|list }} {{ "
       "people|unique(attribute='city')|map(attribute='name')|list }}",
       "[1, 2, 'a'] ['a', 'A'] ['Bob', 'alice']"},
      {"{{ d|dictsort }} {{ {'b':1,'a':3,'C':2}|dictsort(true) }} {{ "
       "{'b':1,'a':3,'C':2}|dictsort(false,'value') }} {{ {'b':1,'a':3}|dictsort(reverse=true) }}",
       "[('a', [1, 2, {'x': None}]), ('b', 1), ('C', 'q')] [('C', 2), ('a', 3), ('b', 1)] [('b', 1), ('C', "
       "2), ('a', 3)] [('b', 1), ('a', 3)]"},
      {"{{ d|items|list }} {{ missing|items|list }}", "[('b', 1), ('a', [1, 2, {'x': None}]), ('C', 'q')] []"},
      {"{{ [1,2,3,4,5]|batch(2)|list }} {{ [1,2,3,4,5]|batch(2,'x')|list }} {{ [1,2,3,4,5]|slice(2)|list }} "
       "{{ [1,2,3,4,5]|slice(3,'x')|list }} {{ []|batch(3)|list }}",
       "[[1, 2], [3, 4], [5]] [[1, 2], [3, 4], [5, 'x']] [[1, 2, 3], [4, 5]] [[1, 2], [3, 4], [5, 'x']] []"},
      {"{{ l|map('string')|list }} {{ ls|map('upper')|join }} {{ people|map(attribute='zip', "
       "default='none')|list }} {{ [[1,2],[3]]|map('length')|list }} {{ ['a_b']|map('replace','_','-')|first "
       "}} {{ nested|map(attribute='0')|list }} {{ []|map('upper')|list }}",
       "['3', '1', '2'] BACA ['none', 'none', 'none'] [2, 1] a-b [1, 4] []"},
      {"{{ l|select('odd')|list }} {{ l|reject('odd')|list }} {{ [0,1,'',none]|select|list }} {{ "
       "[0,1,'',none]|reject|list }} {{ l|select('gt', 1)|list }} {{ l|select('in', [1,2])|list }}",
       "[3, 1] [2] [1] [0, '', None] [3, 2] [1, 2]"},
      {"{{ msgs|selectattr('role','equalto','user')|list|length }} {{ "
       "msgs|selectattr('tool_calls')|list|length }} {{ "
       "msgs|rejectattr('role','eq','user')|map(attribute='role')|list }} {{ "
       "msgs|selectattr('tool_calls','defined')|list|length }} {{ "
       "msgs|rejectattr('content','none')|list|length }}",
       "2 1 ['system', 'assistant'] 1 3"},
      {"{{ l|reverse|list }} {{ (1,2)|reverse|list }} {{ range(3)|reverse|list }} {{ d|reverse|list }} {{ "
       "'ab'|reverse }}",
       "[2, 1, 3] [2, 1] [2, 1, 0] ['C', 'a', 'b'] ba"},
      {"{% if msgs|selectattr('role','equalto','nope') %}always{% endif %}", "always"},
      {"{% set g = [1,2,3]|select('odd') %}{{ g|list }}{{ g|list }}", "[1, 3][]"},
      {"{% for g in people|groupby('city') %}{{ g.grouper }}:{% for p in g.list %}{{ p.name }} {% endfor "
       "%};{% endfor %}{% for k, v in people|groupby('age') %}{{ k }}={{ v|length }} {% endfor %}",
       "X:Bob Carl ;Y:alice ;25=1 30=2 "},
      {"{% for k, v in people|groupby('zip', default='?') %}{{ k }}{{ v|length }}{% endfor %}{% for k, v in "
       "people|groupby('city', case_sensitive=true) %}{{ k }}{% endfor %}",
       "?3XYx"},
      {"{{ (l|map('string')|list)[0] }} {{ (l|map('string'))[0] }}|", "3 |"},
      {"{{ [3,1]|list|sort|first }} {{ {'a':1}.items()|first }} {{ range(5)|list|last }} {{ range(3)|length "
       "}}",
       "1 ('a', 1) 4 3"},
      {"{{ [1,2,3]|select('divisibleby', 2)|first }} {{ [true,false]|map('int')|list }}", "2 [1, 0]"},
      {"{{ people|map(attribute='name')|map('lower')|sort|join(' ') }}", "alice bob carl"},
      {"{{ people|selectattr('age','gt',26)|map(attribute='name')|join(',') }}", "Bob,Carl"},
      {"{{ d|list }} {{ d.items()|list|length }} {{ 'abc'|list }} {{ (1,2)|list }}",
       "['b', 'a', 'C'] 3 ['a', 'b', 'c'] [1, 2]"},
      {"{{ msgs|map(attribute='role')|unique|join(',') }}", "system,user,assistant"},
      {"{{ [[3],[1,2]]|sort }} {{ [(1,'b'),(1,'a')]|sort }}", "[[1, 2], [3]] [(1, 'a'), (1, 'b')]"},
      {"{{ people|attr('x') }}|{{ d|attr('b') }}|{{ (d|attr('get'))('b') }}", "||1"},
      {"{{ [none, 1]|map('default', 'x', true)|list }}", "['x', 1]"},
      {"{{ ['b','a']|sort|join(',') ~ '!' }}", "a,b!"},
  });
}

TEST(ChatTemplateFilters, NumberFilters) {
  expect_renders({
      {"{{ '42'|int }} {{ '4.9'|int }} {{ 'x'|int }} {{ 'x'|int(7) }} {{ 4.9|int }} {{ -4.9|int }} {{ ' 12 "
       "'|int }} {{ '0x1f'|int(base=16) }} {{ 'ff'|int(0,16) }} {{ none|int }} {{ true|int }} {{ ''|int }} "
       "{{ '1_000'|int }} {{ [1]|int(3) }} {{ '1e3'|int }} {{ '-5'|int }} {{ '+5'|int }}",
       "42 4 0 7 4 -4 12 31 255 0 1 0 1000 3 1000 -5 5"},
      {"{{ '4.5'|float }} {{ 'x'|float }} {{ 'x'|float(1.5) }} {{ 3|float }} {{ none|float }} {{ 'inf'|float "
       "}} {{ 'nan'|float }} {{ ' 1e3 '|float }} {{ '-.5'|float }}",
       "4.5 0.0 1.5 3.0 0.0 inf nan 1000.0 -0.5"},
      {"{{ 2.5|round }} {{ 3.5|round }} {{ 2.675|round(2) }} {{ 42.55|round(1,'floor') }} {{ "
       "42.51|round(1,'ceil') }} {{ 5|round }} {{ 1234|round(-2) }} {{ 1250|round(-2) }} {{ 1.005|round(2) "
       "}} {{ 42.7|round|int }} {{ -2.5|round }} {{ 1234.5|round(-2) }}",
       "2.0 4.0 2.67 42.5 42.6 5 1200 1200 1.0 43 -2.0 1200.0"},
      {"{{ -3|abs }} {{ (-3)|abs }} {{ -3.5|abs }} {{ (-3.5)|abs }} {{ true|abs }}", "3 3 3.5 3.5 1"},
      {"{{ 10|string|length }} {{ (7/2)|int }} {{ 7|float }} {{ 1e10|int }}", "2 3 7.0 10000000000"},
  });
}

}  // namespace
}  // namespace sextant

// str and container methods, both ways of formatting, JSON, and global functions. What is expected is what
// Jinja 3.1.6 made of the same templates, in the environment that transformers sets up, on Python 3.11.
#include <gtest/gtest.h>

#include "tests/engine/text/chat_template_cases.h"

namespace sextant {
namespace {

TEST(ChatTemplateMethods, Methods) {
  expect_renders({
      {"{{ s.upper() }} {{ s.lower() }} {{ 'a b-c'.title() }} {{ 'aB'.swapcase() }} {{ 'hELLO'.capitalize() "
       "}} {{ 'ß'.casefold() }}",
       "HELLO WORLD hello world A B-C Ab Hello ss"},
      {"[{{ ' a '.strip() }}] [{{ ' a '.lstrip() }}] [{{ ' a '.rstrip() }}] [{{ 'xyaxy'.strip('yx') }}] [{{ "
       "'\n\na\n'.strip('\n') }}] [{{ 'xa'.lstrip('x') }}] [{{ 'ax'.rstrip('x') }}]",
       "[a] [a ] [ a] [a] [a] [a] [a]"},
      {"{{ 'a,b,,c'.split(',') }} {{ ' a  b '.split() }} {{ 'a,b,c'.split(',', 1) }} {{ 'a b  c "
       "'.split(none, 1) }} {{ ''.split() }} {{ ''.split(',') }} {{ 'aXXb'.split('XX') }}",
       "['a', 'b', '', 'c'] ['a', 'b'] ['a', 'b,c'] ['a', 'b  c '] [] [''] ['a', 'b']"},
      {"{{ 'a,b,c'.rsplit(',', 1) }} {{ ' a  b c '.rsplit() }} {{ ' a  b c '.rsplit(none, 1) }} {{ "
       "'a,b'.rsplit(',') }} {{ 'xaax'.rsplit('a') }}",
       "['a,b', 'c'] ['a', 'b', 'c'] [' a  b', 'c'] ['a', 'b'] ['x', '', 'x']"},
      {"{{ 'a\nb\r\nc\rd\n'.splitlines() }} {{ 'a\nb'.splitlines(true) }} {{ ''.splitlines() }} {{ "
       "'\n'.splitlines() }}",
       "['a', 'b', 'c', 'd'] ['a\\n', 'b'] [] ['']"},
      {"{{ ','.join(['a','b']) }} {{ ''.join([]) }} {{ '-'.join('abc') }}", "a,b  a-b-c"},
      {"{{ 'aXbX'.replace('X','-') }} {{ 'aXbX'.replace('X','-',1) }} {{ 'ab'.replace('','.') }} {{ "
       "'ab'.replace('','.',2) }} {{ 'aaa'.replace('aa','b') }}",
       "a-b- a-bX .a.b. .a.b ba"},
      {"{{ s.startswith('He') }} {{ s.startswith(('x','H')) }} {{ s.endswith('ld') }} {{ s.startswith('W', "
       "6) }} {{ s.endswith('Hello', 0, 5) }} {{ s.startswith('') }} {{ ''.endswith('x') }}",
       "True True True True True True False"},
      {"{{ s.find('o') }} {{ s.find('o', 5) }} {{ s.find('zz') }} {{ s.rfind('o') }} {{ s.index('W') }} {{ "
       "s.count('o') }} {{ s.count('') }} {{ u.find('wörld') }} {{ u.rfind('日') }} {{ s.find('o', -5) }} {{ "
       "s.find('') }} {{ s.find('', 99) }} {{ 'aaa'.rfind('aa') }} {{ 'aaaa'.count('aa') }} {{ "
       "s.find('o',0,4) }}",
       "4 7 -1 7 6 2 12 6 19 7 0 -1 1 2 -1"},
      {"{{ 'abc'.isalpha() }} {{ 'ab1'.isalnum() }} {{ '12'.isdigit() }} {{ '1.2'.isdigit() }} {{ ' "
       "'.isspace() }} {{ ''.isspace() }} {{ 'abc'.islower() }} {{ 'ABC'.isupper() }} {{ 'Abc Def'.istitle() "
       "}} {{ '²'.isdigit() }} {{ '²'.isdecimal() }} {{ '½'.isnumeric() }} {{ 'a_1'.isidentifier() }} {{ "
       "'é'.isascii() }} {{ ''.isprintable() }} {{ 'é'.isalpha() }}",
       "True True True False True False True True True True False True True False True True"},
      {"[{{ 'ab'.center(5) }}] [{{ 'ab'.ljust(5, '.') }}] [{{ 'ab'.rjust(5) }}] [{{ '-5'.zfill(4) }}] [{{ "
       "'5'.zfill(3) }}] [{{ 'abc'.center(6,'*') }}] [{{ 'é'.center(4,'日') }}]",
       "[  ab ] [ab...] [   ab] [-005] [005] [*abc**] [日é日日]"},
      {"{{ 'a=b=c'.partition('=') }} {{ 'a=b=c'.rpartition('=') }} {{ 'abc'.partition('=') }} {{ "
       "'abc'.rpartition('=') }}",
       "('a', '=', 'b=c') ('a=b', '=', 'c') ('abc', '', '') ('', '', 'abc')"},
      {"{{ 'foobar'.removeprefix('foo') }} {{ 'foobar'.removesuffix('bar') }} {{ 'foobar'.removeprefix('x') "
       "}}",
       "bar foo foobar"},
      {"{{ 'a\tb\tc'.expandtabs(4) }}|{{ 'ab\n\tx'.expandtabs() }}", "a   b   c|ab\n        x"},
      {"{{ '{} {} {}'.format(1, 'a', none) }} {{ '{1} {0}'.format('a','b') }} {{ '{x} {y.z} "
       "{w[0]}'.format(x=1, y={'z': 2}, w=[3]) }} {{ '{{}}'.format() }} {{ "
       "'{:>5}|{:<5}|{:^5}|{:*^7}'.format('a','b','c','d') }}",
       "1 a None b a 1 2 3 {}     a|b    |  c  |***d***"},
      {"{{ '{:05d} {:+d} {:x} {:#x} {:b} {:,} {:_}'.format(42, 5, 255, 255, 5, 1234567, 1234567) }}",
       "00042 +5 ff 0xff 101 1,234,567 1_234_567"},
      {"{{ '{:.2f} {:8.3f} {:e} {:g} {:.0f} {:%} {:.1%}'.format(3.14159, 2.5, 12345.678, 0.00001, 2.5, 0.25, "
       "0.256) }}",
       "3.14    2.500 1.234568e+04 1e-05 2 25.000000% 25.6%"},
      {"{{ '{!r} {!s} {!r:>8}'.format('a', 'b', 'c') }} {{ '{:{}}|'.format('a', 4) }} {{ "
       "'{:{w}.{p}f}'.format(2.0, w=8, p=2) }}",
       "'a' b      'c' a   |     2.00"},
      {"{{ '{:5}|{:<5}|{:5}|{:.3}|{:5}'.format(1, 2, 'a', 'abcdef', 1.5) }} {{ '{}'.format([1]) }} {{ "
       "'{:}'.format(true) }} {{ '{:d}'.format(true) }} {{ '{:.3}'.format(1234.5) }} {{ "
       "'{:,.2f}'.format(1234567.891) }} {{ '{:c}'.format(65) }}",
       "    1|2    |a    |abc|  1.5 [1] True 1 1.23e+03 1,234,567.89 A"},
      {"{{ '%s %r %d %i' % ('a', 'b', 3.9, 4) }} {{ '%5s|%-5s|%.2s' % ('a','b','cde') }} {{ '%05.1f %+d % d "
       "%e %g %G' % (2.25, 5, 5, 12345.6789, 1e-5, 1e20) }} {{ '%x %X %o %#x %#o' % (255,255,8,255,8) }} {{ "
       "'%c%c' % ('a', 66) }} {{ '%s' % [1,2] }} {{ '%%' % () }} {{ '%(a)s' % {'a': 1} }} {{ '%*d|%-*d|%.*f' "
       "% (5, 42, 5, 42, 2, 3.14159) }} {{ 'x' % [] }} {{ '%s' % none }} {{ '%.3d' % 5 }} {{ '%d' % true }}",
       "a 'b' 3 4     a|b    |cd 002.2 +5  5 1.234568e+04 1e-05 1E+20 ff FF 10 0xff 0o10 aB [1, 2] % 1    "
       "42|42   |3.14 x None 005 1"},
      {"{{ '{} {}'.format_map({}) if false else '{a}'.format_map({'a': 1}) }}", "1"},
      {"{{ 'a-b_c'.replace('-', '_').split('_')|join('+') }} {{ "
       "'think</think>answer'.split('</think>')[-1].lstrip('\n') }}",
       "a+b+c answer"},
      {"{{ l.index(1) }} {{ l.count(3) }} {{ (1,2,1).count(1) }} {{ d.copy() }} {{ [1,2].copy() }} {{ "
       "(2.0).is_integer() }} {{ (1,2).index(2) }}",
       "1 1 2 {'b': 1, 'a': [1, 2, {'x': None}], 'C': 'q'} [1, 2] True 1"},
      {"{{ {}.fromkeys(['a','b'], 0) }}", "{'a': 0, 'b': 0}"},
      {"{{ ('a' 'b').upper() }} {{ 'x'.join(['1','2']).replace('x','y') }}", "AB 1y2"},
      {"{{ u.upper().lower() }} {{ u.title() }} {{ u.split() }} {{ 'ab cd'.split(' ')[1][0] }}",
       "héllo wörld àé ss ñ 日本 🙂 Héllo Wörld Àé Ss Ñ 日本 🙂 ['héllo', 'wörld', 'ÀÉ', 'ß', "
       "'ñ', "
       "'日本', '🙂'] c"},
      {"{{ quotes }} {{ [quotes] }}",
       "it's \"q\" \\ \t\001\177\342\200\213 ['it\\'s \"q\" \\\\ \\t\\x01\\x7f\\u200b']"},
      {"{{ ['a\"b', \"it's\", 'both\\'\"', 'é\342\200\213\302\255\302\205', '\\\\', '🙂'] }}",
       "['a\"b', \"it's\", 'both\\'\"', 'é\\u200b\\xad\\x85', '\\\\', '🙂']"},
  });
}

TEST(ChatTemplateMethods, ToJson) {
  expect_renders({
      {"{{ d|tojson }}", "{\"b\": 1, \"a\": [1, 2, {\"x\": null}], \"C\": \"q\"}"},
      {"{{ msgs|tojson }}",
       "[{\"role\": \"system\", \"content\": \"S\"}, {\"role\": \"user\", \"content\": \"U\\nV\"}, "
       "{\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"id\": \"1\"}]}, {\"role\": "
       "\"user\", \"content\": \"W\"}]"},
      {"{{ d|tojson(indent=2) }}",
       "{\n  \"b\": 1,\n  \"a\": [\n    1,\n    2,\n    {\n      \"x\": null\n    }\n  ],\n  \"C\": "
       "\"q\"\n}"},
      {"{{ d|tojson(indent=4, sort_keys=true) }}",
       "{\n    \"C\": \"q\",\n    \"a\": [\n        1,\n        2,\n        {\n            \"x\": null\n     "
       "   }\n    ],\n    \"b\": 1\n}"},
      {"{{ d|tojson(sort_keys=true) }}", "{\"C\": \"q\", \"a\": [1, 2, {\"x\": null}], \"b\": 1}"},
      {"{{ u|tojson }} {{ u|tojson(ensure_ascii=true) }}",
       "\"héllo wörld ÀÉ ß ñ 日本 🙂\" \"h\\u00e9llo w\\u00f6rld \\u00c0\\u00c9 \\u00df \\u00f1 "
       "\\u65e5\\u672c \\ud83d\\ude42\""},
      {"{{ quotes|tojson }}", "\"it's \\\"q\\\" \\\\ \\t\\u0001\177\342\200\213\""},
      {"{{ [1,1.5,true,none,'x',[],{},[[]],{'a':{}}]|tojson }} {{ [1,[],{},[2]]|tojson(indent=1) }}",
       "[1, 1.5, true, null, \"x\", [], {}, [[]], {\"a\": {}}] [\n 1,\n [],\n {},\n [\n  2\n ]\n]"},
      {"{{ {1:2, none:3, true:4, 1.5:5}|tojson }}", "{\"1\": 4, \"null\": 3, \"1.5\": 5}"},
      {"{{ d|tojson(separators=(',',':')) }} {{ [1,2]|tojson(separators=(' , ',' : ')) }}",
       "{\"b\":1,\"a\":[1,2,{\"x\":null}],\"C\":\"q\"} [1 , 2]"},
      {"{{ '</script>&'|tojson }} {{ (1,2)|tojson }} {{ 1e100|tojson }} {{ 'inf'|float|tojson }} {{ "
       "-0.0|tojson }}",
       "\"</script>&\" [1, 2] 1e+100 Infinity -0.0"},
      {"{{ d|tojson(indent='--') }} {{ [1]|tojson(indent=0) }} {{ [1]|tojson(indent=true) }} {{ "
       "[]|tojson(indent=2) }}",
       "{\n--\"b\": 1,\n--\"a\": [\n----1,\n----2,\n----{\n------\"x\": null\n----}\n--],\n--\"C\": \"q\"\n} "
       "[\n1\n] [\n 1\n] []"},
      {"{{ ('a'|safe)|tojson }} {{ 'a\342\200\250b\177'|tojson }}", "\"a\" \"a\342\200\250b\177\""},
      {"{{ {'z':1,'a':{'y':1,'b':2}}|tojson(sort_keys=true, indent=2) }}",
       "{\n  \"a\": {\n    \"b\": 2,\n    \"y\": 1\n  },\n  \"z\": 1\n}"},
      {"{{ d|tojson|length }} {{ d|tojson ~ 'x' }} {{ (d|tojson)[0] }}",
       "44 {\"b\": 1, \"a\": [1, 2, {\"x\": null}], \"C\": \"q\"}x {"},
      {"{{ d.items()|list|tojson }} {{ range(3)|list|tojson }}",
       "[[\"b\", 1], [\"a\", [1, 2, {\"x\": null}]], [\"C\", \"q\"]] [0, 1, 2]"},
  });
}

TEST(ChatTemplateMethods, Functions) {
  expect_renders({
      {"{{ range(3)|list }} {{ range(1,4)|list }} {{ range(5,0,-2)|list }} {{ range(3)|sum }}",
       "[0, 1, 2] [1, 2, 3] [5, 3, 1] 3"},
      {"{% set c = cycler('a','b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.reset() "
       "}}{{ c.current }}",
       "ababNonea"},
      {"{% set j = joiner('|') %}{{ j() }}a{{ j() }}b{{ j() }}", "a|b|"},
      {"{{ strftime_now('%Y-%m-%d %H:%M:%S') }} {{ strftime_now('%d %b %Y %B %A %a %j %p %I %y %e %-d %-m %U "
       "%W %u %w %F %T %D %R %C %h %G-%V %% %n|%t|') }}",
       "2026-11-22 12:00:00 22 Nov 2026 November Sunday Sun 326 PM 12 26 22 22 11 47 46 7 0 2026-11-22 "
       "12:00:00 11/22/26 12:00 20 Nov 2026-47 % \n|\t|"},
      {"{{ strftime_now('%x %X %r') }} {{ strftime_now('') }}", "11/22/26 12:00:00 12:00:00 PM "},
      {"{{ dict(a=1).a }} {{ dict() }} {{ namespace(x=[1]).x[0] }}", "1 {} 1"},
      {"{{ [range(3), namespace(a=1)] }}", "[range(0, 3), <Namespace {'a': 1}>]"},
      {"{{ range(1, 4) }} {{ range(0, 6, 2) }}", "range(1, 4) range(0, 6, 2)"},
      {"{% set x = namespace(found=false) %}{% for m in msgs %}{% if m.role == 'system' %}{% set x.found = "
       "true %}{% endif %}{% endfor %}{{ x.found }}",
       "True"},
      {"{{ ['a','b'] is sequence }}{{ range(3) == range(3) }}{{ range(0) == range(1,1) }}", "TrueTrueTrue"},
  });
}

}  // namespace
}  // namespace sextant

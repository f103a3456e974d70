// Literals, operators and access to what values hold. What is expected is what Jinja 3.1.6 made of the same
// templates, in the environment that transformers sets up, on Python 3.11.
#include <gtest/gtest.h>

#include "tests/engine/text/chat_template_cases.h"

namespace sextant {
namespace {

TEST(ChatTemplateExpressions, Literals) {
  expect_renders({
      {"{{ 1 }} {{ 1.0 }} {{ 1.50 }} {{ 1e3 }} {{ 1E-7 }} {{ 0x1F }} {{ 0b101 }} {{ 0o17 }} {{ 1_000 }} {{ "
       "1_0.5_0 }}",
       "1 1.0 1.5 1000.0 1e-07 31 5 15 1000 10.5"},
      {"{{ 'a' \"b\" 'c' }}", "abc"},
      {"{{ 'a\\n\\t\\x41\\u00e9\\U0001F642\\101\\\\\\'' }}", "a\n\tAé🙂A\\'"},
      {"{{ 'a\\qb' }}", "a\\qb"},
      {"{{ \"it's\" }}", "it's"},
      {"{{ true }} {{ True }} {{ false }} {{ none }} {{ None }}", "True True False None None"},
      {"{{ [1, 'a', none, true, 1.5, [2], (1,), (1,2), {}] }}", "[1, 'a', None, True, 1.5, [2], (1,), (1, 2), {}]"},
      {"{{ {'a': 1, \"b\": [1], 3: 4, none: 5} }}", "{'a': 1, 'b': [1], 3: 4, None: 5}"},
      {"{{ () }} {{ (1) }} {{ (1,) }} {{ 1, 2 }}", "() 1 (1,) (1, 2)"},
      {"{{ [1,2,] }} {{ {'a':1,} }}", "[1, 2] {'a': 1}"},
      {"{{ 'é' }} {{ '日本' ~ '🙂' }}", "é 日本🙂"},
      {"{{ '\\é' }}", "\\xe9"},
      {"{{ big }} {{ small }} {{ 1e16 }} {{ 1e15 }} {{ 123456789012345678.0 }} {{ 0.0001 }} {{ 0.00001 }} {{ "
       "1e22 }} {{ -0.0 }} {{ 100.0 }}",
       "1e+300 1e-07 1e+16 1000000000000000.0 1.2345678901234568e+17 0.0001 1e-05 1e+22 -0.0 100.0"},
      {"{{ 9223372036854775807 }}", "9223372036854775807"},
      {"{{ 'a\nb' }}", "a\nb"},
      {"{{ {'a':1,'b':2,'a':3} }}", "{'a': 3, 'b': 2}"},
      {"{{ {1:'x', true:'y', 1.0:'z'} }}", "{1: 'z'}"},
  });
}

TEST(ChatTemplateExpressions, Operators) {
  expect_renders({
      {"{{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 7.5 // 2 }} {{ -7.5 % 2 }} {{ 7 "
       "/ 2 }} {{ 6 / 2 }}",
       "3 -4 1 2 -2 3.0 0.5 3.5 3.0"},
      {"{{ 2 ** 10 }} {{ 2 ** -1 }} {{ 2 ** 3 ** 2 }} {{ 2.0 ** 0.5 }} {{ -2 ** 2 }}",
       "1024 0.5 64 1.4142135623730951 4"},
      {"{{ 1 + 2 * 3 - 4 / 2 }}", "5.0"},
      {"{{ (1 + 2) * 3 }}", "9"},
      {"{{ 'a' + 'b' ~ 1 ~ none }}", "ab1None"},
      {"{{ 'ab' * 3 }} {{ 3 * 'ab' }} {{ 'ab' * -1 }} {{ [1] * 3 }} {{ (1,) * 2 }}", "ababab ababab  [1, 1, 1] (1, 1)"},
      {"{{ [1] + [2] }} {{ (1,) + (2,) }}", "[1, 2] (1, 2)"},
      {"{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 1 == 1.0 == true }}", "True False True"},
      {"{{ 1 in [1,2] }} {{ 3 not in [1,2] }} {{ 'a' in 'cat' }} {{ '' in 'x' }} {{ 'b' in d }} {{ 'zz' not "
       "in d }}",
       "True True True True True True"},
      {"{{ not true }} {{ not not 1 }} {{ not '' }}", "False True True"},
      {"{{ 1 and 2 }} {{ 0 or 'x' }} {{ '' or none }} {{ [] and 1 }} {{ none or false or 0 }}", "2 x None [] 0"},
      {"{{ true + 1 }} {{ -true }} {{ +5 }} {{ - -5 }}", "2 -1 5 5"},
      {"{{ 'a' < 'b' }} {{ 'a' < 'B' }} {{ [1,2] < [1,3] }} {{ [1] < [1,0] }} {{ (1,2) == (1,2) }} {{ [1] == "
       "(1,) }}",
       "True False True True True False"},
      {"{{ {'a':1,'b':2} == {'b':2,'a':1} }} {{ 1 == '1' }} {{ none == false }} {{ none == none }}",
       "True False False True"},
      {"{{ 'x' if t else 'y' }} {{ 'x' if not t else 'y' }} {{ 'x' if false }}|{{ 'a' if false else 'b' if "
       "false else 'c' }}",
       "x y |c"},
      {"{{ 1 if false else 2 if true else 3 }}", "2"},
      {"{{ 5 is odd and 4 is even }} {{ 3 is odd or fail }}", "True True"},
      {"{{ 1 != 2 }} {{ 1 != 1 }} {{ 2 >= 2 }} {{ 2 > 2 }} {{ 2 <= 1 }}", "True False True False False"},
      {"{{ 0.1 + 0.2 }} {{ 1/3 }} {{ 2/3*3 }} {{ 1e308*10 }}", "0.30000000000000004 0.3333333333333333 2.0 inf"},
      {"{{ 1 == 1 and 2 == 2 }}", "True"},
      {"{{ 10 - 2 - 3 }} {{ 100 / 10 / 2 }} {{ 2 * 3 % 4 }}", "5 5.0 2"},
      {"{{ 'abc' == \"abc\" }}", "True"},
      {"{{ -5 | abs }} {{ (-5) | abs }}", "5 5"},
      {"{{ '%s' % 1 ~ 'x' }}", "1x"},
      {"{{ 9007199254740993 == 9007199254740992.0 }} {{ 9007199254740993 > 9007199254740992.0 }}", "False True"},
      {"{{ -2.5 // 1 }} {{ 5 // 0.3 }} {{ 5.0 % 0.3 }} {{ -1 // 3.0 }}", "-3.0 16.0 0.20000000000000018 -1.0"},
      {"{{ 7 in range(10) }} {{ 3 in (1,2,3) }} {{ 1.0 in [1] }}", "True True True"},
      {"{{ true == 1 }} {{ false < true }} {{ 2 * true }}", "True True 2"},
      {"{{ 'a' ~ [1,'b'] ~ {'c':1} ~ 1.0 ~ true }}", "a[1, 'b']{'c': 1}1.0True"},
      {"{{ z ~ 'x' }}", "Nonex"},
  });
}

TEST(ChatTemplateExpressions, Access) {
  expect_renders({
      {"{{ d.b }} {{ d['a'] }} {{ d.a[2].x }} {{ d.missing }}|{{ d['missing'] }}|", "1 [1, 2, {'x': None}] None ||"},
      {"{{ l[0] }} {{ l[-1] }} {{ l[10] }}| {{ l['x'] }}|", "3 2 | |"},
      {"{{ s[0] }} {{ s[-1] }} {{ s[99] }}|", "H d |"},
      {"{{ s[1:4] }} {{ s[:5] }} {{ s[6:] }} {{ s[::-1] }} {{ s[::2] }} {{ s[-3:] }} {{ s[10:2] }}|{{ "
       "s[5:2:-1] }}",
       "ell Hello World dlroW olleH HloWrd rld | ol"},
      {"{{ u[0:4] }} {{ u[::-1] }} {{ u[-2:] }} {{ u[1] }} {{ u|length }}",
       "héll 🙂 本日 ñ ß ÉÀ dlröw olléh  🙂 é 23"},
      {"{{ l[1:] }} {{ l[:-1] }} {{ l[::-1] }} {{ (1,2,3)[1:] }} {{ l[5:] }} {{ l[-100:100] }}",
       "[1, 2] [3, 1] [2, 1, 3] (2, 3) [] [3, 1, 2]"},
      {"{{ range(5)[1:3]|list }} {{ range(10)[::3] }} {{ range(3) }} {{ range(5)[-1] }} {{ range(1,10,2)[1] "
       "}}",
       "[1, 2] range(0, 10, 3) range(0, 3) 4 3"},
      {"{{ items_key.items is string }} {{ items_key['items'] }} {{ items_key.values is callable }} {{ "
       "items_key.keys()|list }}",
       "False shadow True ['items', 'values', 'keys']"},
      {"{{ d.get('b') }} {{ d.get('zz') }} {{ d.get('zz', 7) }}", "1 None 7"},
      {"{{ d.items()|list }} {{ d.keys()|list }} {{ d.values()|list }}",
       "[('b', 1), ('a', [1, 2, {'x': None}]), ('C', 'q')] ['b', 'a', 'C'] [1, [1, 2, {'x': None}], 'q']"},
      {"{{ d.items() }} {{ d.keys() }}",
       "dict_items([('b', 1), ('a', [1, 2, {'x': None}]), ('C', 'q')]) dict_keys(['b', 'a', 'C'])"},
      {"{{ nested[0][1][0] }} {{ nested.0.1.1 }}", "2 3"},
      {"{{ missing }}|{{ missing|default('dd') }}|{{ z|default('q') }}|{{ z|default('q', true) }}|{{ "
       "''|d('e', boolean=true) }}",
       "|dd|None|q|e"},
      {"{{ d['b'] }} {{ d[('x')] }}", "1 "},
      {"{{ s.nope }}|", "|"},
      {"{{ (1).real }} {{ 1.5.nope }}|", "1 |"},
      {"{{ l.0 }} {{ d['a'][0] }}", "3 1"},
      {"{{ d[l] }}|", "|"},
      {"{{ 'abc'.0 }} {{ 'abc'['x'] }}|", "a |"},
      {"{{ msgs[0].role }} {{ msgs[0]['content'] }} {{ msgs[-1].content }} {{ msgs[2].tool_calls[0].id }}",
       "system S W 1"},
      {"{{ msgs[1:][0].role }} {{ (msgs|first).role }} {{ (msgs|last)['role'] }}", "user system user"},
      {"{{ d.__class__ }}|{{ d._x }}|", "||"},
      {"{{ namespace(a=1)['a'] }} {{ namespace(a=1).a }} {{ namespace(a=1).b }}|", "1 1 |"},
      {"{{ l[true] }} {{ l[1.0] }}|", "1 |"},
      {"{{ s[1:4:2] }} {{ l[::-2] }} {{ l[2:0:-1] }} {{ ''[1:] }}|", "el [2, 3] [2, 1] |"},
      {"{{ range(0, 10, 3)[1:]|list }} {{ range(10, 0, -3)|list }} {{ range(0)|list }}", "[3, 6, 9] [10, 7, 4, 1] []"},
  });
}

}  // namespace
}  // namespace sextant

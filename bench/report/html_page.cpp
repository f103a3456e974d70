#include "bench/report/html_page.h"

#include "bench/report/svg_chart.h"

namespace sextant::bench {
namespace {

constexpr const char* kStyle = R"(
:root{--bg:#f6f7f9;--card:#fff;--ink:#1b2430;--soft:#5d6b7c;--line:#dfe4ea;--good:#127a4b;--bad:#b3261e;--warn:#8a5a00;
--s0:#2563c9;--s1:#d9571d;--s2:#178a6d;--s3:#8b45c4;--s4:#b8860b;--s5:#c02660;color-scheme:light dark}
@media(prefers-color-scheme:dark){:root{--bg:#11161d;--card:#1a212b;--ink:#e6ebf2;--soft:#95a3b5;--line:#2d3846;--good:#4cc38a;
--bad:#ff8a80;--warn:#ffca6b;--s0:#6ea8ff;--s1:#ff9b66;--s2:#4fd1ad;--s3:#c79bff;--s4:#e8c15a;--s5:#ff85ad}}
*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"DejaVu Sans",sans-serif}main{max-width:1180px;margin:0 auto;padding:24px 18px 60px}h1{font-size:1.5rem;margin:0 0 2px}
h2{font-size:1.15rem;margin:34px 0 10px}p.sub{color:var(--soft);margin:0 0 16px;overflow-wrap:anywhere}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(148px,1fr));gap:12px;margin:14px 0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px 14px}.tile b{display:block;font-size:1.45rem;
font-variant-numeric:tabular-nums;line-height:1.25}.tile>span{color:var(--soft);font-size:.82rem}
.scroll{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:10px}table{border-collapse:collapse;
width:100%;font-variant-numeric:tabular-nums}th,td{padding:7px 12px;text-align:right;white-space:nowrap;border-bottom:1px solid
var(--line)}tr:last-child td{border-bottom:0}th{color:var(--soft);font-weight:600;font-size:.82rem}th:first-child,td:first-child
{text-align:left}td small{color:var(--soft);display:block;font-size:.74rem}.charts{display:grid;grid-template-columns:
repeat(auto-fit,minmax(min(420px,100%),1fr));gap:14px;margin:0 0 14px}figure{margin:0;background:var(--card);border:1px solid var(--line);
border-radius:10px;padding:12px 12px 8px}figcaption{font-weight:600;margin:0 0 4px 4px}svg{display:block;width:100%;height:auto}
svg text{fill:var(--soft);font-size:11px;font-family:inherit}svg text.label{font-size:12px}.grid{stroke:var(--line);stroke-width:1}
.limit{stroke:var(--bad);stroke-width:1.5;stroke-dasharray:6 4}path{fill:none;stroke-width:2;stroke-linejoin:round}
path.c0{stroke:var(--s0)}path.c1{stroke:var(--s1)}path.c2{stroke:var(--s2)}path.c3{stroke:var(--s3)}path.c4{stroke:var(--s4)}
path.c5{stroke:var(--s5)}circle.c0{fill:var(--s0)}circle.c1{fill:var(--s1)}circle.c2{fill:var(--s2)}circle.c3{fill:var(--s3)}
circle.c4{fill:var(--s4)}circle.c5{fill:var(--s5)}.legend{margin:2px 0 4px 4px;font-size:.84rem}.legend span{margin-right:14px;
white-space:nowrap}.legend span::before{content:"";display:inline-block;width:14px;height:3px;border-radius:2px;margin-right:6px;
vertical-align:middle;background:currentColor}.k0{color:var(--s0)}.k1{color:var(--s1)}.k2{color:var(--s2)}.k3{color:var(--s3)}
.k4{color:var(--s4)}.k5{color:var(--s5)}.note{border-left:4px solid var(--warn);background:var(--card);padding:8px 12px;margin:8px 0;
border-radius:0 8px 8px 0;overflow-wrap:anywhere}.note.bad{border-color:var(--bad)}.good{color:var(--good)}.bad{color:var(--bad)}
dl{display:grid;grid-template-columns:minmax(90px,max-content) 1fr;gap:4px 16px;margin:0}dt{font-weight:600}dd{margin:0;
color:var(--soft)}details{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:10px 14px;margin:10px 0}
summary{cursor:pointer;font-weight:600}footer{color:var(--soft);font-size:.82rem;margin-top:30px}
@media(max-width:560px){svg text{font-size:16px}svg text.label{font-size:16px}main{padding:16px 12px 40px}.tile b{font-size:1.2rem}th,td{padding:6px 9px}dl{grid-template-columns:1fr}}
)";

}  // namespace

std::string html_page(const std::string& title, const std::string& body) {
  return "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
         "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>" +
         html_escaped(title) + "</title><style>" + kStyle + "</style></head><body><main>\n" + body +
         "</main></body></html>\n";
}

std::string tile(const std::string& value, const std::string& name) {
  return "<div class=\"tile\"><b>" + value + "</b><span>" + name + "</span></div>\n";
}

}  // namespace sextant::bench

// What a browser is sent. The policy allows nothing from elsewhere and nothing inline.
#include "server/status_page.h"

#include <memory>
#include <utility>

namespace sextant {
namespace {

constexpr const char* kHtml = R"html(<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Sextant</title>
<link rel="stylesheet" href="/status.css">
</head>
<body>
<header>
<h1>Sextant</h1>
<p id="state" role="status">…</p>
</header>
<form id="key-form">
<label for="key">API key</label>
<input id="key" type="password" autocomplete="off" spellcheck="false">
<button>Show</button>
</form>
<p id="problem" role="alert" hidden></p>
<main hidden>
<section><h2>Models</h2><ul id="models"></ul></section>
<section><h2>Load</h2><dl id="load"></dl></section>
<section><h2>Latency</h2>
<table><thead><tr><th>Since start</th><th>p50</th><th>p95</th><th>p99</th></tr></thead><tbody id="latency"></tbody></table>
</section>
<section><h2>Errors</h2>
<table><thead><tr><th>Route</th><th>4xx</th><th>5xx</th><th>Last seen</th></tr></thead><tbody id="errors"></tbody></table>
</section>
</main>
<noscript>This page needs JavaScript; the same figures are at /metrics.</noscript>
<script src="/status.js"></script>
</body>
</html>
)html";

constexpr const char* kCss =
    R"css(:root { --text: #1d2430; --dim: #5b6577; --back: #f6f7f9; --card: #fff; --line: #d9dee7; --accent: #1f5fbf; --bad: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e9ef; --dim: #9aa4b5; --back: #14171c; --card: #1c2128; --line: #333b47; --accent: #7fb0ff; --bad: #ff8a80; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 60rem; background: var(--back); color: var(--text);
  font: 16px/1.5 system-ui, sans-serif; }
header { display: flex; flex-wrap: wrap; align-items: baseline; gap: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; }
h2 { font-size: 1rem; margin: 0 0 .5rem; }
#state { margin: 0; color: var(--dim); }
form { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; margin: 1rem 0; }
input { flex: 1 1 12rem; min-width: 0; font: inherit; padding: .4rem .6rem; border: 1px solid var(--line); border-radius: .4rem;
  background: var(--card); color: inherit; }
button { font: inherit; padding: .4rem 1rem; border: 0; border-radius: .4rem; background: var(--accent); color: var(--card); }
#problem { color: var(--bad); }
main { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); }
main[hidden] { display: none; }
section { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: 1rem; overflow-x: auto; }
ul { margin: 0; padding-left: 1.2rem; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: 1fr auto; gap: .25rem 1rem; margin: 0; }
dt, th { color: var(--dim); font-weight: normal; }
dd { margin: 0; text-align: right; font-variant-numeric: tabular-nums; }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .5rem .25rem 0; text-align: right; }
th:first-child, td:first-child { text-align: left; }
td:not(:first-child) { white-space: nowrap; }
)css";

constexpr const char* kScript = R"js("use strict";
const at = (id) => document.getElementById(id);
let key = "";
let timer = 0;
const lastSeen = new Map();  // "route class" -> {count, when}

async function get(path) {
  const answer = await fetch(path, {headers: key ? {Authorization: "Bearer " + key} : {}, cache: "no-store"});
  if (answer.status === 401 || answer.status === 403) throw new Error("This key may not read " + path + ".");
  if (!answer.ok && path !== "/ready") throw new Error(path + " answered " + answer.status + ".");
  return answer;
}

// [{name, labels, value}] of the Prometheus text format.
function parse(text) {
  const samples = [];
  for (const line of text.split("\n")) {
    const match = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/.exec(line);
    if (!match) continue;
    const labels = {};
    for (const [, name, value] of (match[2] || "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) labels[name] = value;
    samples.push({name: match[1], labels, value: match[3] === "+Inf" ? Infinity : Number(match[3])});
  }
  return samples;
}

const sum = (samples, name) => samples.filter((s) => s.name === name).reduce((total, s) => total + s.value, 0);

// Linear inside of a bucket, as Prometheus' histogram_quantile.
function quantile(samples, name, q) {
  const buckets = new Map();
  for (const s of samples) {
    if (s.name !== name + "_bucket") continue;
    const le = s.labels.le === "+Inf" ? Infinity : Number(s.labels.le);
    buckets.set(le, (buckets.get(le) || 0) + s.value);
  }
  const sorted = [...buckets].sort((a, b) => a[0] - b[0]);
  const total = sorted.length ? sorted[sorted.length - 1][1] : 0;
  if (!total) return NaN;
  let low = 0, below = 0;
  for (const [le, count] of sorted) {
    if (count >= q * total) return le === Infinity ? low : low + (le - low) * (q * total - below) / (count - below);
    low = le;
    below = count;
  }
  return low;
}

const seconds = (s) => Number.isNaN(s) ? "–" : s < 1 ? (s * 1000).toPrecision(3) + " ms" : s.toPrecision(3) + " s";
const bytes = (n) => n < 1 << 30 ? (n / (1 << 20)).toFixed(0) + " MiB" : (n / (1 << 30)).toFixed(2) + " GiB";

function element(tag, text) {
  const made = document.createElement(tag);
  made.textContent = text;
  return made;
}
function row(cells) {
  const made = document.createElement("tr");
  made.append(...cells.map((text) => element("td", text)));
  return made;
}

function showErrors(samples) {
  const routes = new Map();
  for (const s of samples) {
    const status = s.labels.status;
    if (s.name !== "http_requests_total" || (status !== "4xx" && status !== "5xx") || !s.value) continue;
    const route = s.labels.handler || s.labels.route || s.labels.path || "other";
    const counts = routes.get(route) || {"4xx": 0, "5xx": 0};
    counts[status] += s.value;
    routes.set(route, counts);
  }
  const rows = [];
  for (const [route, counts] of [...routes].sort()) {
    const total = counts["4xx"] + counts["5xx"];
    const seen = lastSeen.get(route);
    if (!seen || seen.total !== total) lastSeen.set(route, {total, when: seen ? new Date().toLocaleTimeString() : "before"});
    rows.push(row([route, String(counts["4xx"]), String(counts["5xx"]), lastSeen.get(route).when]));
  }
  at("errors").replaceChildren(...(rows.length ? rows : [row(["none", "", "", ""])]));
}

async function refresh() {
  clearTimeout(timer);
  try {
    const ready = await get("/ready");
    at("state").textContent = ready.ok ? "ready" : (await ready.json()).status || "not ready";
    const models = await (await get("/v1/models")).json();
    const samples = parse(await (await get("/metrics")).text());
    at("models").replaceChildren(...models.data.map((model) => element("li", model.id + " · context " + model.max_model_len)));
    const load = [
      ["Requests running", sum(samples, "vllm:num_requests_running")],
      ["Requests waiting", sum(samples, "vllm:num_requests_waiting")],
      ["Tokens per second", sum(samples, "llm_throughput_tokens_per_sec").toFixed(1)],
      ["KV cache in use", (sum(samples, "vllm:kv_cache_usage_perc") * 100).toFixed(1) + "%"],
      ["Connections", sum(samples, "http_connections_active")],
      ["Memory", bytes(sum(samples, "process_resident_memory_bytes"))],
    ];
    at("load").replaceChildren(...load.flatMap(([name, value]) => [element("dt", name), element("dd", String(value))]));
    const latencies = [["First token", "vllm:time_to_first_token_seconds"], ["Between tokens", "vllm:inter_token_latency_seconds"],
                       ["In the queue", "vllm:request_queue_time_seconds"], ["Whole request", "vllm:e2e_request_latency_seconds"]];
    at("latency").replaceChildren(...latencies.map(([title, name]) =>
      row([title, ...[0.5, 0.95, 0.99].map((q) => seconds(quantile(samples, name, q)))])));
    showErrors(samples);
    at("problem").hidden = true;
    document.querySelector("main").hidden = false;
    timer = setTimeout(refresh, 5000);
  } catch (error) {
    at("problem").textContent = error instanceof TypeError ? "The server does not answer." : error.message;
    at("problem").hidden = false;
    if (key || error instanceof TypeError) timer = setTimeout(refresh, 15000);
  }
}

at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key = at("key").value.trim();  // kept in this page alone
  refresh();
});
fetch("/ready").then((answer) => { at("state").textContent = answer.ok ? "ready" : "not ready"; }, () => {});
)js";

http::Handler file(const char* content, const char* content_type) {
  return [content, content_type](const std::shared_ptr<http::Exchange>& exchange) {
    http::HttpResponse response;
    response.content_type = content_type;
    response.body = content;
    response.headers = {
        {"Content-Security-Policy",
         "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; "
         "form-action 'none'; frame-ancestors 'none'"},
        {"X-Content-Type-Options", "nosniff"},
        {"Referrer-Policy", "no-referrer"},
        {"Cache-Control", "no-cache"}};
    exchange->respond(std::move(response));
  };
}

}  // namespace

void add_status_page(http::Router& router) {
  router.add("GET", "/", file(kHtml, "text/html; charset=utf-8"));
  router.add("GET", "/status.js", file(kScript, "text/javascript; charset=utf-8"));
  router.add("GET", "/status.css", file(kCss, "text/css; charset=utf-8"));
}

}  // namespace sextant

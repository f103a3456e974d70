"""Every query of the dashboards and every recording rule of a bundle, asked of a real Prometheus that scrapes a server after a
load run. The server is the simulator; GPUs' gauges, which it has not, come from a page of the same names. Needs no model."""

import concurrent.futures
import http.server
import json
import math
import os
import re
import subprocess
import tempfile
import threading
import time
import urllib.parse
import urllib.request

import deploy_plans
import pytest
import server_process
import test_deploy
import yaml

GPU_PAGE = "\n".join(f'{name}{{gpu="0",uuid="GPU-0"}} {value}' for name, value in {
    "sextant_gpu_utilization_ratio": 0.7, "sextant_gpu_memory_used_bytes": 7e10, "sextant_gpu_memory_total_bytes": 8e10,
    "sextant_gpu_temperature_celsius": 61, "sextant_gpu_power_watts": 540}.items()) + "\n"


class GpuPage(http.server.BaseHTTPRequestHandler):
    def do_GET(self):  # noqa: N802: the base class calls it so
        body = GPU_PAGE.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("queries")
    plan, options = deploy_plans.TYPICAL["ingress"]
    test_deploy.render(plan, *options, output=folder / "bundle", folder=folder)
    return folder / "bundle"


@pytest.fixture(scope="module")
def prometheus(bundle, tmp_path_factory):
    """A function that asks; the server has served a load when it is given."""
    folder = tmp_path_factory.mktemp("prometheus")
    rules = yaml.safe_load((bundle / "monitoring" / "rules.yaml").read_text())
    for group in rules["groups"]:
        group["interval"] = "1s"  # no other difference: the test does not wait for half a minute
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules))
    gpus = http.server.ThreadingHTTPServer(("127.0.0.1", 0), GpuPage)
    threading.Thread(target=gpus.serve_forever, daemon=True).start()
    with server_process.Server(None, "--time", "constant:ttft=5ms,tpot=1ms", verb="simulate") as server:
        labels = {"namespace": "sextant", "job": "qwen3-8b", "service": "qwen3-8b", "pod": "qwen3-8b-7d9f-x2x4z"}
        (folder / "prometheus.yaml").write_text(yaml.safe_dump({
            "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "1s"}, "rule_files": [str(folder / "rules.yaml")],
            "scrape_configs": [{"job_name": "qwen3-8b", "static_configs": [
                {"targets": [f"127.0.0.1:{server.port}", f"127.0.0.1:{gpus.server_port}"], "labels": labels}]}]}))
        log = tempfile.TemporaryFile("w+")
        process = subprocess.Popen(["prometheus", f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data",
                                    "--web.listen-address=127.0.0.1:0", "--log.format=json"], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                   env={**os.environ, "GOMAXPROCS": "1"})
        try:
            base = listening_at(process, log)

            def ask(expression):
                with urllib.request.urlopen(f"{base}/api/v1/query?query={urllib.parse.quote(expression)}", timeout=30) as answer:
                    return json.load(answer)["data"]["result"]

            # Counters must be seen before they grow: a rate has no other way to know that they did.
            load(server, 2)
            wait_for(lambda: ask('http_requests_total{handler="/v1/completions"}'), "a first request's counter")
            load(server)
            wait_for(lambda: any(float(row["value"][1]) > 0 for row in ask("rate(vllm:generation_tokens_total[5m])")), "a rate")
            yield ask
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            gpus.shutdown()
            gpus.server_close()


def listening_at(process, log):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        log.seek(0)
        text = log.read()
        found = re.search(r'"address":"(127\.0\.0\.1:[1-9]\d*)"', text)
        if found:
            return f"http://{found.group(1)}"
        assert process.poll() is None, text
        time.sleep(0.05)
    raise AssertionError(f"prometheus does not listen:\n{text}")


def wait_for(condition, what, timeout_s=90):
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            if condition():
                return
        except OSError:
            pass
        assert time.monotonic() < deadline, f"no {what} after {timeout_s} s"
        time.sleep(0.2)


def load(server, num_requests=60):
    model = server_process.model_id(server)

    def one(i):
        return server.post("/v1/completions", {"model": model, "prompt": f"question {i} " * 20, "max_tokens": 20}).status

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert set(pool.map(one, range(num_requests))) == {200}


def has_data(rows):
    return any(math.isfinite(float(row["value"][1])) for row in rows)


def queries_of(bundle):
    out = []
    for path in sorted((bundle / "monitoring" / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            out += [(f"{path.stem}: {panel['title']}", target["expr"]) for target in panel["targets"]]
    rules = yaml.safe_load((bundle / "monitoring" / "rules.yaml").read_text())
    out += [(f"rule {rule['record']}", rule["expr"]) for group in rules["groups"] for rule in group["rules"] if "record" in rule]
    adapter = yaml.safe_load((bundle / "monitoring" / "prometheus-adapter-values.yaml").read_text())
    for rule in adapter["rules"]["custom"]:
        series = rule["seriesQuery"].split("{")[0]
        out.append((f"adapter {rule['name']['as']}", rule["metricsQuery"].replace("<<.Series>>", series)
                    .replace("<<.LabelMatchers>>", 'namespace="sextant",pod=~".+"').replace("<<.GroupBy>>", "pod")))
    return out


def test_every_query_has_data_after_a_load(bundle, prometheus):
    queries = queries_of(bundle)
    assert len(queries) > 70
    missing = queries

    def all_answered():
        nonlocal missing
        missing = [(where, expression) for where, expression in missing if not has_data(prometheus(expression))]
        return not missing

    try:
        wait_for(all_answered, "data for every query")
    except AssertionError:
        raise AssertionError(f"no data: {missing}") from None


def test_a_query_of_what_is_not_there_has_no_data(prometheus):
    assert not has_data(prometheus("vllm_num_requests_waiting"))
    assert not has_data(prometheus("histogram_quantile(0.99, llm_request_duration_seconds)"))

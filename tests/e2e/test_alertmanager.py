"""An alert of a bundle on its whole way: a real Prometheus finds that no replica answers, a real Alertmanager (Debian's) gets it and
tells a receiver, and tells it again that it is over. The rule is as emitted but for its `for`. Over the simulator: needs no model."""

import contextlib
import http.server
import json
import os
import subprocess
import tempfile
import threading
import urllib.parse
import urllib.request

import deploy_plans
import pytest
import server_process
import test_deploy
import yaml
from test_deploy_queries import listening_at, wait_for

ALERT = "NoReplicaUp"


@contextlib.contextmanager
def running(*command):
    """Its address, once it listens."""
    log = tempfile.TemporaryFile("w+")
    process = subprocess.Popen([*command, "--web.listen-address=127.0.0.1:0", "--log.format=json"], stdin=subprocess.DEVNULL, stdout=log,
                               stderr=log, env={**os.environ, "GOMAXPROCS": "1"})
    try:
        yield listening_at(process, log)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def receiver():
    """Where the Alertmanager posts; the notifications that came are its `told`."""
    told = []

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self):  # noqa: N802: the base class calls it so
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    server.told = told
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def rules_of(folder):
    plan, options = deploy_plans.TYPICAL["ingress"]
    test_deploy.render(plan, *options, output=folder / "bundle", folder=folder)
    rules = yaml.safe_load((folder / "bundle" / "monitoring" / "rules.yaml").read_text())
    for group in rules["groups"]:
        group["interval"] = "1s"
    [rule] = [rule for group in rules["groups"] for rule in group["rules"] if rule.get("alert") == ALERT]
    rule["for"] = "1s"
    return rules, rule


def write(path, document):
    """At once: who watches the file reads all of it."""
    path.with_suffix(".part").write_text(yaml.safe_dump(document))
    path.with_suffix(".part").rename(path)


def test_an_alert_reaches_its_receiver_and_ends(tmp_path, receiver):
    rules, rule = rules_of(tmp_path)
    write(tmp_path / "rules.yaml", rules)
    write(tmp_path / "alertmanager.yaml", {
        "route": {"receiver": "us", "group_by": ["alertname"], "group_wait": "1s", "group_interval": "1s"},
        "receivers": [{"name": "us", "webhook_configs": [{"url": f"http://127.0.0.1:{receiver.server_port}/", "send_resolved": True}]}]})

    def set_target(port):
        write(tmp_path / "targets.yaml", [{"targets": [f"127.0.0.1:{port}"],
                                           "labels": {"namespace": "sextant", "job": "qwen3-8b", "service": "qwen3-8b", "pod": "a"}}])

    def last_told():
        """firing or resolved, as the receiver heard last."""
        statuses = [alert["status"] for note in list(receiver.told) for alert in note["alerts"] if alert["labels"]["alertname"] == ALERT]
        return statuses[-1] if statuses else None

    with running("prometheus-alertmanager", f"--config.file={tmp_path}/alertmanager.yaml", f"--storage.path={tmp_path}/alerts",
                 "--cluster.listen-address=") as manager:
        write(tmp_path / "prometheus.yaml", {
            "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "1s"},
            "rule_files": [str(tmp_path / "rules.yaml")],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [manager.removeprefix("http://")]}]}]},
            "scrape_configs": [{"job_name": "qwen3-8b", "file_sd_configs": [{"files": [str(tmp_path / "targets.yaml")], "refresh_interval": "1s"}]}]})
        with server_process.Server(None, verb="simulate") as server:
            set_target(server.port)
            with running("prometheus", f"--config.file={tmp_path}/prometheus.yaml", f"--storage.tsdb.path={tmp_path}/data") as prometheus:
                def ask(expression):
                    with urllib.request.urlopen(f"{prometheus}/api/v1/query?query={urllib.parse.quote(expression)}", timeout=30) as answer:
                        return json.load(answer)["data"]["result"]

                # Before the first scrape there is no replica either.
                wait_for(lambda: ask("up == 1") and not ask(f'ALERTS{{alertname="{ALERT}"}}') and last_told() != "firing", "a quiet start")
                server.kill()
                wait_for(lambda: last_told() == "firing", "word that it fires")
                [alert] = [alert for note in receiver.told for alert in note["alerts"] if alert["labels"]["alertname"] == ALERT][-1:]
                assert alert["labels"] == {"alertname": ALERT, **rule["labels"]} and rule["labels"]["severity"] == "critical"
                assert alert["annotations"] == rule["annotations"]
                with server_process.Server(None, verb="simulate") as another:
                    set_target(another.port)
                    wait_for(lambda: last_told() == "resolved", "word that it is over")

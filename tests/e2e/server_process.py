"""A real `sextant serve` on a free port of this machine, for as long as a `with` block."""

import http.client
import json
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time
import urllib.parse

import openai
from prometheus_client.parser import text_string_to_metric_families

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("SEXTANT_BINARY", ROOT / "build" / "release" / "server" / "sextant"))


def sextant(*arguments, timeout=60, stdin=subprocess.DEVNULL, env=None, **options):
    """Runs the program to its end; its answer has .returncode, .stdout and .stderr as text."""
    if isinstance(stdin, str):
        options["input"], stdin = stdin, None
    if stdin is not None:
        options["stdin"] = stdin
    return subprocess.run([str(BINARY), *map(str, arguments)], capture_output=True, text=True, timeout=timeout, check=False,
                          env={**os.environ, **(env or {})}, **options)


class Answer:
    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        return self.json["error"]


class Server:
    """Without `model`, no model argument is given. `arguments` go to the verb as they are. `tls`: an ssl.SSLContext to ask it with."""

    def __init__(self, model, *arguments, verb="serve", env=None, ready_timeout_s=60, wait=True, tls=None):
        self.tls = tls
        self.log_file = tempfile.NamedTemporaryFile(prefix="sextant-e2e-", suffix=".log")
        command = [str(BINARY), verb, *([str(model)] if model else []), "--port", "0", *map(str, arguments)]
        self.begin = time.monotonic()
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log_file, stderr=self.log_file,
                                        env={**os.environ, **(env or {})})
        self.port = None
        self.seconds_to_ready = None
        if wait:
            try:
                self.wait_ready(ready_timeout_s)
            except BaseException:
                self.kill()
                raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def log(self):
        return pathlib.Path(self.log_file.name).read_text(errors="replace")

    def wait_port(self, timeout_s=30):
        """The port stands in the log line that says where the server listens."""
        deadline = time.monotonic() + timeout_s
        while True:
            match = re.search(r"listening at https?://[^\s:\[]+:(\d+)|listening at https?://\[[^\]]+\]:(\d+)", self.log())
            if match:
                self.port = int(match.group(1) or match.group(2))
                return self.port
            self._check_alive(deadline, "did not listen")
            time.sleep(0.005)

    def wait_ready(self, timeout_s=60):
        deadline = time.monotonic() + timeout_s
        self.wait_port(timeout_s)
        while True:
            try:
                if self.get("/ready").status == 200:
                    self.seconds_to_ready = time.monotonic() - self.begin
                    return
            except OSError:
                pass
            self._check_alive(deadline, "was not ready")
            time.sleep(0.01)

    def _check_alive(self, deadline, what):
        if self.process.poll() is not None:
            raise AssertionError(f"the server ended with {self.process.returncode}:\n{self.log()}")
        if time.monotonic() > deadline:
            raise AssertionError(f"the server {what} in time:\n{self.log()}")

    def terminate(self, signal_number=signal.SIGTERM):
        self.process.send_signal(signal_number)

    def wait_end(self, timeout_s=60):
        return self.process.wait(timeout_s)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    @property
    def url(self):
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}"

    def client(self, api_key="none", **options):
        """No retries: an error that a retry would hide is an error."""
        if self.tls:
            options["http_client"] = openai.DefaultHttpxClient(verify=self.tls)
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=api_key, max_retries=0, timeout=120, **options)

    def request(self, method, path, body=None, headers=None, timeout=60):
        connection = (http.client.HTTPSConnection("127.0.0.1", self.port, timeout=timeout, context=self.tls) if self.tls else
                      http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout))
        try:
            if isinstance(body, (dict, list)):
                body = json.dumps(body)
            connection.request(method, path, body, headers or {"Content-Type": "application/json"})
            response = connection.getresponse()
            return Answer(response.status, {name.lower(): value for name, value in response.getheaders()},
                          response.read().decode())
        finally:
            connection.close()

    def get(self, path, **options):
        return self.request("GET", path, **options)

    def post(self, path, body, **options):
        return self.request("POST", path, body, **options)

    def metrics(self):
        """{(sample name, frozen labels): value}"""
        answer = self.get("/metrics")
        assert answer.status == 200
        return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value
                for family in text_string_to_metric_families(answer.body) for sample in family.samples}

    def metric(self, name):
        """The sum over all labels; fails when there is no such sample."""
        values = [value for (sample, _), value in self.metrics().items() if sample == name]
        assert values, f"no sample named {name}"
        return sum(values)

    def wait_metric(self, name, value, timeout_s=20):
        deadline = time.monotonic() + timeout_s
        while (now := self.metric(name)) != value:
            assert time.monotonic() < deadline, f"{name} is {now}, not {value}, after {timeout_s} s"
            time.sleep(0.02)

    def cpu_seconds(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1)) * 1024


def model_id(server):
    return urllib.parse.unquote(server.get("/v1/models").json["data"][0]["id"])

"""One machine from a plan: the unit as systemd reads it, its command behind its nginx, the compose file and the workflow."""

import contextlib
import http.client
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

import pytest
import server_process
import yaml
from server_process import BINARY, sextant

SYSTEMD = pathlib.Path("/lib/systemd/systemd")
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
MAX_BODY_BYTES = 32 << 20
HOSTILE = {
    "quotes": "owner/it's \"quoted\"",
    "newline": "owner/two\n[Service]\nExecStart=/bin/false",
    "variables": "owner/$HOME ${PATH} $$ $(id) %n %% %h",
    "expressions": "owner/${{ secrets.KUBECONFIG }} }} ${{",
    "backslashes": "owner/\\n \\x41 \\",
    "separators": "owner/a ; b #c {d} `id` | e & f",
    "unicode": "owner/日本語 é 🙂 \u2028 \u202e",
    "yaml": "owner/: - ? & * ! | > yes ~ --- ...",
    "long": "owner/" + "x" * 294,
}


def plan_of(model="owner/name", **option):
    return {
        "schema": "sextant.plan/1", "plan_id": "0123456789abcdef", "title": "chatbot", "as_of": "2026-02-01", "version": "0.1.0",
        "specification": {}, "options": [{
            "model_id": model, "gpu": "L40S", "engine": "sextant", "quantization": "fp8", "tensor_parallel": 1, "pipeline_parallel": 1,
            "expert_parallel": 1, "max_num_seqs": 32, "replicas": 1,
            "targets": [{"target": "target_ttft_p90_ms", "limit_ms": 300.0, "predicted_ms": 146.2, "verdict": "pass"}],
            "at_peak_per_replica": {"requests_per_s": 24.7, "ttft_ms": {"mean": 20.0}, "tpot_ms": {"mean": 100.0}},
            "limit_per_replica": {"requests_per_s": 33.4},
            "memory_per_gpu_gib": {"weights": 23.6}, "cost": {"usd_per_month": 2717.06}, **option}]}


def render(folder, *arguments, plan=None, code=0):
    path = folder / "plan.json"
    path.write_text(json.dumps(plan or plan_of()))
    run = sextant("deploy", "render", "--plan", path, "--output", folder / "bundle", *arguments)
    assert run.returncode == code, run.stderr + run.stdout
    return folder / "bundle" if code == 0 else run.stderr


def tool(name):
    found = shutil.which(name, path=f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}")
    assert found, f"{name} stands in tests/e2e/requirements.txt"
    return found


def checked(*command, **options):
    run = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120, check=False, **options)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout + run.stderr


# --- systemd ---

def words_of(line):
    """A command line as `systemd --test` prints it: words, in double quotes and with C escapes where they need them."""
    words, i = [], 0
    while i < len(line):
        if line[i:i + 1] == b" ":
            i += 1
            continue
        word = b""
        quoted = line[i:i + 1] == b'"'
        i += quoted
        while i < len(line) and line[i:i + 1] != (b'"' if quoted else b" "):
            if line[i:i + 1] != b"\\":
                word += line[i:i + 1]
                i += 1
                continue
            escape = re.compile(rb"\\(x[0-9a-f]{2}|[0-7]{3}|.)", re.S).match(line, i)
            code = escape.group(1)
            if code[:1] == b"x":
                word += bytes([int(code[1:], 16)])
            elif len(code) == 3:
                word += bytes([int(code, 8)])
            else:
                word += {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"a": b"\a", b"b": b"\b", b"f": b"\f", b"v": b"\v"}.get(code, code)
            i = escape.end()
        i += quoted
        words.append(word.replace(b"$$", b"$").decode())  # variables are put in when it starts: "$$" is a dollar
    return words


def commands_of(unit, folder):
    """ExecStartPre and ExecStart of a unit, as the service manager itself reads them."""
    if not SYSTEMD.is_file():
        pytest.skip("no systemd here")
    units = pathlib.Path(tempfile.mkdtemp(dir=folder))
    os.chmod(folder, 0o755)
    for stub in ("basic", "shutdown", "sysinit", "network-online", "multi-user"):
        (units / f"{stub}.target").write_text(f"[Unit]\nDescription={stub}\n")
    (units / "sextant.service").write_text(unit)
    run_folder = units / "run"
    run_folder.mkdir()
    for path in (units, run_folder):
        os.chmod(path, 0o777)
    user = {"user": 65534, "group": 65534, "extra_groups": []} if os.getuid() == 0 else {}  # root may not
    run = subprocess.run([SYSTEMD, "--test", "--user", "--unit=sextant.service"], capture_output=True, timeout=60, check=False,
                         env={"PATH": os.environ["PATH"], "HOME": str(run_folder), "XDG_RUNTIME_DIR": str(run_folder),
                              "SYSTEMD_UNIT_PATH": str(units)}, **user)
    of_unit = re.search(rb"-> Unit sextant\.service:\n(.*?)(?=\n-> Unit |\Z)", run.stdout, re.S)
    assert of_unit, run.stdout + run.stderr
    assert b"Unit Load State: loaded\n" in of_unit.group(1), of_unit.group(1).decode()
    return {kind.decode(): words_of(line) for kind, line in
            re.findall(rb"-> (ExecStart\w*):\n\s+Command Line: ([^\n]*)\n", of_unit.group(1))}


@pytest.fixture
def shared_folder():
    """One that processes of other users can read."""
    with tempfile.TemporaryDirectory(prefix="sextant-node-") as name:
        os.chmod(name, 0o755)
        yield pathlib.Path(name)


@pytest.mark.parametrize("name", HOSTILE)
def test_systemd_reads_the_arguments_that_the_plan_means(shared_folder, name):
    model = HOSTILE[name]
    bundle = render(shared_folder, plan=plan_of(model), *["--description", model])
    unit = (bundle / "single-node/systemd/sextant.service").read_text()
    commands = commands_of(unit, shared_folder)
    assert commands["ExecStartPre"] == ["/usr/local/bin/sextant", "pull", model]
    assert commands["ExecStart"][:4] == ["/usr/local/bin/sextant", "serve", model, f"--served-model-name={model}"]
    assert all(re.fullmatch(r"--[a-z-]+=[a-z0-9.]+", word) for word in commands["ExecStart"][4:]), commands["ExecStart"]


@pytest.mark.parametrize("arguments", [[], ["--simulate"]], ids=["gpu", "simulate"])
@pytest.mark.parametrize("name", ["quotes", "newline", "variables", "unicode"])
def test_the_unit_passes_systemd_analyze_verify(tmp_path, name, arguments):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here")
    bundle = render(tmp_path, *arguments, plan=plan_of(HOSTILE[name]))
    unit = tmp_path / "sextant.service"
    unit.write_text((bundle / "single-node/systemd/sextant.service").read_text().replace("/usr/local/bin/sextant ", f"{BINARY} "))
    assert checked("systemd-analyze", "verify", "--man=no", unit) == ""
    unit.write_text(unit.read_text().replace("KillMode=mixed", "KillMode=mixd"))
    assert "kill mode" in checked("systemd-analyze", "verify", "--man=no", unit)  # it does look


# --- nginx ---

class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=120)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Node:
    """What the bundle runs on one machine, the command and the configuration being the bundle's but for where they listen and log."""

    def __init__(self, folder, bundle, device="cuda"):
        self.folder = folder
        command = commands_of((bundle / "single-node/systemd/sextant.service").read_text(), folder)["ExecStart"]
        assert command[0] == "/usr/local/bin/sextant" and command.count("--port=8000") == 1
        command = [{"--port=8000": "--port=0", "--device=cuda": f"--device={device}"}.get(word, word) for word in command[1:]]
        self.log = folder / "server.log"
        with open(self.log, "wb") as log:
            self.server = subprocess.Popen([str(BINARY), *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                           env={**os.environ, "SEXTANT_API_KEY": "secret"})
        self.nginx = None
        self.port = int(self.wait_for(lambda: re.search(r"listening at http://127\.0\.0\.1:(\d+)", self.log.read_text())).group(1))
        self.start_nginx(bundle)
        self.wait_for(lambda: self.ask("GET", "/ready").status == 200)

    def start_nginx(self, bundle):
        conf = (bundle / "single-node/systemd/nginx.conf").read_text()
        self.socket = self.folder / "nginx.sock"
        for was, becomes in [("pid /run/nginx.pid;", f"pid {self.folder}/nginx.pid;"), ("listen 80;", f"listen unix:{self.socket};"),
                             ("listen [::]:80;", ""), ("server 127.0.0.1:8000;", f"server 127.0.0.1:{self.port};"),
                             ("/var/log/nginx/access.log", f"{self.folder}/access.log"),
                             ("/var/log/nginx/error.log", f"{self.folder}/error.log"),
                             ("http {", "http { " + "".join(f"{kind}_temp_path {self.folder}/temp-{kind}; " for kind in
                                                            ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")))]:
            assert conf.count(was) == 1, was
            conf = conf.replace(was, becomes)
        (self.folder / "nginx.conf").write_text(conf)
        self.nginx = subprocess.Popen([NGINX, "-p", self.folder, "-c", self.folder / "nginx.conf", "-g", "daemon off;"],
                                      stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def wait_for(self, condition, timeout_s=120):
        deadline = time.monotonic() + timeout_s
        while True:
            with contextlib.suppress(OSError):
                if result := condition():
                    return result
            for process in (self.server, self.nginx):
                assert process is None or process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def connection(self):
        return UnixConnection(self.socket)

    def ask(self, method, path, body=None, direct=False):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120) if direct else self.connection()
        with contextlib.closing(connection):
            connection.request(method, path, body=body if body is None or isinstance(body, bytes) else json.dumps(body),
                               headers={"Authorization": "Bearer secret", "Content-Type": "application/json"})
            response = connection.getresponse()
            return server_process.Answer(response.status, dict(response.getheaders()), response.read())

    def running(self):
        """Requests that the server is working on."""
        text = self.ask("GET", "/metrics", direct=True).body.decode()
        return sum(float(value) for value in re.findall(r"^vllm:num_requests_running(?:\{[^}]*\})? (\S+)$", text, re.M))

    def end(self):
        for process in (self.nginx, self.server):
            if process is not None and process.poll() is None:
                process.terminate()
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


@contextlib.contextmanager
def running_node(folder, bundle, **options):
    if NGINX is None:
        pytest.skip("no nginx here")
    node = Node.__new__(Node)
    node.server = node.nginx = None
    try:
        node.__init__(folder, bundle, **options)
        yield node
    finally:
        for process in ("nginx", "server"):
            if getattr(node, process, None) is None:
                setattr(node, process, None)
        node.end()


def chat(**fields):
    return {"model": "owner/name", "messages": [{"role": "user", "content": "Please name the capital of France."}], **fields}


def test_answers_of_the_real_model_are_the_same_behind_nginx(shared_folder, model):
    bundle = render(shared_folder, plan=plan_of(str(model), max_num_seqs=8))
    with running_node(shared_folder, bundle, device="cpu") as node:
        body = {**chat(temperature=0, max_tokens=12), "model": str(model)}
        direct = node.ask("POST", "/v1/chat/completions", body, direct=True)
        behind = node.ask("POST", "/v1/chat/completions", body)
        assert (behind.status, direct.status) == (200, 200)
        assert behind.json["choices"] == direct.json["choices"]
        assert "Paris" in behind.json["choices"][0]["message"]["content"]
        stream = node.ask("POST", "/v1/chat/completions", {**body, "stream": True}).body.decode()
        assert stream.endswith("data: [DONE]\n\n")
        pieces = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: {")]
        assert "".join(piece["choices"][0]["delta"].get("content") or "" for piece in pieces) == \
            direct.json["choices"][0]["message"]["content"]


def test_nginx_streams_limits_and_says_when_the_server_is_gone(shared_folder):
    # Half a request a minute is what the server is sized for: all that follow are the burst.
    plan = plan_of(limit_per_replica={"requests_per_s": 0.008})
    with running_node(shared_folder, render(shared_folder, "--simulate", plan=plan)) as node:
        # Tokens of a request that is far from done arrive; the client goes away, and so does the request.
        connection = node.connection()
        connection.request("POST", "/v1/chat/completions", json.dumps(chat(stream=True, max_tokens=3000, ignore_eos=True)),
                           {"Authorization": "Bearer secret", "Content-Type": "application/json"})
        response = connection.getresponse()
        assert response.status == 200 and response.getheader("Content-Type").startswith("text/event-stream")
        events = 0
        while events < 5:
            line = response.readline()
            assert line, "the stream ended"
            if line.startswith(b"data: {"):
                events += 1
        node.wait_for(lambda: node.running() == 1)  # never, had the answer come when it was complete: that takes five minutes
        connection.close()
        node.wait_for(lambda: node.running() == 0)

        # A body of the limit is the server's to judge; a byte more is refused in the API's form.
        padding = MAX_BODY_BYTES - len(json.dumps(chat(user="", max_tokens=0)))
        largest = node.ask("POST", "/v1/chat/completions", chat(user="x" * padding, max_tokens=0))
        assert largest.status == 400 and largest.error["code"] != "request_too_large", largest.body[:300]
        refused = node.ask("POST", "/v1/chat/completions", chat(user="x" * (padding + 1), max_tokens=0))
        assert (refused.status, refused.error["code"]) == (413, "request_too_large")
        assert refused.headers["Content-Type"] == "application/json"

        # Prometheus asks the server, not nginx; what needs a key needs it here as well.
        assert node.ask("GET", "/metrics").status == 403
        with contextlib.closing(node.connection()) as stranger:
            stranger.request("GET", "/v1/models")
            assert stranger.getresponse().status == 401

        # The burst is what may wait (1,024), less the requests above and what half a minute each gives back.
        statuses = []
        with contextlib.closing(node.connection()) as connection:
            while len(statuses) < 1200 and 429 not in statuses:
                connection.request("GET", "/v1/models", headers={"Authorization": "Bearer secret"})
                response = connection.getresponse()
                body = response.read()
                statuses.append(response.status)
        assert statuses[-1] == 429 and set(statuses[:-1]) == {200}
        assert len(statuses) > 1000
        assert json.loads(body)["error"]["code"] == "rate_limit_exceeded" and response.getheader("Retry-After") == "1"

        node.server.kill()
        node.server.wait()
        gone = node.ask("GET", "/health")
        assert (gone.status, gone.error["code"], gone.headers["Retry-After"]) == (503, "server_unavailable", "5")


def test_a_server_that_dies_within_a_stream_ends_it_as_broken(shared_folder):
    with running_node(shared_folder, render(shared_folder, "--simulate")) as node:
        with contextlib.closing(node.connection()) as connection:
            connection.request("POST", "/v1/chat/completions", json.dumps(chat(stream=True, max_tokens=3000, ignore_eos=True)),
                               {"Authorization": "Bearer secret", "Content-Type": "application/json"})
            response = connection.getresponse()
            assert response.readline().startswith(b"data: {")
            node.server.kill()
            node.server.wait()
            with pytest.raises(http.client.HTTPException):  # no end of the chunks: nobody takes it for an answer
                while response.read(1):
                    pass


def test_nginx_takes_the_certificate_where_there_is_a_host(tmp_path):
    if NGINX is None:
        pytest.skip("no nginx here")
    bundle = render(tmp_path, "--host", "llm.example.org", "--tls-secret", "certificate", "--expose", "ingress")
    checked("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=llm.example.org", "-days", "1",
            "-keyout", tmp_path / "tls.key", "-out", tmp_path / "tls.crt")
    for kind in ("systemd", "compose"):
        conf = (bundle / f"single-node/{kind}/nginx.conf").read_text()
        for was, becomes in (("/etc/sextant/tls/", f"{tmp_path}/"), ("/etc/nginx/tls/", f"{tmp_path}/"), ("/run/nginx.pid", f"{tmp_path}/pid"),
                             ("/var/log/nginx/", f"{tmp_path}/"), ("server server:8000;", "server 127.0.0.1:8000;")):
            conf = conf.replace(was, becomes)
        (tmp_path / "nginx.conf").write_text(conf)
        assert "listen 443 ssl http2;" in conf
        checked(NGINX, "-t", "-p", tmp_path, "-c", tmp_path / "nginx.conf")


# --- compose and the workflow ---

CHOICES = {"gpu": [], "simulate": ["--simulate"], "vllm": ["--runtime", "vllm"], "lws": ["--kind", "lws"], "kserve": ["--kind", "kserve"],
           "tls": ["--host", "llm.example.org", "--tls-secret", "certificate", "--expose", "ingress"]}


@pytest.mark.parametrize("choice", CHOICES)
def test_compose_file_and_workflow_pass_their_schemas(tmp_path, choice):
    for name in ("quotes", "expressions", "unicode", "yaml"):
        folder = tmp_path / name
        folder.mkdir()
        bundle = render(folder, *CHOICES[choice], plan=plan_of(HOSTILE[name]))
        compose = yaml.safe_load((bundle / "single-node/compose/compose.yaml").read_text())
        command = [word.replace("$$", "$") for word in compose["services"]["server"]["command"]]
        assert any(HOSTILE[name] == word.partition("=")[2] for word in command), command
        workflow = yaml.safe_load((bundle / ".github/workflows/deploy.yaml").read_text())
        assert workflow["env"]["MODEL"].replace("${{ '${{' }}", "${{") == HOSTILE[name]
    checked(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", *tmp_path.glob("*/bundle/single-node/compose/compose.yaml"))
    checked(tool("check-jsonschema"), "--builtin-schema", "vendor.github-workflows", *tmp_path.glob("*/bundle/.github/workflows/*.yaml"))


def test_the_schemas_do_refuse(tmp_path):
    bundle = render(tmp_path)
    for schema, path, was in (("vendor.compose-spec", "single-node/compose/compose.yaml", "read_only:"),
                              ("vendor.github-workflows", ".github/workflows/deploy.yaml", "runs-on:")):
        broken = tmp_path / "broken.yaml"
        broken.write_text((bundle / path).read_text().replace(was, "no-" + was))
        run = subprocess.run([tool("check-jsonschema"), "--builtin-schema", schema, broken], capture_output=True, text=True, check=False)
        assert run.returncode == 1, path


@pytest.mark.parametrize("choice", ["gpu", "lws", "kserve", "vllm"])
def test_scripts_of_the_workflow_are_sound_and_hold_no_text_of_users(tmp_path, choice):
    bundle = render(tmp_path, *CHOICES[choice], plan=plan_of(HOSTILE["expressions"]))
    workflow = yaml.safe_load((bundle / ".github/workflows/deploy.yaml").read_text())
    assert list(workflow["jobs"]) == ["unit", "integration", "build", "staging", "smoke", "load", "production", "rollback"]
    for job_name, job in workflow["jobs"].items():
        needs = job.get("needs", [])
        assert set([needs] if isinstance(needs, str) else needs) <= set(workflow["jobs"])
        for number, step in enumerate(job["steps"]):
            if "run" not in step:
                continue
            assert "${{" not in step["run"] and "secrets" not in step["run"]
            script = tmp_path / f"{job_name}-{number}.sh"
            known = "".join(f"export {key}=x\n" for key in {**workflow["env"], **step.get("env", {})})
            script.write_text("#!/usr/bin/env bash\nset -eo pipefail\n" + known + step["run"])
            checked("bash", "-n", script)
            checked(tool("shellcheck"), "--severity=style", script)


def test_load_goals_are_ones_that_the_bench_knows(tmp_path):
    bundle = render(tmp_path)
    load = yaml.safe_load((bundle / ".github/workflows/deploy.yaml").read_text())["jobs"]["load"]
    step = next(step for step in load["steps"] if step.get("name") == "Load")
    flags = re.findall(r"(--[a-z-]+)", step["run"].partition("bench serve")[2])
    known = sextant("bench", "serve", "--help").stdout
    assert flags and all(re.search(rf"{flag}[ ,\n]", known) for flag in flags), flags
    # Nobody listens there: what is wrong is said to be that, not the goals.
    run = sextant("bench", "serve", "--url", "http://127.0.0.1:1", "--num-prompts", "1", "--slo", step["env"]["SLO"])
    assert run.returncode == 1 and "slo" not in run.stderr.lower(), run.stderr


@pytest.mark.parametrize("field, plan, arguments", [
    ("model_id", plan_of("a\x00b"), []), ("model_id", plan_of("-rf"), []), ("model_id", plan_of("x" * 301), []), ("model_id", plan_of(""), []),
    ("model_id", plan_of("bell\x07"), []), ("name", None, ["--name", "it's"]), ("name", None, ["--name", "two\nlines"]),
    ("namespace", None, ["--namespace", "日本"]), ("namespace", None, ["--namespace", "x" * 300]), ("image", None, ["--image", "a b; c"]),
    ("host", None, ["--host", "a;b{}", "--expose", "ingress"]), ("tls_secret", None, ["--tls-secret", "../x", "--host", "a.example"]),
])
def test_what_cannot_be_is_refused_by_its_field(tmp_path, field, plan, arguments):
    message = render(tmp_path, *arguments, plan=plan, code=2)
    assert field in message.replace("-", "_"), message
    assert not (tmp_path / "bundle").exists()

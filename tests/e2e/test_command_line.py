"""The program's verbs as a user types them."""

import hashlib
import http.server
import json
import os
import pty
import signal
import subprocess
import threading
import time

import pytest
from server_process import BINARY, Server, model_id, sextant


def test_help_lists_verbs_with_examples():
    assert sextant("--help").returncode == 0
    listed = sextant("--help").stdout
    for verb in ("serve", "simulate", "pull", "chat", "models", "version"):
        assert verb in listed
        shown = sextant(verb, "--help")
        assert shown.returncode == 0 and "Examples:" in shown.stdout and f"sextant {verb}" in shown.stdout
    assert "--max-model-len" in sextant("serve", "--help").stdout


def test_bad_input_is_exit_2_and_all_at_once():
    started = sextant("serve", "--max-model-length=5", "--port", "99999", "--dtype", "int1", "--num-io-threads", "x")
    assert started.returncode == 2
    assert "did you mean --max-model-len?" in started.stderr
    for flag in ("--port must be", "--dtype must be", "--num-io-threads must be", "--model is required"):
        assert flag in started.stderr
    assert sextant("srve").returncode == 2
    assert sextant().returncode == 2
    assert sextant("serve", "/nonexistent/model.gguf").returncode == 2
    missing = sextant("serve", "owner/name", env={"SEXTANT_CACHE": "/nonexistent"})
    assert missing.returncode == 2 and "sextant pull owner/name" in missing.stderr


def test_an_open_host_needs_a_key():
    started = sextant("serve", "m.gguf", "--host", "0.0.0.0", env={"SEXTANT_API_KEY": ""})
    assert started.returncode == 2
    assert "--allow-unauthenticated" in started.stderr


def test_printed_config_reads_back_the_same(tmp_path):
    printed = sextant("serve", "m.gguf", "--print-config", "--port", "1234", "--no-enable-prefix-caching",
                      "--kv-cache-memory-bytes", "1.5GiB", "--gpu-memory-utilization", "0.5")
    assert printed.returncode == 0
    config = json.loads(printed.stdout)
    assert config["port"] == 1234 and config["enable_prefix_caching"] is False and config["model"] == "m.gguf"
    assert config["kv_cache_memory_bytes"] == 3 << 29
    path = tmp_path / "config.json"
    path.write_text(printed.stdout)
    assert sextant("serve", "--config", path, "--print-config").stdout == printed.stdout
    assert json.loads(sextant("serve", "--config", path, "--print-config", "--port", "9").stdout)["port"] == 9
    path.write_text('{"prot": 1, "max_num_seqs": "x"}')
    wrong = sextant("serve", "--config", path, "--print-config")
    assert wrong.returncode == 2
    assert "'prot'; did you mean 'port'?" in wrong.stderr and "max_num_seqs" in wrong.stderr


def test_the_key_is_never_printed():
    printed = sextant("serve", "m.gguf", "--print-config", env={"SEXTANT_API_KEY": "sk-hidden"})
    assert json.loads(printed.stdout)["api_key"] == "***"
    assert "sk-hidden" not in printed.stdout + printed.stderr


def test_config_file_serves(model, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model": str(model), "served_model_name": "from-file", "max_model_len": 512, "port": 1}))
    with Server(None, "--config", path) as server:
        assert model_id(server) == "from-file"
        assert server.get("/v1/models").json["data"][0]["max_model_len"] == 512


def test_models(server, model, tmp_path):
    listed = sextant("models", "--url", server.url)
    assert (listed.returncode, listed.stdout) == (0, "smollm2\n")
    assert json.loads(sextant("models", "--url", server.url, "--json").stdout) == [{"name": "smollm2"}]
    cache = tmp_path / "cache"
    commit = cache / "hub" / "owner--name" / ("a" * 40)
    commit.mkdir(parents=True)
    (commit / "model.gguf").write_bytes(model.read_bytes())
    half = cache / "hub" / "owner--half" / ("b" * 40)
    half.mkdir(parents=True)
    (half / "model.gguf.incomplete").write_bytes(b"x")
    rows = json.loads(sextant("models", "--json", env={"SEXTANT_CACHE": str(cache)}).stdout)
    assert [(row["name"], row["revision"]) for row in rows] == [("owner/name", "a" * 40)]
    with Server("owner/name", env={"SEXTANT_CACHE": str(cache)}) as pulled:
        assert model_id(pulled) == "owner/name"


def test_models_of_a_server_that_is_not_there():
    listed = sextant("models", "--url", "http://127.0.0.1:9")
    assert listed.returncode == 1 and "127.0.0.1:9" in listed.stderr


def test_chat_one_question_three_ways(server):
    asked = sextant("chat", "--url", server.url, "--temperature", 0, "--max-tokens", 16, "Please name the capital of France.")
    assert asked.returncode == 0, asked.stderr
    assert "Paris" in asked.stdout
    piped = sextant("chat", "--url", f"{server.url}/v1/", "--temperature", 0, "--max-tokens", 16,
                    stdin="Please name the capital of France.\n")
    assert piped.stdout == asked.stdout
    assert sextant("chat", "--url", server.url, stdin="").returncode == 2
    wrong = sextant("chat", "--url", server.url, "--model", "nope", "hi")
    assert wrong.returncode == 1 and "nope" in wrong.stderr
    assert sextant("chat", "--url", "http://127.0.0.1:9", "hi").returncode == 1


class Terminal:
    """A program with a terminal as its input and output."""

    def __init__(self, *arguments):
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen([str(BINARY), *map(str, arguments)], stdin=slave, stdout=slave, stderr=slave,
                                        start_new_session=True)
        os.close(slave)
        self.text = ""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        while True:
            try:
                data = os.read(self.master, 4096)
            except OSError:
                return
            if not data:
                return
            self.text += data.decode(errors="replace")

    def type(self, text):
        os.write(self.master, text.encode())

    def wait_for(self, part, timeout_s=30, start=0):
        deadline = time.monotonic() + timeout_s
        while part not in self.text[start:]:
            assert time.monotonic() < deadline, f"no {part!r} in {self.text!r}"
            time.sleep(0.02)


def test_chat_conversation_in_a_terminal(server):
    terminal = Terminal("chat", "--url", server.url, "--temperature", "0", "--max-tokens", "3000")
    try:
        terminal.wait_for("> ")
        terminal.type("Please name the capital of France.\n")
        terminal.wait_for("Paris")
        terminal.wait_for("\n> ")
        start = len(terminal.text)
        terminal.type("Write a very long story about the sea.\n")
        time.sleep(1.0)
        terminal.process.send_signal(signal.SIGINT)
        terminal.wait_for("> ", start=start + 45)
        assert terminal.process.poll() is None, "Ctrl-C stops the answer, not the program"
        server.wait_metric("vllm:num_requests_running", 0, timeout_s=10)
        terminal.type("/reset\n")
        terminal.wait_for("forgotten")
        terminal.type("/help\n")
        terminal.wait_for("Ctrl-C  stop")
        terminal.type("/nonsense\n")
        terminal.wait_for("unknown command /nonsense")
        terminal.type("/exit\n")
        assert terminal.process.wait(10) == 0
    finally:
        terminal.process.kill()
        terminal.process.wait()


WEIGHTS = bytes(range(256)) * 4096
COMMIT = "c" * 40


class HubHandler(http.server.BaseHTTPRequestHandler):
    cut_next = False

    def log_message(self, *_):
        pass

    def do_GET(self):
        if self.path.startswith("/api/models/owner/name/revision/main"):
            listing = {"sha": COMMIT, "siblings": [
                {"rfilename": "config.json", "size": 2},
                {"rfilename": "model.safetensors", "size": len(WEIGHTS),
                 "lfs": {"sha256": hashlib.sha256(WEIGHTS).hexdigest(), "size": len(WEIGHTS)}}]}
            self.answer(json.dumps(listing).encode())
        elif self.path == f"/owner/name/resolve/{COMMIT}/config.json":
            self.answer(b"{}")
        elif self.path == f"/owner/name/resolve/{COMMIT}/model.safetensors":
            self.answer(WEIGHTS)
        else:
            self.send_error(404)

    def answer(self, body):
        begin = 0
        if "Range" in self.headers:
            begin = int(self.headers["Range"].removeprefix("bytes=").split("-")[0])
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(body) - 1}/{len(body)}")
        body = body[begin:]
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if HubHandler.cut_next and len(body) > 1000:
            HubHandler.cut_next = False
            self.wfile.write(body[: len(body) // 2])
            self.connection.close()
            return
        self.wfile.write(body)


@pytest.fixture()
def hub():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), HubHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_pull_resumes_and_prints_the_path(hub, tmp_path):
    environment = {"HF_ENDPOINT": hub, "SEXTANT_CACHE": str(tmp_path)}
    HubHandler.cut_next = True
    pulled = sextant("pull", "owner/name", env=environment)
    assert pulled.returncode == 0, pulled.stderr
    path = pulled.stdout.strip()
    assert path.startswith(str(tmp_path)) and path.endswith(COMMIT)
    with open(os.path.join(path, "model.safetensors"), "rb") as file:
        assert file.read() == WEIGHTS
    assert "\r" not in pulled.stderr, "plain lines where there is no terminal"
    again = sextant("pull", "owner/name", "--json", env=environment)
    assert json.loads(again.stdout)["num_bytes_received"] == 0
    assert json.loads(again.stdout)["path"] == path


def test_pull_says_what_is_wrong(hub, tmp_path):
    environment = {"HF_ENDPOINT": hub, "SEXTANT_CACHE": str(tmp_path)}
    missing = sextant("pull", "owner/other", env=environment)
    assert missing.returncode == 1 and "owner/other" in missing.stderr
    assert sextant("pull", env=environment).returncode == 2
    assert sextant("pull", "not a model", env=environment).returncode == 2
    assert sextant("pull", "owner/name@a", "--revision", "b", env=environment).returncode == 2

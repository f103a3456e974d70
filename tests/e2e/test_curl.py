"""What a user types into a shell: the README's examples, and curl's own habits."""

import json
import subprocess

MODEL = "smollm2"
BODY = {"model": MODEL, "messages": [{"role": "user", "content": "Please name the capital of France."}],
        "temperature": 0, "max_tokens": 16}


def curl(*arguments, stdin=None):
    return subprocess.run(["curl", "--silent", "--show-error", "--max-time", "60", *arguments], capture_output=True,
                          text=True, input=stdin, check=False)


def post(server, path, body, *arguments):
    return curl(f"{server.url}{path}", "-H", "Content-Type: application/json", "-d", "@-", *arguments, stdin=json.dumps(body))


def test_a_chat_answer(server):
    answer = post(server, "/v1/chat/completions", BODY)
    assert answer.returncode == 0, answer.stderr
    assert "Paris" in json.loads(answer.stdout)["choices"][0]["message"]["content"]


def test_a_streamed_answer(server):
    lines = post(server, "/v1/chat/completions", {**BODY, "stream": True}, "--no-buffer").stdout.split("\n\n")
    assert lines[-1] == "" and lines[-2] == "data: [DONE]"
    text = "".join(json.loads(line.removeprefix("data: "))["choices"][0]["delta"].get("content") or "" for line in lines[:-2])
    assert "Paris" in text


def test_http_1_0_streams_until_the_connection_closes(server):
    answer = post(server, "/v1/chat/completions", {**BODY, "stream": True}, "--http1.0", "--include")
    assert answer.returncode == 0
    head, _, body = answer.stdout.partition("\n\n")  # text mode reads \r\n as \n
    assert "transfer-encoding" not in head.lower()
    assert body.rstrip().endswith("data: [DONE]")


def test_a_body_that_waits_for_100_continue(server):
    large = {**BODY, "messages": [{"role": "user", "content": "word " * 300_000}]}
    answer = post(server, "/v1/chat/completions", large, "-H", "Expect: 100-continue", "--write-out", "\n%{http_code}")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.endswith("\n400")
    assert json.loads(answer.stdout.rsplit("\n", 1)[0])["error"]["code"] == "context_length_exceeded"


def test_fail_flag_sees_errors(server):
    assert post(server, "/v1/chat/completions", {**BODY, "model": "nope"}, "--fail").returncode == 22
    assert curl(f"{server.url}/nothing", "--fail").returncode == 22


def test_head_and_two_requests_on_one_connection(server):
    assert "200 OK" in curl("--head", f"{server.url}/health").stdout
    twice = curl(f"{server.url}/health", f"{server.url}/v1/models", "--write-out", "|%{num_connects}|")
    assert twice.returncode == 0
    assert "|1|" in twice.stdout and twice.stdout.endswith("|0|"), "the second request uses the connection again"


def test_the_request_id_comes_back(server):
    answer = curl("--include", f"{server.url}/v1/models", "-H", "X-Request-Id: my-id-7")
    assert "x-request-id: my-id-7" in answer.stdout.lower()
    assert "x-request-id: " in curl("--include", f"{server.url}/v1/models").stdout.lower()

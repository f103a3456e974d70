"""The audit log of a server: each request once, chained, whole after a burst, after rotation, after kill -9, on a full disk and
after a tenant was erased; what it says is what was done. Over the simulator: needs no model."""

import concurrent.futures
import json
import os
import resource
import signal
import time

import pytest
from server_process import Server, sextant

TIMES = ("--time", "constant:ttft=1ms,tpot=0ms")


def make_key(state, *arguments):
    run = sextant("admin", "keys", "create", "--json", *arguments, "--state-dir", state)
    assert run.returncode == 0, run.stderr
    made = json.loads(run.stdout)
    return made["key"], made["key_id"]


def bearer(key):
    return {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}


def complete(server, key=None, prompt="zxq", **options):
    headers = bearer(key) if key else {"Content-Type": "application/json"}
    return server.post("/v1/completions", {"model": "bytes", "prompt": prompt, "max_tokens": 4, "seed": 1, "ignore_eos": True},
                       headers={**headers, **options})


def simulate(folder, *arguments, **options):
    return Server(None, *TIMES, "--audit-log", folder, *arguments, verb="simulate", **options)


def verify(folder, *arguments):
    run = sextant("admin", "audit", "verify", "--json", "--audit-dir", folder, *arguments)
    report = json.loads(run.stdout)
    assert (run.returncode == 0) == (report["problems"] == [])
    return report


def exported(folder, *arguments):
    run = sextant("admin", "audit", "export", "--audit-dir", folder, *arguments)
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


def requests_of(records):
    return [record for record in records if record["action"] == "request"]


def wait_until(condition, what, timeout_s=60):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true in {timeout_s} s"
        time.sleep(0.02)


def burst(server, count, workers=16, key=None):
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        return [answer.status for answer in pool.map(lambda i: complete(server, key, **{"X-Request-Id": f"burst-{i}"}), range(count))]


def test_each_request_is_there_once_with_who_what_and_how_much(tmp_path):
    state, folder = tmp_path / "state", tmp_path / "audit"
    key, key_id = make_key(state, "--tenant", "shop", "--role", "inference")
    admin_key, admin_id = make_key(state, "--role", "admin")
    with simulate(folder, "--state-dir", state, "--audit-file-bytes", "4096") as server:
        assert burst(server, 100, key=key) == [200] * 100
        assert server.post("/v1/completions", {"model": "other", "prompt": "x"}, headers=bearer(key)).status == 404
        with server.client(key).completions.create(model="bytes", prompt="abcdef", max_tokens=5, stream=True,
                                                   extra_body={"ignore_eos": True}) as stream:
            assert list(stream)
        assert complete(server, "sk-wrong-key-of-somebody").status == 401
        assert server.post("/admin/v1/log-level", {"level": "warning"}, headers=bearer(admin_key)).status == 200
        remote = {"SEXTANT_ADMIN_KEY": admin_key}
        run = sextant("admin", "audit", "verify", "--json", "--url", server.url, env=remote)
        assert run.returncode == 0 and json.loads(run.stdout)["files"] > 5, run.stdout + run.stderr
        run = sextant("admin", "audit", "export", "--tenant", "shop", "--url", server.url, env=remote)
        assert len(requests_of(map(json.loads, run.stdout.splitlines()))) == 102, run.stderr
        assert sextant("admin", "audit", "erase", "--tenant", "x", "--audit-dir", folder).returncode == 1  # the server's
        assert server.get("/admin/v1/audit?limit=-1", headers=bearer(admin_key)).status == 400
        assert server.get("/admin/v1/audit/other", headers=bearer(admin_key)).status == 404
        assert server.get("/admin/v1/audit", headers=bearer(key)).status == 403
        server.terminate()
        assert server.wait_end() == 0
    assert verify(folder)["problems"] == []
    records = exported(folder)
    requests = requests_of(records)
    first = [record for record in requests if record["request_id"].startswith("burst-")]
    assert sorted(record["request_id"] for record in first) == sorted(f"burst-{i}" for i in range(100))
    assert all((record["who"], record["tenant"], record["model"], record["prompt_tokens"], record["completion_tokens"], record["status"],
                record["outcome"], record["detail"]) == (key_id, "shop", "bytes", 4, 4, 200, "done", "length") for record in first)
    others = sorted((record for record in requests if record not in first), key=lambda record: -record["status"])
    assert [(record["status"], record["outcome"], record["detail"]) for record in others] == [(404, "failed", ""), (200, "done", "length")]
    assert (others[1]["prompt_tokens"], others[1]["completion_tokens"]) == (7, 5)  # with <bos>
    assert [record["detail"] for record in records if record["action"] == "authorise"] == ["invalid_api_key", "insufficient_role"]
    by_admin = [record["action"] for record in records if record["who"] == admin_id]
    assert by_admin == ["log-level.set", "audit.verify", "audit.read", "audit.read", "audit.verify"]
    assert [records[0]["action"], records[-1]["action"]] == ["server.start", "server.stop"]
    text = "".join(path.read_text() for path in folder.glob("*.jsonl"))
    assert "zxq" not in text and key not in text and "sk-wrong" not in text


def test_the_chain_holds_after_kill_9(tmp_path):
    """What was on disk a moment before is there; the line that was being written is cut off; the chain goes on."""
    folder = tmp_path / "audit"
    for _ in range(3):
        with simulate(folder) as server, concurrent.futures.ThreadPoolExecutor(8) as pool:
            def ask():
                try:
                    return [complete(server).status for _ in range(100)]
                except OSError:
                    return []
            asking = [pool.submit(ask) for _ in range(8)]
            before = sum(len(path.read_bytes()) for path in folder.glob("*.jsonl"))
            wait_until(lambda size=before: sum(len(path.read_bytes()) for path in folder.glob("*.jsonl")) > size + 10_000, "writing")
            server.process.send_signal(signal.SIGKILL)
            server.process.wait()
            for each in asking:
                each.result()
    last = max(folder.glob("*.jsonl"))
    with last.open("a") as file:
        file.write('{"seq":123,"unix')  # whatever the kills above hit, this is a half line
    assert verify(folder)["problems"]
    with simulate(folder) as server:
        assert complete(server).status == 200
        server.terminate()
        assert server.wait_end() == 0
    report = verify(folder)
    assert report["problems"] == [] and report["first_seq"] == 1 and report["records"] == report["last_seq"]
    assert [record["action"] for record in exported(folder)].count("server.start") == 4
    assert "audit.repair" in [record["action"] for record in exported(folder)]


@pytest.mark.parametrize("required", [False, True])
def test_a_full_disk_is_told_and_mended(tmp_path, required):
    """RLIMIT_FSIZE stands for the disk: no file of the process may grow beyond it."""
    folder = tmp_path / "audit"
    with simulate(folder, *(["--audit-required"] if required else [])) as server:
        assert burst(server, 20) == [200] * 20
        wait_until(lambda: len(requests_of(exported(folder))) == 20, "20 records")
        size = max(folder.glob("*.jsonl")).stat().st_size
        assert server.metric("audit_log_failing") == 0
        _, most = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (size + 100, resource.RLIM_INFINITY))
        complete(server)
        wait_until(lambda: server.metric("audit_log_failing") == 1, "a failing log")
        assert server.get("/health").status == 200
        answer = complete(server)
        assert answer.status == (503 if required else 200), answer.body
        if required:
            assert "audit log" in answer.error["message"]
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (most, most))
        wait_until(lambda: server.metric("audit_log_failing") == 0, "a log that is written again")
        assert complete(server).status == 200
        server.terminate()
        assert server.wait_end() == 0
    assert verify(folder)["problems"] == []
    assert sorted(record["status"] for record in requests_of(exported(folder))) == [200] * 22 + [503 if required else 200]


def test_encrypted_with_prompts_and_a_tenant_erased_while_it_runs(tmp_path):
    state, folder, key_file = tmp_path / "state", tmp_path / "audit", tmp_path / "key"
    key_file.write_text("0f" * 32)
    key_file.chmod(0o600)
    shop, _ = make_key(state, "--tenant", "shop", "--role", "inference")
    farm, _ = make_key(state, "--tenant", "farm", "--role", "inference")
    admin_key, _ = make_key(state, "--role", "admin")
    with simulate(folder, "--state-dir", state, "--audit-key-file", key_file, "--audit-prompts") as server:
        assert complete(server, shop, prompt="the words of the shop").status == 200
        assert complete(server, farm, prompt="the words of the farm").status == 200
        remote = {"SEXTANT_ADMIN_KEY": admin_key}
        run = sextant("admin", "audit", "erase", "--tenant", "shop", "--json", "--url", server.url, env=remote)
        assert run.returncode == 0 and json.loads(run.stdout) == {"erased": 1, "tenant": "shop"}, run.stderr
        assert complete(server, farm, prompt="more words of the farm").status == 200  # goes on in the file that was rewritten
        server.terminate()
        assert server.wait_end() == 0
    assert "words" not in "".join(path.read_text() for path in folder.iterdir())
    with_key = ("--audit-key-file", key_file)
    report = verify(folder, *with_key)
    assert report["problems"] == [] and report["erased"] == 1
    assert [record["prompt"] for record in requests_of(exported(folder, *with_key))] == [
        "<bos>the words of the farm", "<bos>more words of the farm"]


def test_refusals_do_not_fill_the_log(tmp_path):
    folder = tmp_path / "audit"
    with simulate(folder, "--api-key", "sk-right", "--failed-logins-per-minute", "0") as server, \
            concurrent.futures.ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(lambda _: complete(server, "sk-wrong").status, range(1500)))
        assert statuses == [401] * 1500
        server.terminate()
        assert server.wait_end() == 0
    refused = [record for record in exported(folder) if record["action"] == "authorise"]
    more = [record for record in exported(folder) if record["action"] == "authorise.more"]
    unrecorded = sum(int(record["detail"].split()[0]) for record in more)
    assert len(refused) + unrecorded == 1500 and len(refused) >= 500
    assert verify(folder)["problems"] == []


@pytest.mark.parametrize("arguments,named", [
    (["--audit-required"], "--audit-log"), (["--audit-log", "x", "--audit-key-file", "/nowhere"], "/nowhere"),
    (["--audit-log", "x", "--audit-file-bytes", "1"], "--audit-file-bytes"), (["--audit-log", "x", "--audit-retention-days", "-1"], "--audit-retention-days"),
])
def test_bad_settings_end_with_two(arguments, named):
    run = sextant("simulate", *TIMES, *arguments)
    assert run.returncode == 2 and named in run.stderr


def test_a_folder_of_another_process_is_refused(tmp_path):
    folder = tmp_path / "audit"
    with simulate(folder):
        run = sextant("simulate", *TIMES, "--port", "0", "--audit-log", folder)
        assert run.returncode == 1 and "another process writes" in run.stderr
    assert os.listdir(folder)

"""Backups: made beside a running server, whole or not there; the drill: the state directory is lost, restored and serves again.
Over the simulator: needs no model."""

import json
import pathlib
import shutil
import signal
import sqlite3
import time

import pytest
from server_process import Server, sextant

TIMES = ("--time", "constant:ttft=1ms,tpot=0ms")


def make_key(state, *arguments):
    made = json.loads(sextant("admin", "keys", "create", "--json", *arguments, "--state-dir", state).stdout)
    return made["key"], made["key_id"]


def bearer(key):
    return {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}


def complete(server, key):
    return server.post("/v1/completions", {"model": "bytes", "prompt": "abc", "max_tokens": 4, "ignore_eos": True}, headers=bearer(key)).status


def run(*arguments, code=0, **options):
    answer = sextant("admin", *arguments, "--json", **options)
    assert answer.returncode == code, answer.stdout + answer.stderr
    return json.loads(answer.stdout) if code == 0 else answer.stderr


def wait_until(condition, what, timeout_s=60):
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not come true in {timeout_s} s"
        time.sleep(0.02)
    return value


def usage_requests(state):
    """Requests that the state knows of."""
    rows = json.loads(sextant("admin", "usage", "--json", "--state-dir", state).stdout)["usage"]
    return sum(row["requests"] for row in rows)


def test_the_drill(tmp_path, record_property):
    """Usage is written twice a second and a backup is made each second here: so lost is what a few seconds brought, and no key."""
    state, backups = tmp_path / "state", tmp_path / "backups"
    key, _ = make_key(state, "--tenant", "shop", "--role", "inference")
    admin_key, _ = make_key(state, "--role", "admin")
    served = 0
    with Server(None, *TIMES, "--state-dir", state, "--backup-dir", backups, "--backup-interval", "1", "--backup-keep", "3", "--limit-requests-per-s", "0",
                verb="simulate") as server:
        made = set()
        while len(made) < 6:  # more than are kept
            assert complete(server, key) == 200
            served += 1
            made |= {path.name for path in backups.glob("backup-*Z")}
        wait_until(lambda: len(list(backups.glob("backup-*Z"))) <= 3, "old backups are deleted")
        assert server.request("GET", "/metrics", headers=bearer(admin_key)).status == 403
        listed = server.get("/admin/v1/backup", headers=bearer(admin_key)).json
        assert 1 <= len(listed["backups"]) <= 3
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
    lost_at = time.monotonic()
    shutil.rmtree(state)
    report = run("restore", backups, "--state-dir", state)
    assert report["files"] == ["state.sqlite", "config.json"]
    with Server(None, *TIMES, "--state-dir", state, verb="simulate") as server:
        assert complete(server, key) == 200
        seconds = time.monotonic() - lost_at
    kept = usage_requests(state) - 1
    record_property("seconds_to_serve_again", seconds)
    record_property("requests_lost", served - kept)
    print(f"serving again after {seconds:.2f} s; usage of {served - kept} of {served} requests lost")
    assert seconds < 900 and 0 < kept <= served
    config = json.loads((state / "config.restored.json").read_text())
    assert config["backup_dir"] == str(backups) and key not in json.dumps(config)


def test_a_backup_beside_writers_is_one_moment(tmp_path):
    state, backups = tmp_path / "state", tmp_path / "backups"
    admin_key, _ = make_key(state, "--role", "admin")
    with Server(None, *TIMES, "--state-dir", state, "--backup-dir", backups, "--backup-interval", "0", verb="simulate") as server:
        assert not backups.exists()
        reports = []
        for index in range(5):
            make_key(state, "--tenant", f"t{index}", "--role", "inference")
            reports.append(run("backup", "--url", server.url, env={"SEXTANT_ADMIN_KEY": admin_key}))
        assert server.post("/admin/v1/backup", {"to": "/etc"}, headers=bearer(admin_key)).status == 400
    assert [pathlib.Path(report["path"]).name for report in reports] == sorted(path.name for path in backups.iterdir())
    for index, report in enumerate(reports):
        with sqlite3.connect(f"{report['path']}/state.sqlite") as database:
            assert database.execute("SELECT count(*) FROM api_keys").fetchone()[0] == index + 2


@pytest.fixture
def backup(tmp_path):
    state, backups = tmp_path / "state", tmp_path / "backups"
    make_key(state, "--role", "admin")
    report = run("backup", "--state-dir", state, "--to", backups)
    return tmp_path, pathlib.Path(report["path"]), report


def test_half_and_tampered_ones_are_refused(backup):
    folder, path, report = backup
    target = folder / "restored"

    def refused(word, *more):
        error = run("restore", path, "--state-dir", target, *more, code=1)
        assert word in error and not target.joinpath("state.sqlite").exists(), error

    state, manifest = path / "state.sqlite", path / "MANIFEST.json"
    good, listed = state.read_bytes(), manifest.read_text()
    state.write_bytes(good[:-1])
    refused("size")
    state.write_bytes(good[:-1] + b"\0" if good[-1:] != b"\0" else good[:-1] + b"\1")
    refused("changed")
    state.unlink()
    refused("missing")
    state.symlink_to("/etc/passwd")
    refused("missing")
    state.unlink()
    state.write_bytes(good)
    (path / "extra").write_text("x")
    refused("extra")
    (path / "extra").unlink()
    for text in ("", "[]", "{", '{"format":1}', '{"format":2,"files":[]}', listed.replace("state.sqlite", "../../x"),
                 listed.replace('"bytes"', '"byte"')):
        manifest.write_text(text)
        assert run("restore", path, "--state-dir", target, code=1)
    # Changed with its manifest: only who knows the manifest's hash sees it.
    manifest.write_text(listed.replace('"version"', '"Version"'))
    refused("SHA-256", "--expect-manifest", report["manifest_sha256"])
    manifest.write_text(listed)
    assert run("restore", path, "--state-dir", target, "--expect-manifest", report["manifest_sha256"])["path"] == str(path)


def test_what_is_there_is_not_overwritten(backup):
    folder, path, _ = backup
    state = folder / "state"
    make_key(state, "--tenant", "later", "--role", "inference")
    assert "--replace" in run("restore", path, "--state-dir", state, code=2)
    run("restore", path.parent, "--state-dir", state, "--replace")
    keys = json.loads(sextant("admin", "keys", "list", "--json", "--state-dir", state).stdout)["keys"]
    assert [key["tenant"] for key in keys] == ["default"]
    assert len([name for name in state.iterdir() if name.name.startswith("state.sqlite.before-")]) >= 1


@pytest.mark.parametrize("arguments,named", [
    (["backup", "--to", "x"], "--state-dir"), (["backup", "--state-dir", "x"], "--to"), (["restore"], "backup"), (["restore", "/nowhere", "--check"], "/nowhere"),
    (["backup", "--state-dir", "/nowhere", "--to", "/tmp/x"], "/nowhere"), (["restore", "x"], "--state-dir"),
])
def test_bad_arguments_end_with_two(arguments, named, tmp_path):
    assert named in run(*arguments, code=2, cwd=tmp_path)


def test_the_server_says_what_it_needs():
    answer = sextant("simulate", *TIMES, "--backup-interval", "5")
    assert answer.returncode == 2 and "--backup-dir" in answer.stderr

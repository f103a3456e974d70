"""`sextant admin audit` on a log that is written here, by what server/gateway/audit_record.h says of its form alone: so the form is
one that others can check. Needs no model."""

import hashlib
import json
import secrets
import subprocess

import pytest
import server_process


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def line_of(seq, prev, tenant, detail=""):
    body = {"action": "keys.create", "client_address": "", "completion_tokens": 0, "detail": detail, "outcome": "done", "prompt_tokens": 0,
            "request_id": "", "salt": secrets.token_hex(16), "target": "k1", "tenant": tenant, "who": "admin"}
    record = {"seq": seq, "unix_ms": 1700000000000 + seq, "prev": prev,
              "sha256": sha256(json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)), "body": body}
    return json.dumps(record, ensure_ascii=False), sha256(f"{seq}\n{record['unix_ms']}\n{prev}\n{record['sha256']}")


@pytest.fixture
def log(tmp_path):
    prev, lines = "0" * 64, []
    for seq in range(1, 9):
        line, prev = line_of(seq, prev, "acme" if seq % 2 else "öther", 'a "quote"\n' * seq)
        lines.append(line)
    (tmp_path / "audit-000000000000001.jsonl").write_text("".join(line + "\n" for line in lines[:5]))
    (tmp_path / "audit-000000000000006.jsonl").write_text("".join(line + "\n" for line in lines[5:]))
    return tmp_path, prev


def audit(*arguments):
    return server_process.sextant("admin", "audit", *arguments)


def test_a_log_is_verified_exported_and_a_tenant_erased(log):
    folder, head = log
    run = audit("verify", "--audit-dir", folder, "--json", "--expect-head", head)
    report = json.loads(run.stdout)
    assert run.returncode == 0 and report["problems"] == [] and report["head"] == head
    assert (report["records"], report["first_seq"], report["last_seq"], report["files"]) == (8, 1, 8, 2)
    exported = [json.loads(line) for line in audit("export", "--audit-dir", folder, "--tenant", "acme").stdout.splitlines()]
    assert [record["seq"] for record in exported] == [1, 3, 5, 7] and exported[1]["detail"] == 'a "quote"\n' * 3
    assert "erased 4 records" in audit("erase", "--audit-dir", folder, "--tenant", "acme").stdout
    assert not any("acme" in path.read_text() for path in folder.glob("*.jsonl"))
    assert json.loads(audit("verify", "--audit-dir", folder, "--json").stdout)["head"] == head
    assert len(audit("export", "--audit-dir", folder).stdout.splitlines()) == 4


def test_what_was_changed_or_cut_off_is_found(log):
    folder, head = log
    first, second = sorted(folder.glob("*.jsonl"))
    good = first.read_text()
    first.write_text(good.replace("k1", "k2", 1))
    run = audit("verify", "--audit-dir", folder)
    assert run.returncode == 1 and "audit-000000000000001.jsonl:1: the record's body was changed" in run.stdout
    first.write_text(good)
    second.write_text(second.read_text().splitlines(True)[0])
    assert audit("verify", "--audit-dir", folder).returncode == 0
    run = audit("verify", "--audit-dir", folder, "--expect-head", head)
    assert run.returncode == 1 and "cut off" in run.stdout
    second.write_bytes(b"\xff\x00{")
    assert audit("verify", "--audit-dir", folder).returncode == 1


@pytest.mark.parametrize("arguments,named", [
    (["verify"], "--audit-dir"), (["burn", "--audit-dir", "x"], "action"), ([], "action"), (["erase", "--audit-dir", "x"], "--tenant"),
    (["verify", "--audit-dir", "/nowhere"], "/nowhere"), (["verify", "--audit-dir", ".", "--audit-key-file", "/nowhere"], "/nowhere"),
    (["export", "--audit-dir", ".", "--expect-head", "x"], "--expect-head"),
])
def test_bad_arguments_end_with_two(arguments, named):
    run = audit(*arguments)
    assert run.returncode == 2 and named in run.stderr


def test_erasing_waits_for_nobody_who_writes(log):
    folder, _ = log
    with subprocess.Popen(["flock", folder / ".lock", "cat"], stdin=subprocess.PIPE) as holder:
        while subprocess.run(["flock", "--nonblock", folder / ".lock", "true"], check=False).returncode == 0:
            pass
        run = audit("erase", "--audit-dir", folder, "--tenant", "acme")
        holder.stdin.close()
    assert run.returncode == 1 and "another process writes" in run.stderr

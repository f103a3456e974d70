"""A device that gives no results: everyone is answered, the steps are on record, the process ends with an error.

Provoked without a hook: a time-out that no step of this device can keep.
"""

import json
import re
import stat
import threading

import pytest
from server_process import Server, model_id, sextant


CPU = ("--device", "cpu", "--step-timeout-s", "0.0001")
# Two steps overlap here, and the engine's thread waits for the stream.
EMULATED = ("--device", "cuda-emulated", "--step-timeout-s", "0.02", "--max-model-len", "256", "--max-num-seqs", "4",
            "--max-num-batched-tokens", "16", "--kv-cache-memory-bytes", "16M")


@pytest.mark.parametrize("device", [CPU, EMULATED], ids=["cpu", "cuda-emulated"])
def test_a_step_over_its_deadline_ends_the_server(model, tmp_path, device):
    with Server(model, *device, "--step-dump-dir", str(tmp_path), ready_timeout_s=120) as server:
        name = model_id(server)
        answers, too_late = [], []
        prompts = [f"Once upon a time, in village number {i}, " * 10 for i in range(4)]

        def ask(prompt):
            try:
                answers.append(server.post("/v1/completions", {"model": name, "prompt": prompt, "max_tokens": 50}))
            except ConnectionRefusedError:
                too_late.append(prompt)

        threads = [threading.Thread(target=ask, args=(prompt,)) for prompt in prompts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert server.wait_end(30) == 1
        assert len(answers) + len(too_late) == len(prompts), "each request that was taken got an answer"
        # 500: in flight when the device failed. 503: not taken in any more.
        assert {answer.status for answer in answers} <= {500, 503}
        assert 500 in {answer.status for answer in answers}
        for answer in answers:
            assert answer.error["message"]
        log = server.log()

    assert "the device failed" in log and "step_timeout_s" in log
    dumps = list(tmp_path.iterdir())
    assert len(dumps) == 1
    assert str(dumps[0]) in log
    assert stat.S_IMODE(dumps[0].stat().st_mode) == 0o600
    text = dumps[0].read_text()
    assert "village" not in text, "ids, no text"
    dump = json.loads(text)
    assert dump["version"] == 1
    assert re.match(r"step \d+ \(\d+ sequences, \d+ tokens\) gave no result", dump["reason"])
    assert dump["config"]["step_timeout_s"] == float(device[3])
    assert dump["steps"] and dump["steps"][0]["token_ids"]
    known = {sequence["sequence_id"] for sequence in dump["sequences"]}
    assert {scheduled["sequence_id"] for step in dump["steps"] for scheduled in step["sequences"]} == known

    # Run again under the same deadline they fail again; given time they do not.
    again = sextant("bench", "engine", "--replay", dumps[0], timeout=120)
    assert again.returncode == 1 and "failed again" in again.stdout
    given_time = sextant("bench", "engine", "--replay", dumps[0], "--step-timeout-s", "0", "--json", timeout=120)
    assert given_time.returncode == 0, given_time.stderr
    replayed = json.loads(given_time.stdout)
    assert replayed["failed_again"] is False and replayed["reason"] == dump["reason"]
    assert [step["step_id"] for step in replayed["steps"]] == [step["step_id"] for step in dump["steps"]]


def test_streams_end_with_an_error_and_nothing_is_written_when_switched_off(model, tmp_path):
    with Server(model, *CPU, "--step-dump-dir", "", env={"TMPDIR": str(tmp_path)}) as server:
        body = {"model": model_id(server), "prompt": "Once", "max_tokens": 50, "stream": True}
        answer = server.post("/v1/completions", body)
        assert server.wait_end(30) == 1
        assert "error" in answer.body
        assert "written to" not in server.log()
    assert not list(tmp_path.iterdir())

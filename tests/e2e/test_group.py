"""Several real processes form one group over the control channel, on this machine."""

import contextlib
import re
import signal
import socket
import threading
import time

import pytest
import server_process
from golden_tokens import expect_reference_tokens
from server_process import Server

TINY = server_process.ROOT / "tests" / "data" / "golden" / "tiny" / "llama"
SMALL = ("--device", "cpu", "--max-model-len", "256", "--max-num-seqs", "4", "--kv-cache-memory-bytes", "16M",
         "--served-model-name", "smollm2", "--step-dump-dir", "")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def group(model, num_nodes, *arguments, env=None, small=SMALL):
    """All nodes, ready; the leader first."""
    common = (*small, "--nnodes", num_nodes, "--master-port", free_port(), *arguments)
    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(Server(model, *common, "--node-rank", rank, env=env, wait=False))
                 for rank in range(num_nodes)]
        for node in nodes:
            node.wait_ready(180)
        yield nodes


def expect_golden(leader, golden, is_full, device="cpu"):
    expect_reference_tokens(leader, golden, device, *((None, 32) if is_full else (3, 8)), fewest_tokens=1)


def wait_for_ranks(leader, count):
    """Ranks are in the metrics from their first heartbeat on."""
    deadline = time.monotonic() + 30
    while len({labels for name, labels in leader.metrics() if name == "sextant_rank_step_seconds"}) != count:
        assert time.monotonic() < deadline, leader.get("/metrics").body
        time.sleep(0.05)


@pytest.mark.parametrize("num_nodes,parallel", [(2, ("--pipeline-parallel-size", 2)),
                                                (3, ("--tensor-parallel-size", 3)),
                                                (2, ("--tensor-parallel-size", 3, "--pipeline-parallel-size", 2))],
                         ids=["pp2", "tp3", "tp3-pp2"])
def test_processes_serve_one_model(model, golden, is_full, num_nodes, parallel):
    with group(model, num_nodes, *parallel) as nodes:
        leader, followers = nodes[0], nodes[1:]
        expect_golden(leader, golden, is_full)
        wait_for_ranks(leader, 6 if len(parallel) == 4 else num_nodes)
        assert followers[0].get("/v1/models").status == 404, "no API on a follower"
        assert followers[0].get("/health").status == 200
        # A follower that is asked to stop follows for as long as the leader serves.
        followers[0].terminate()
        expect_golden(leader, golden, False)
        leader.terminate()
        assert leader.wait_end() == 0, leader.log()
        for follower in followers:
            assert follower.wait_end() == 0, follower.log()
            assert "the leader has ended" in follower.log()


def test_a_killed_follower_is_named_and_everyone_is_answered(model):
    with group(model, 2, "--pipeline-parallel-size", 2, "--collective-timeout", 30) as (leader, follower):
        answers = []

        def stream():
            answers.append(leader.post("/v1/completions", {"model": "smollm2", "prompt": "Once", "max_tokens": 200,
                                                           "ignore_eos": True, "stream": True}))

        thread = threading.Thread(target=stream)
        thread.start()
        leader.wait_metric("vllm:num_requests_running", 1)
        begin = time.monotonic()
        follower.process.kill()
        assert leader.wait_end(30) == 1
        assert time.monotonic() - begin < 30, "within the time-out"
        thread.join(30)
        assert "error" in answers[0].body, "a stream that was cut does not look complete"
        assert re.search(r"node 1 \(rank 1, 127\.0\.0\.1:\d+\) is missing", leader.log()), leader.log()


def test_a_killed_leader_is_named(model):
    with group(model, 2, "--pipeline-parallel-size", 2) as (leader, follower):
        leader.process.kill()
        assert follower.wait_end(30) == 1
        assert re.search(r"the leader, node 0 \(rank 0, [^)]*\), is missing", follower.log()), follower.log()


def test_a_stopped_follower_lags_in_the_metrics_then_is_missing(model):
    with group(model, 2, "--pipeline-parallel-size", 2, "--collective-timeout", 8) as (leader, follower):
        wait_for_ranks(leader, 2)
        follower.terminate(signal.SIGSTOP)
        thread = threading.Thread(target=lambda: leader.post("/v1/completions", {
            "model": "smollm2", "prompt": "Once", "max_tokens": 5}))
        thread.start()
        rank_1 = (("node", "1"), ("rank", "1"))
        deadline = time.monotonic() + 7
        while (lag := leader.metrics()[("sextant_rank_lag_seconds", rank_1)]) == 0:
            assert time.monotonic() < deadline, "the slow rank is not named"
            time.sleep(0.05)
        assert lag > 0
        assert leader.metrics()[("sextant_rank_lag_seconds", (("node", "0"), ("rank", "0")))] == 0
        assert leader.wait_end(60) == 1
        thread.join(30)
        assert re.search(r"node 1 \(rank 1, 127\.0\.0\.1:\d+\) is missing: nothing was heard of it", leader.log())
        follower.terminate(signal.SIGCONT)
        assert follower.wait_end(30) == 1


def test_a_node_that_was_started_otherwise_is_refused_with_both_values(model):
    port = free_port()

    def start(rank, *arguments, path=model, nnodes=2, pipeline=2, env=None):
        return Server(path, *SMALL, "--pipeline-parallel-size", pipeline, "--nnodes", nnodes, "--node-rank", rank,
                      "--master-port", port, *arguments, env=env, wait=False)

    with start(0) as leader:
        for refused, reason in [
                (dict(nnodes=3, pipeline=3), "nnodes is '3' on node 1 and '2' on node 0"),
                (dict(pipeline=4), "pipeline_parallel_size is '4' on node 1 and '2' on node 0"),
                (dict(path=TINY), r"model_revision is '[0-9a-f]{32}' on node 1 and '[0-9a-f]{32}' on node 0"),
                (dict(env={"SEXTANT_GROUP_SECRET": "sesame"}), "the group's secret differs")]:
            with start(1, **refused) as node:
                assert node.wait_end(60) == 1
                assert re.search(reason, node.log()), node.log()
                assert "memory plan" not in node.log(), "before loading"
        with start(1, "--master-addr", "localhost") as node:
            assert node.wait_end(60) == 1
            assert "master_addr is 'localhost' on node 1 and '127.0.0.1' on node 0" in node.log()
        assert "sesame" not in leader.log()
        # The leader has refused them all in its log, and takes the right one.
        with start(1) as follower:
            leader.wait_ready(60)
            follower.wait_ready(60)
            assert leader.log().count("refused 127.0.0.1:") == 5


def test_a_leader_that_is_not_there_is_named(model):
    port = free_port()
    with Server(model, *SMALL, "--pipeline-parallel-size", 2, "--nnodes", 2, "--node-rank", 1, "--master-port", port,
                "--group-join-timeout", 1, wait=False) as node:
        assert node.wait_end(60) == 1
        assert f"the group's leader was not found at 127.0.0.1:{port}" in node.log()


@pytest.mark.parametrize("arguments,message", [
    (("--nnodes", 2), "nnodes (2) must divide the 1 ranks"),
    (("--nnodes", 2, "--pipeline-parallel-size", 2, "--node-rank", 2), "--node-rank must be from 0 to nnodes - 1 (1), not 2"),
    (("--nnodes", 2, "--pipeline-parallel-size", 2, "--master-addr", "10.0.0.1"), "SEXTANT_GROUP_SECRET"),
    (("--master-port", 70000), "--master-port must be between 1 and 65535"),
    (("--pipeline-parallel-size", 0), "--pipeline-parallel-size must be between 1 and 1024"),
])
def test_settings_that_cannot_be_are_refused(model, arguments, message):
    answer = server_process.sextant("serve", model, *arguments)
    assert answer.returncode == 2
    assert message in answer.stderr


def test_the_secret_is_not_printed(model):
    answer = server_process.sextant("serve", model, "--print-config", env={"SEXTANT_GROUP_SECRET": "sesame"})
    assert answer.returncode == 0 and "sesame" not in answer.stdout and '"group_secret": "***"' in answer.stdout


@pytest.mark.parametrize("parallel,num_devices", [(("--pipeline-parallel-size", 2), 1),
                                                  (("--tensor-parallel-size", 3, "--pipeline-parallel-size", 2), 3)],
                         ids=["pp2", "tp3-pp2"])
def test_processes_under_the_emulator(model, golden, is_full, parallel, num_devices):
    if num_devices == 1 and not is_full:
        pytest.skip("the other has stages and processes too: by --full")
    small = ("--device", "cuda-emulated", *SMALL[2:])
    with group(model, 2, *parallel, env={"SEXTANT_SIMT_DEVICES": str(num_devices)}, small=small) as (leader, follower):
        expect_golden(leader, golden, is_full, "cuda-emulated")
        leader.terminate()
        assert leader.wait_end() == 0, leader.log()
        assert follower.wait_end() == 0, follower.log()

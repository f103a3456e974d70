"""A model cut between ranks of one process, through the whole program: on the CPU, where anybody can see it, and on the emulator."""

import re
import time

import pytest
import server_process
from golden_tokens import expect_reference_tokens

SMALL = ("--served-model-name", "smollm2", "--max-model-len", "512", "--max-num-seqs", "4")


@pytest.fixture(scope="module")
def three_ranks(model):
    with server_process.Server(model, *SMALL, "--device", "cpu", "--tensor-parallel-size", "3") as running:
        yield running


def test_tokens_are_the_references(three_ranks, golden):
    expect_reference_tokens(three_ranks, golden, "cpu", num_cases=3, most_tokens=16)


def test_seeded_samples_do_not_depend_on_what_else_runs(three_ranks):
    def ask(n):
        answer = three_ranks.client().completions.create(
            model="smollm2", prompt="Once upon a time", max_tokens=8, temperature=0.8, seed=7, n=n, frequency_penalty=0.5)
        return [choice.text for choice in answer.choices]
    assert ask(3)[0] == ask(1)[0]


def test_each_ranks_plan_and_the_traffic_are_printed(three_ranks):
    log = three_ranks.log()
    for rank in range(3):
        assert f"rank {rank} of 3" in log
    assert log.count("KV cache") == 3
    assert "all_reduce    140,544 B   61 calls: 576 * 4 + 60 * 576 * 4 a token" in log


def collective_totals(server):
    return {(dict(labels)["kind"], name.split("_")[1]): value for (name, labels), value in server.metrics().items()
            if name.startswith("sextant:collective_")}


def wait_grown(server, before, expected):
    """Ranks without results may count a step a moment after its answer; more than expected never goes away."""
    deadline = time.monotonic() + 30
    while True:
        after = collective_totals(server)
        grown = {key: after[key] - before[key] for key in expected}
        if grown == expected or time.monotonic() > deadline:
            return grown
        time.sleep(0.02)


def test_metrics_count_the_bytes_that_the_log_promises(three_ranks):
    three_ranks.client().completions.create(model="smollm2", prompt=[1, 2, 3], max_tokens=4, temperature=0)
    three_ranks.wait_metric("vllm:num_requests_running", 0)
    before = collective_totals(three_ranks)
    three_ranks.client().completions.create(model="smollm2", prompt=[4, 5, 6, 7, 8], max_tokens=6, temperature=0,
                                            extra_body={"ignore_eos": True})
    # Five tokens of prompt and five more that were fed back: ten tokens, six rows of logits; three ranks. Of the prompt's rows one
    # is wanted: the last layer's two sums are of that row alone.
    expected = {("all_reduce", "bytes"): 3 * (10 * 140544 - 2 * 4 * 576 * 4), ("all_reduce", "calls"): 3 * 6 * 61,
                ("gather", "bytes"): 3 * 6 * 49152 * 4}
    assert wait_grown(three_ranks, before, expected) == expected


def test_a_degree_that_does_not_divide_is_refused_with_those_that_do(model):
    answer = server_process.sextant("serve", model, "--device", "cpu", "--port", "0", "--tensor-parallel-size", "2")
    assert answer.returncode == 1
    assert "tensor_parallel_size 2 does not divide" in answer.stderr
    assert "degrees that do: 1, 3" in answer.stderr


def test_too_few_devices_are_refused(model):
    answer = server_process.sextant("serve", model, "--device", "cuda-emulated", "--port", "0", "--tensor-parallel-size", "3")
    assert answer.returncode == 1
    assert re.search(r"rank [12]: CUDA device [12] is asked for, but this machine shows 1", answer.stderr), answer.stderr


def test_the_emulators_devices_serve_with_steps_in_flight_and_graphs(model, golden):
    arguments = (*SMALL, "--device", "cuda-emulated", "--tensor-parallel-size", "3", "--kv-cache-memory-bytes", "8M")
    with server_process.Server(model, *arguments, env={"SEXTANT_SIMT_DEVICES": "3"}, ready_timeout_s=180) as server:
        expect_reference_tokens(server, golden, "cuda-emulated", num_cases=1, most_tokens=5)
        # Replayed graphs count as their record says: five tokens of prompt in one step, then two of one token each. Of the
        # prompt's rows one is wanted: the last layer's two sums are of that row alone.
        logged = server.log()
        assert "all_reduce      2,304 B   1 call: 576 * 4 a token" in logged, logged
        assert "all_gather    207,360 B   60 calls: 60 * 3 * 576 * 2 a token" in logged, logged
        before = collective_totals(server)
        server.client().completions.create(model="smollm2", prompt=[4, 5, 6, 7, 8], max_tokens=3, temperature=0,
                                           extra_body={"ignore_eos": True})
        expected = {("all_reduce", "bytes"): 3 * 7 * 576 * 4, ("all_reduce", "calls"): 3 * 3,
                    ("all_gather", "bytes"): 3 * (7 * 60 - 2 * 4) * 3 * 576 * 2, ("all_gather", "calls"): 3 * 3 * 60,
                    ("gather", "bytes"): 3 * 3 * 49152 * 4, ("gather", "calls"): 3 * 3,
                    ("broadcast", "bytes"): 3 * 3 * 4, ("broadcast", "calls"): 3 * 3}
        assert wait_grown(server, before, expected) == expected

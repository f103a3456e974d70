"""The CUDA backend through the whole program, on the emulator that builds without nvcc hold."""

import pytest
import server_process
from golden_tokens import expect_reference_tokens

SMALL = ("--device", "cuda-emulated", "--max-model-len", "256", "--max-num-seqs", "4", "--kv-cache-memory-bytes", "16M")


@pytest.fixture(scope="module")
def emulated(model):
    with server_process.Server(model, "--served-model-name", "smollm2", *SMALL, ready_timeout_s=120) as running:
        yield running


def test_tokens_are_the_references(emulated, golden):
    expect_reference_tokens(emulated, golden, "cuda-emulated", num_cases=2, most_tokens=6)


def test_sampling_with_penalties_and_logprobs_in_a_batch(emulated):
    answer = emulated.client().completions.create(
        model="smollm2", prompt="Once upon a time", max_tokens=4, temperature=0.8, seed=7, n=3, logprobs=3,
        frequency_penalty=0.5, extra_body={"repetition_penalty": 1.1, "top_k": 40, "min_p": 0.01})
    again = emulated.client().completions.create(
        model="smollm2", prompt="Once upon a time", max_tokens=4, temperature=0.8, seed=7, n=3, logprobs=3,
        frequency_penalty=0.5, extra_body={"repetition_penalty": 1.1, "top_k": 40, "min_p": 0.01})
    assert [c.text for c in answer.choices] == [c.text for c in again.choices]
    for choice in answer.choices:
        assert len(choice.logprobs.tokens) == 4
        assert all(len(top) >= 3 for top in choice.logprobs.top_logprobs)


def test_the_log_names_the_emulator(emulated):
    assert "cuda-emulated" in emulated.log()


def test_cuda_without_cuda_is_one_line(model):
    answer = server_process.sextant("serve", model, "--device", "cuda", "--port", "0")
    assert answer.returncode == 1
    message = [line for line in answer.stderr.splitlines() if "error" in line]
    assert len(message) == 1 and "--device cpu" in message[0], answer.stderr


def test_a_device_too_small_says_what_would_fit(model):
    answer = server_process.sextant("serve", model, "--device", "cuda-emulated", "--port", "0",
                                    env={"SEXTANT_SIMT_MEMORY_BYTES": str(220 << 20)})
    assert answer.returncode == 1
    assert "would fit" in answer.stderr, answer.stderr


def test_the_emulator_is_not_in_the_help():
    assert "emulated" not in server_process.sextant("serve", "--help").stdout

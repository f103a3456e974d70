"""A server whose KV cache holds 8-bit integers: the reference's tokens still, and the same ones from a cached prefix."""

import golden_tokens
import pytest
import server_process


@pytest.fixture(scope="module")
def int8_server(model):
    with server_process.Server(model, "--served-model-name", "smollm2", "--device", "cpu", "--kv-cache-dtype", "int8") as running:
        yield running


def answer(server, prompt, **extra):
    extra = {"return_token_ids": True, "ignore_eos": True, **extra}
    return server.client().completions.create(model="smollm2", prompt=prompt, max_tokens=16, temperature=0, extra_body=extra)


def cached_tokens(done):
    details = done.usage.prompt_tokens_details
    return (details and details.cached_tokens) or 0


def test_reference_tokens(int8_server, golden):
    golden_tokens.expect_reference_tokens(int8_server, golden, "cpu", num_cases=None, most_tokens=8)


def test_a_cached_prefix_gives_the_same_tokens(int8_server, golden):
    # Longer than several blocks, and not a whole number of them.
    ids = [token for case in golden["greedy"] for token in case["ids"]][:203]
    first, second = answer(int8_server, ids), answer(int8_server, ids)
    assert cached_tokens(first) == 0
    assert cached_tokens(second) >= 128
    assert second.choices[0].token_ids == first.choices[0].token_ids
    # From the middle of what was cached on, another way to go: the same as for one who may not see what is cached.
    other = ids[:150] + ids[20:60]
    cached = answer(int8_server, other)
    assert cached_tokens(cached) >= 128
    fresh = answer(int8_server, other, cache_salt="another")
    assert cached_tokens(fresh) == 0
    assert fresh.choices[0].token_ids == cached.choices[0].token_ids


def test_a_dtype_that_is_none_is_refused(model):
    done = server_process.sextant("serve", str(model), "--device", "cpu", "--kv-cache-dtype", "int7")
    assert done.returncode == 2
    assert "int8" in done.stderr and "kv-cache-dtype" in done.stderr

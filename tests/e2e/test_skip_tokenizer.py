"""A server without a tokenizer: the same ids as one with it, and clear refusals of what needs text."""

import json
import shutil
import urllib.error
import urllib.request

import golden_tokens
import openai
import pytest
import server_process

TINY = server_process.ROOT / "tests" / "data" / "golden" / "tiny" / "llama"


@pytest.fixture(scope="module")
def ids_server(model):
    with server_process.Server(model, "--served-model-name", "smollm2", "--device", "cpu", "--skip-tokenizer-init") as running:
        yield running


def test_reference_tokens(ids_server, golden):
    golden_tokens.expect_reference_tokens(ids_server, golden, "cpu", num_cases=3, most_tokens=8)


def test_answers_carry_ids_unasked(ids_server, golden):
    prompt = golden["greedy"][0]["ids"]
    done = ids_server.client().completions.create(model="smollm2", prompt=prompt, max_tokens=4, temperature=0, logprobs=1)
    choice = done.choices[0]
    assert choice.text == "" and len(choice.token_ids) == 4
    assert choice.logprobs.tokens == [f"token_id:{token}" for token in choice.token_ids]
    streamed = []
    for chunk in ids_server.client().completions.create(model="smollm2", prompt=prompt, max_tokens=4, temperature=0, stream=True):
        streamed += chunk.choices[0].token_ids
    assert streamed == choice.token_ids
    stopped = ids_server.client().completions.create(model="smollm2", prompt=prompt, max_tokens=4, temperature=0,
                                                     extra_body={"stop_token_ids": [choice.token_ids[1]]})
    assert stopped.choices[0].token_ids == choice.token_ids[:2] and stopped.choices[0].finish_reason == "stop"


def test_text_is_refused(ids_server):
    client = ids_server.client()
    with pytest.raises(openai.BadRequestError, match="list of token ids"):
        client.completions.create(model="smollm2", prompt="Once upon a time")
    with pytest.raises(openai.BadRequestError, match="/v1/completions"):
        client.chat.completions.create(model="smollm2", messages=[{"role": "user", "content": "hi"}])
    with pytest.raises(openai.BadRequestError, match="stop_token_ids"):
        client.completions.create(model="smollm2", prompt=[1, 2], stop=["."])


def test_a_directory_without_a_tokenizer(tmp_path):
    """The reference's tiny models have none: weights and config.json alone."""
    directory = tmp_path / "llama"
    shutil.copytree(TINY, directory)
    refused = server_process.sextant("serve", str(directory), "--device", "cpu")
    assert refused.returncode != 0 and "tokenizer" in refused.stderr
    with server_process.Server(directory, "--served-model-name", "tiny", "--device", "cpu", "--skip-tokenizer-init") as running:
        body = json.dumps({"prompt": [1, 2, 3], "max_tokens": 5, "temperature": 0, "ignore_eos": True}).encode()
        request = urllib.request.Request(running.url + "/v1/completions", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert len(json.load(answer)["choices"][0]["token_ids"]) == 5
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(urllib.request.Request(running.url + "/tokenize", b'{"prompt": "x"}'), timeout=60)

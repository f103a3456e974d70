"""Text completions: every shape of prompt, echo, logprobs, and the reference's tokens."""

import pytest

MODEL = "smollm2"
PROMPT = "Once upon a time"


def complete(client, **options):
    return client.completions.create(**{"model": MODEL, "prompt": PROMPT, "max_tokens": 12, "temperature": 0, **options})


def test_completes(client):
    answer = complete(client)
    assert answer.object == "text_completion"
    assert answer.choices[0].text
    assert answer.usage.completion_tokens == 12
    assert answer.choices[0].finish_reason == "length"


def test_golden_prompts_as_ids(client, golden):
    for case in golden["greedy"]:
        answer = complete(client, prompt=case["ids"], max_tokens=4, extra_body={"return_token_ids": True, "ignore_eos": True})
        ours = answer.choices[0].token_ids
        for position, step in enumerate(case["steps"][:4]):
            if ours[position] != step["id"]:
                assert step["top"][0][1] - step["top"][1][1] < 0.5, (case["prompt"], position)
                break


def test_every_shape_of_prompt(server, client):
    ids = server.post("/tokenize", {"model": MODEL, "prompt": PROMPT, "add_special_tokens": False}).json["tokens"]
    text = complete(client).choices[0].text
    assert complete(client, prompt=ids).choices[0].text == text
    assert [c.text for c in complete(client, prompt=[PROMPT, PROMPT]).choices] == [text, text]
    assert [c.text for c in complete(client, prompt=[ids, ids]).choices] == [text, text]


def test_several_prompts_times_n(client):
    answer = complete(client, prompt=["One", "Two", "Three"], n=2, temperature=0.9, seed=1)
    assert [choice.index for choice in answer.choices] == list(range(6))


def test_echo(client):
    plain = complete(client).choices[0].text
    assert complete(client, echo=True).choices[0].text == PROMPT + plain
    streamed = "".join(chunk.choices[0].text for chunk in complete(client, echo=True, stream=True) if chunk.choices)
    assert streamed == PROMPT + plain


def test_echo_with_logprobs_scores_the_prompt(client):
    answer = complete(client, echo=True, logprobs=1, max_tokens=1)
    logprobs = answer.choices[0].logprobs
    assert logprobs.token_logprobs[0] is None
    assert len(logprobs.tokens) == answer.usage.prompt_tokens + 1
    assert all(value <= 0 for value in logprobs.token_logprobs[1:])
    assert "".join(logprobs.tokens) == answer.choices[0].text
    assert logprobs.text_offset == sorted(logprobs.text_offset)


def test_logprobs(client):
    logprobs = complete(client, logprobs=2).choices[0].logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.top_logprobs) == 12
    for token, value, top in zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs):
        assert top[token] == pytest.approx(value)
        assert value == max(top.values())


def test_streaming(client):
    chunks = list(complete(client, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == complete(client).choices[0].text
    assert chunks[-1].usage.completion_tokens == 12


def test_stop_token_ids(client):
    ids = complete(client, extra_body={"return_token_ids": True}).choices[0].token_ids
    answer = complete(client, extra_body={"stop_token_ids": [ids[5]], "return_token_ids": True})
    assert answer.choices[0].finish_reason == "stop"
    assert len(answer.choices[0].text) < len(complete(client).choices[0].text)


def test_penalties_change_a_repetitive_text(client):
    prompt = "la la la la la la la la"
    assert complete(client, prompt=prompt, frequency_penalty=2.0, max_tokens=24).choices[0].text != \
        complete(client, prompt=prompt, max_tokens=24).choices[0].text


def test_top_k_one_is_greedy(client):
    assert complete(client, temperature=1.5, seed=9, extra_body={"top_k": 1}).choices[0].text == complete(client).choices[0].text

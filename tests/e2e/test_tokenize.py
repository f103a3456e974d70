"""/tokenize and /detokenize with vLLM's fields, against the reference tokenizer's cases."""

MODEL = "smollm2"


def tokenize(server, **fields):
    answer = server.post("/tokenize", {"model": MODEL, **fields})
    assert answer.status == 200, answer.body
    return answer.json


def test_golden_cases_both_ways(server, golden):
    for case in golden["tokenize"]:
        answer = tokenize(server, prompt=case["text"], add_special_tokens=False)
        assert answer["tokens"] == case["ids"], case["text"]
        assert answer["count"] == len(case["ids"])
        if case["ids"]:
            back = server.post("/detokenize", {"model": MODEL, "tokens": case["ids"]}).json
            assert back["prompt"] == case["decoded"]


def test_golden_chats(server, golden):
    for case in golden["chat"]:
        answer = tokenize(server, messages=case["messages"], add_generation_prompt=True)
        assert answer["tokens"] == case["ids"]


def test_token_strings_and_the_context(server):
    answer = tokenize(server, prompt="Hello world", return_token_strs=True)
    assert len(answer["token_strs"]) == answer["count"]
    assert answer["max_model_len"] == server.get("/v1/models").json["data"][0]["max_model_len"]


def test_bad_input(server):
    assert server.post("/tokenize", {"model": MODEL}).status == 400
    assert server.post("/tokenize", {"model": "nope", "prompt": "x"}).status == 404
    for tokens in ([10**9], [-1], ["a"], "x", None):
        assert server.post("/detokenize", {"model": MODEL, "tokens": tokens}).status == 400, tokens


def test_a_megabyte_of_text(server):
    answer = tokenize(server, prompt="All work and no play. " * 50_000)
    assert answer["count"] > 100_000

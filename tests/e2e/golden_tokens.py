"""What a server says to the prompts of the golden file, against the reference's tokens."""


# Least gap, in nats, between the reference's two likeliest tokens from which its token must come at every step: by the activations of
# the path, as in golden_test.cpp (the CPU multiplies block-quantised weights with int8).
LEAST_GAP = {"cuda-emulated": 0.2, "cpu": 0.5}


def sure_tokens(case, most, least_gap):
    """The reference's tokens up to the first that is not sure."""
    ids = []
    for step in case["steps"][:most]:
        if step["top"][0][1] - step["top"][1][1] < least_gap:
            break
        ids.append(step["id"])
    return ids


def expect_reference_tokens(server, golden, device, num_cases, most_tokens, fewest_tokens=4):
    """Greedy answers to the first `num_cases` prompts (None: to all) of which the rule decides `fewest_tokens` or more."""
    judged = 0
    for case in golden["greedy"]:
        expected = sure_tokens(case, most_tokens, LEAST_GAP[device])
        if len(expected) < fewest_tokens:
            continue
        answer = server.client().completions.create(model="smollm2", prompt=case["ids"], max_tokens=len(expected), temperature=0,
                                                    extra_body={"return_token_ids": True})
        assert answer.choices[0].token_ids == expected, case["ids"]
        judged += 1
        if judged == num_cases:
            break
    assert judged == num_cases or (num_cases is None and judged >= 3)

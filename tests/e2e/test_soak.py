"""200 clients stream at once and a third of them hang up at random; ten rounds. Nobody else may notice, no block may
leak, and the process may not grow."""

import asyncio
import json
import os
import random

import pytest
from server_process import Server, model_id

CLIENTS = 200
TOKENS = 16


async def one_client(port, body, hang_up_after):
    """Reads a stream to its end, or closes after so many events. Gives (events, complete, status line)."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"
                     b"Content-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        if hang_up_after == 0:
            writer.transport.abort()
            return 0, False, b""
        status = await reader.readline()
        events = 0
        complete = False
        while line := await reader.readline():
            if line.startswith(b"data: [DONE]"):
                complete = True
            elif line.startswith(b"data: "):
                assert not line.startswith(b'data: {"error"'), line
                events += 1
                if hang_up_after is not None and events >= hang_up_after:
                    writer.transport.abort()
                    return events, False, status
        return events, complete, status
    finally:
        writer.close()


async def one_round(port, name, random_source, num_round):
    tasks, staying = [], []
    for i in range(CLIENTS):
        leaves = i % 3 == 0
        hang_up_after = random_source.choice([0, 1, 1, 2, 3, 5, 10]) if leaves else None
        body = json.dumps({"model": name, "prompt": f"Round {num_round}, client {i}: " + "word " * random_source.randint(0, 20),
                           "max_tokens": TOKENS, "ignore_eos": True, "stream": True, "temperature": 0.8,
                           "seed": i, "stream_options": {"include_usage": True}}).encode()
        tasks.append(one_client(port, body, hang_up_after))
        staying.append(not leaves)
    results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 600)
    for result, stays in zip(results, staying):
        if stays:
            assert not isinstance(result, BaseException), repr(result)
            events, complete, status = result
            assert b" 200 " in status and complete, (status, events)
            assert events >= 2


def test_aborting_clients_among_two_hundred(model, is_full):
    seed = int(os.environ.get("SEXTANT_TEST_SEED") or random.randrange(1 << 32))
    print(f"seed {seed}")
    random_source = random.Random(seed)
    rounds = 30 if is_full else 10
    # Memory of the KV cache is taken when a block is first used, and the least recently used block is used next: a cache
    # that the first rounds go through once, or its own growth up to its planned size would hide a leak.
    with Server(model, "--kv-cache-memory-bytes", "192M", "--max-model-len", "2048") as server:
        name = model_id(server)
        resident = []
        for num_round in range(rounds):
            asyncio.run(one_round(server.port, name, random_source, num_round))
            server.wait_metric("vllm:num_requests_running", 0, timeout_s=30)
            server.wait_metric("vllm:num_requests_waiting", 0, timeout_s=30)
            server.wait_metric("vllm:kv_cache_usage_perc", 0, timeout_s=30)
            resident.append(server.resident_bytes())
        # The first rounds fill caches and the allocator's pools; from then on nothing may pile up.
        print("resident MiB per round:", [value >> 20 for value in resident])
        growth = resident[-1] - max(resident[2:5])
        assert growth < 16 << 20, f"grew by {growth >> 20} MiB: {[value >> 20 for value in resident]}"
        assert server.get("/ready").status == 200
        assert server.process.poll() is None
        errors = [value for (sample, labels), value in server.metrics().items()
                  if sample == "vllm:request_success_total" and dict(labels).get("finished_reason") == "error"]
        assert sum(errors) == 0
        server.terminate()
        assert server.wait_end() == 0, "on its way out the server recounts every block"
        for word in ("CHECK", "error:", "integrity"):
            assert word not in server.log(), server.log()[-2000:]


@pytest.mark.skipif("os.environ.get('SEXTANT_FULL_TESTS', '0') != '1'", reason="long: tests/run.sh --full")
def test_aborts_under_memory_pressure(model):
    """A cache that holds a few sequences only: preemption and aborts together."""
    random_source = random.Random(7)
    with Server(model, "--kv-cache-memory-bytes", "24M", "--max-model-len", "512") as server:
        name = model_id(server)
        for num_round in range(3):
            asyncio.run(one_round(server.port, name, random_source, num_round))
            server.wait_metric("vllm:kv_cache_usage_perc", 0, timeout_s=30)
        assert server.metric("vllm:num_preemptions_total") > 0
        server.terminate()
        assert server.wait_end() == 0

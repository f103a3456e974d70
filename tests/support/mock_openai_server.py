"""An OpenAI-style streaming server that lies on purpose or keeps exact times: the independent ground truth of the benchmark client's
tests. asyncio, standard library only. Every socket write is written down with its time.

As a program: mock_openai_server.py [--ttft-ms N] [--tpot-ms N] [--trace FILE] [--fault NAME]; prints its port on the first line.
"""

import argparse
import asyncio
import json
import sys
import time

FAULTS = ("none", "not-streaming", "malformed-chunk", "malformed-http", "error-in-stream", "cut-stream", "no-token", "unavailable",
          "dies", "silent", "multi-token", "token-ids", "no-usage", "one-byte-writes", "serial")


class MockServer:
    """`serial`: one request at a time, each taking ttft_ms: a queue of known capacity."""

    def __init__(self, ttft_ms=20.0, tpot_ms=5.0, fault="none", dies_after=5, models=("mock",)):
        self.ttft_s, self.tpot_s, self.fault, self.dies_after = ttft_ms / 1000, tpot_ms / 1000, fault, dies_after
        self.models = models
        self.trace = []        # {"id", "event": "request" | "token" | "end", "time_ns"} by time.monotonic_ns()
        self.bodies = []
        self.num_requests = 0
        self.lock = None
        self.server = None

    async def start(self, port=0):
        self.lock = asyncio.Lock()
        self.server = await asyncio.start_server(self.connection, "127.0.0.1", port, backlog=4096, limit=1 << 24)
        return self.server.sockets[0].getsockname()[1]

    async def connection(self, reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                line, *headers = head.decode("latin-1").split("\r\n")
                method, target, _ = line.split(" ")
                fields = {name.lower(): value.strip() for name, _, value in (header.partition(":") for header in headers if header)}
                body = await reader.readexactly(int(fields.get("content-length", "0")))
                if not await self.answer(writer, method, target, body):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    @staticmethod
    def plain(writer, status, document):
        body = json.dumps(document).encode()
        writer.write(b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))

    async def answer(self, writer, method, target, body):
        """False: close the connection."""
        if method == "GET" and target == "/v1/models":
            self.plain(writer, b"200 OK", {"object": "list", "data": [{"id": name, "owned_by": "mock"} for name in self.models]})
            return True
        if method == "GET":
            self.plain(writer, b"404 Not Found", {"error": {"message": "no such path"}})
            return True
        request_id = self.num_requests
        self.num_requests += 1
        now_ns = time.monotonic_ns()
        self.trace.append({"id": request_id, "event": "request", "time_ns": now_ns})
        self.bodies.append(body)
        request = json.loads(body)
        fault = self.fault
        if fault == "unavailable":
            self.plain(writer, b"503 Service Unavailable", {"error": {"message": "the queue is full", "code": 503}})
            return True
        if fault == "not-streaming":
            self.plain(writer, b"200 OK", {"choices": [{"text": "all at once"}], "usage": {"completion_tokens": 3}})
            return True
        if fault == "malformed-http":
            writer.write(b"220 mail.example ESMTP\r\n\r\n")
            return False
        if fault == "silent":
            await asyncio.sleep(3600)
        if fault == "serial":
            async with self.lock:
                await asyncio.sleep(self.ttft_s)
            return await self.stream(writer, request, request_id, asyncio.get_running_loop().time(), target)
        return await self.stream(writer, request, request_id, asyncio.get_running_loop().time() + self.ttft_s, target)

    async def stream(self, writer, request, request_id, first_at, target):
        loop = asyncio.get_running_loop()
        is_chat = target.endswith("/chat/completions")
        num_tokens = request.get("max_tokens", 16)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")

        def chunk(data):
            return b"%x\r\n%s\r\n" % (len(data), data)

        def event(document):
            return chunk(b"data: " + json.dumps(document).encode() + b"\n\n")

        async def send(data, what):
            # Before the bytes are handed over: write() may send them at once, and a client may read them before it returns.
            self.trace.append({"id": request_id, "event": what, "time_ns": time.monotonic_ns()})
            if self.fault == "one-byte-writes":
                for i in range(len(data)):
                    writer.write(data[i:i + 1])
                    await writer.drain()
            else:
                writer.write(data)

        def choice(text, finish, ids=None):
            content = {"delta": {"content": text} if text else {}} if is_chat else {"text": text}
            if ids is not None:
                content["token_ids"] = ids
            return {"id": "x", "object": "chunk", "model": "mock", "choices": [{"index": 0, **content, "finish_reason": finish}]}

        if is_chat:
            writer.write(event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}))
        per_event = 4 if self.fault == "multi-token" else 1
        step = 0
        for begin in range(0, num_tokens, per_event):
            delay = first_at + step * self.tpot_s - loop.time()
            if delay > 0:
                await asyncio.sleep(delay)
            step += 1
            if self.fault == "no-token":
                continue
            if self.fault == "malformed-chunk" and begin == 2:
                await send(chunk(b"data: {\"choices\": [{\"text\": \"a\"\n\n"), "token")
                return False
            if self.fault == "error-in-stream" and begin == 2:
                await send(event({"error": {"message": "the device failed", "type": "server_error"}}), "token")
                return False
            if self.fault == "cut-stream" and begin == 2:
                return False
            if self.fault == "dies" and self.num_requests > self.dies_after and begin == 2:
                self.server.close()
                sys.stdout.flush()
                import os
                os._exit(7)
            count = min(per_event, num_tokens - begin)
            is_last = begin + count >= num_tokens
            ids = list(range(begin, begin + count)) if self.fault == "token-ids" else None
            await send(event(choice(" word" * count, "length" if is_last else None, ids)), "token")
        if request.get("stream_options", {}).get("include_usage") and self.fault not in ("no-usage", "token-ids"):
            usage = {"prompt_tokens": 11, "completion_tokens": num_tokens, "total_tokens": 11 + num_tokens}
            await send(event({"choices": [], "usage": usage}), "usage")
        await send(chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n", "end")
        return True


async def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ttft-ms", type=float, default=20)
    parser.add_argument("--tpot-ms", type=float, default=5)
    parser.add_argument("--fault", choices=FAULTS, default="none")
    parser.add_argument("--dies-after", type=int, default=5)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--trace", help="where to write the trace and the bodies as JSON when standard input ends")
    arguments = parser.parse_args()
    server = MockServer(arguments.ttft_ms, arguments.tpot_ms, arguments.fault, arguments.dies_after)
    print(await server.start(arguments.port), flush=True)
    # Ends with its parent: when standard input closes.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    if arguments.trace:
        with open(arguments.trace, "w", encoding="utf-8") as file:
            json.dump({"trace": server.trace, "bodies": [body.decode() for body in server.bodies]}, file)


if __name__ == "__main__":
    asyncio.run(main())

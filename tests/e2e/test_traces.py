"""Traces as a collector gets them (OTLP/HTTP JSON, parsed with opentelemetry-proto), and the trace context that requests carry."""

import base64
import gzip
import http.server
import json
import re
import threading
import time

import pytest
from gateway_support import bearer, complete, make_key, wait_until
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from server_process import Server, sextant

TIMES = ("--time", "constant:ttft=30ms,tpot=5ms")
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


def with_base64_ids(value):
    """OTLP's JSON has ids in hexadecimal where protobuf's own has base64 (OTLP 1.x, "JSON Protobuf Encoding")."""
    if isinstance(value, dict):
        return {key: base64.b64encode(bytes.fromhex(inner)).decode() if key in ("traceId", "spanId", "parentSpanId")
                else with_base64_ids(inner) for key, inner in value.items()}
    return [with_base64_ids(inner) for inner in value] if isinstance(value, list) else value


class Collector:
    """Parses each post strictly: an unknown field is an error. Answers `status`."""

    def __init__(self):
        self.status, self.delay_s, self.requests, self.errors, self.headers = 200, 0, [], [], []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                time.sleep(outer.delay_s)
                if outer.status == 200:
                    outer.headers.append(dict(self.headers))
                    try:
                        assert self.path == "/v1/traces" and self.headers["Content-Type"] == "application/json"
                        outer.requests.append(json_format.ParseDict(with_base64_ids(json.loads(body)), ExportTraceServiceRequest()))
                    except Exception as error:  # told by the test, not by a thread
                        outer.errors.append(repr(error))
                self.send_response(outer.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def spans(self):
        assert not self.errors
        return [span for request in list(self.requests) for resource in request.resource_spans
                for scope in resource.scope_spans for span in scope.spans]

    def of(self, name):
        return [span for span in self.spans() if span.name == name]


@pytest.fixture
def collector():
    running = Collector()
    yield running
    running.close()


def attributes(span):
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


def serve(collector, *arguments, **options):
    return Server(None, *TIMES, "--otlp-traces-endpoint", collector.url, *arguments, verb="simulate", **options)


def ask(server, headers=None, path="/v1/chat/completions", **fields):
    body = {"model": "bytes", "max_tokens": 20, "seed": 1, "ignore_eos": True, **fields}
    body |= {"messages": [{"role": "user", "content": "hello"}]} if "chat" in path else {"prompt": "hello"}
    return server.post(path, body, headers={"Content-Type": "application/json", **(headers or {})})


def test_a_request_is_a_span_with_its_phases_below(collector):
    begin = time.time_ns()
    with serve(collector) as server:
        answer = ask(server, {"traceparent": TRACEPARENT, "tracestate": "vendor=1", "X-Request-Id": "mine"})
        end = time.time_ns()
        assert answer.status == 200
        wait_until(lambda: len(collector.spans()) >= 4 and collector.of("decode"), "the spans have come")
        [request] = collector.of("POST /v1/chat/completions")
        phases = [collector.of(name) for name in ("queue", "prefill", "decode")]
    assert request.trace_id.hex() == TRACE and request.parent_span_id.hex() == PARENT and request.trace_state == "vendor=1"
    assert request.kind == Span.SPAN_KIND_SERVER and request.status.code == Status.STATUS_CODE_UNSET
    # The answer names the span.
    assert answer.headers["traceparent"] == f"00-{TRACE}-{request.span_id.hex()}-01"
    named = attributes(request)
    usage = answer.json["usage"]
    assert named["gen_ai.operation.name"] == "chat" and named["gen_ai.request.model"] == "bytes"
    assert (named["gen_ai.usage.input_tokens"], named["gen_ai.usage.output_tokens"]) == (usage["prompt_tokens"], usage["completion_tokens"])
    assert [value.string_value for value in named["gen_ai.response.finish_reasons"].values] == ["length"]
    assert named["gen_ai.request.id"] == "mine" and named["http.response.status_code"] == 200
    assert named["http.route"] == "/v1/chat/completions" and named["http.request.method"] == "POST"
    assert begin <= request.start_time_unix_nano < request.end_time_unix_nano <= end + 60e9
    last = request.start_time_unix_nano
    for [span] in phases:
        assert span.parent_span_id == request.span_id and span.trace_id == request.trace_id and span.kind == Span.SPAN_KIND_INTERNAL
        assert last <= span.start_time_unix_nano <= span.end_time_unix_nano <= request.end_time_unix_nano
        last = span.end_time_unix_nano
    [prefill] = phases[1]
    # As the simulator took its time: the first token comes after 30 ms.
    assert prefill.end_time_unix_nano - prefill.start_time_unix_nano >= 25e6
    [resource] = {json_format.MessageToJson(request.resource_spans[0].resource) for request in collector.requests}
    assert '"sextant"' in resource and "service.version" in resource


def test_streams_errors_and_clients_that_leave(collector):
    with serve(collector) as server:
        with server.client().chat.completions.create(model="bytes", messages=[{"role": "user", "content": "x"}], max_tokens=5,
                                                     stream=True) as stream:
            assert list(stream)
        assert ask(server, max_tokens=-1).status == 400
        assert ask(server, path="/v1/completions", max_tokens=1).status == 200
        gone = server.client().completions.create(model="bytes", prompt="x", max_tokens=4000, stream=True, extra_body={"ignore_eos": True})
        next(iter(gone))
        gone.close()
        assert server.post("/generate", {"prompt": "hi", "max_tokens": 3}).status == 200
        wait_until(lambda: len([span for span in collector.spans() if span.kind == Span.SPAN_KIND_SERVER and span.name.startswith("POST")]) >= 5,
                   "all have come")
        chats = collector.of("POST /v1/chat/completions")
        completions = collector.of("POST /v1/completions")
    refused = [span for span in chats if attributes(span)["http.response.status_code"] == 400]
    assert len(chats) == 2 and len(refused) == 1 and refused[0].status.code == Status.STATUS_CODE_UNSET  # a client's fault
    assert not [span for span in collector.spans() if span.parent_span_id == refused[0].span_id]
    left = [span for span in completions if attributes(span).get("error.type") == "client_gone"]
    assert len(left) == 1 and left[0].status.code == Status.STATUS_CODE_ERROR
    one_token = next(span for span in completions if span is not left[0])
    assert {span.name for span in collector.spans() if span.parent_span_id == one_token.span_id} == {"queue", "prefill"}
    ids = [span.span_id for span in collector.spans()]
    assert len(set(ids)) == len(ids)


def test_what_callers_send_as_traceparent(collector):
    with serve(collector) as server:
        for header in ("nonsense", TRACEPARENT.upper(), TRACEPARENT + "-more", "00-" + "0" * 32 + f"-{PARENT}-01", "x" * 5000):
            answer = ask(server, {"traceparent": header}, max_tokens=1)
            assert answer.status == 200
            assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", answer.headers["traceparent"])
            assert TRACE not in answer.headers["traceparent"]
        # Who says that a trace is not sampled is taken at their word; ids go on all the same.
        quiet = ask(server, {"traceparent": TRACEPARENT[:-2] + "00"}, max_tokens=1)
        assert quiet.headers["traceparent"].startswith(f"00-{TRACE}-") and quiet.headers["traceparent"].endswith("-00")
        assert ask(server, max_tokens=1).status == 200
        wait_until(lambda: len(collector.of("POST /v1/chat/completions")) == 6, "all but one have come")
    assert TRACE not in {span.trace_id.hex() for span in collector.spans()}


def test_a_collector_that_is_away_costs_nothing(collector):
    collector.status = 503
    with serve(collector) as server:
        for _ in range(3):
            assert ask(server, max_tokens=1).status == 200
        wait_until(lambda: server.metric("sextant:trace_exporter_up") == 0, "the gauge says it")
        assert ask(server, max_tokens=1).status == 200
        assert server.metric("sextant:trace_spans_exported_total") == 0
        collector.status = 200
        wait_until(lambda: len(collector.of("POST /v1/chat/completions")) == 4, "what was kept has come")
        wait_until(lambda: server.metric("sextant:trace_exporter_up") == 1, "it is up again")
        assert server.metric("sextant:trace_spans_dropped_total") == 0
        collector.status = 400  # it will never take these
        assert ask(server, max_tokens=1).status == 200
        wait_until(lambda: server.metric("sextant:trace_spans_dropped_total") > 0, "they are dropped and counted")
        collector.status = 200
        collector.delay_s = 3600  # it hangs
        assert [ask(server, max_tokens=1).status for _ in range(10)] == [200] * 10
        server.terminate()
        assert server.wait_end() == 0


def test_headers_for_the_collector_are_no_ones_elses(collector):
    with serve(collector, "--log-level", "debug", env={"OTEL_EXPORTER_OTLP_HEADERS": "api-key=hidden-word"}) as server:
        assert ask(server, max_tokens=1).status == 200
        wait_until(lambda: collector.headers, "a post has come")
        assert collector.headers[0]["api-key"] == "hidden-word"
        assert "hidden-word" not in server.log() + server.get("/metrics").body


def test_tenants_are_named_and_keys_are_not(collector, tmp_path):
    key, _ = make_key(tmp_path / "state", "--tenant", "shop")
    with serve(collector, "--state-dir", tmp_path / "state") as server:
        assert complete(server, key).status == 200
        assert complete(server, "sk-wrong").status == 401
        wait_until(lambda: len(collector.of("POST /v1/completions")) == 2, "both have come")
        by_status = {attributes(span)["http.response.status_code"]: attributes(span) for span in collector.of("POST /v1/completions")}
    assert by_status[200]["sextant.tenant"] == "shop" and "sextant.tenant" not in by_status[401]
    assert not [request for request in collector.requests if key[-20:] in str(request) or "sk-wrong" in str(request)]


def test_wrong_endpoints_are_named():
    for endpoint in ("grpc://collector:4317", "collector:4318", "http://user:hidden-word@collector/"):
        run = sextant("serve", "x.gguf", "--otlp-traces-endpoint", endpoint)
        assert run.returncode == 2 and "--otlp-traces-endpoint" in run.stderr and "hidden-word" not in run.stderr, endpoint

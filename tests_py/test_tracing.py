"""OpenTelemetry: spans of loading and of requests, by the conventions for generative AI, and nothing where nobody asks for them."""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from bitnet_rust import BitNetModel, DeadlineError, Engine, ModelNotFoundError, QueueFullError, RequestCanceledError
from bitnet_rust.server import ServerOptions, create_app
from bitnet_rust.tracing import continued
from conftest import TINY, no_tracer_provider
from serving import CHAT

PROMPT = "First Citizen:"
SECRET = "xyzzy"


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """What the program's provider, set for this test, exports."""
    no_tracer_provider(monkeypatch)
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


@pytest.fixture
def engine(tiny: BitNetModel) -> Iterator[Engine]:
    with Engine(tiny) as engine:
        yield engine


def only(spans: Sequence[ReadableSpan]) -> ReadableSpan:
    (span,) = spans
    return span


def parent(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent else None


# --- loading ---------------------------------------------------------------------------------------------------------


def test_loading_is_a_span_with_the_size_of_the_model(exported: InMemorySpanExporter) -> None:
    with trace.get_tracer("program").start_as_current_span("start") as start:
        model = BitNetModel.from_pretrained(TINY)
    load, _ = exported.get_finished_spans()
    assert load.name == f"load {TINY.name}"
    assert parent(load) == start.get_span_context().span_id
    assert load.attributes == {
        "gen_ai.provider.name": "bitnet_rust",
        "gen_ai.request.model": TINY.name,
        "bitnet.model.parameters": model.num_parameters(),
        "bitnet.model.bytes": model.memory_footprint(),
    }
    assert load.status.status_code is StatusCode.UNSET
    assert load.instrumentation_scope is not None
    assert load.instrumentation_scope.name == "bitnet_rust"
    model.close()


def test_a_model_that_cannot_be_loaded_is_an_error(exported: InMemorySpanExporter) -> None:
    with pytest.raises(ModelNotFoundError) as raised:
        BitNetModel.from_pretrained("no-such-model")
    load = only(exported.get_finished_spans())
    assert load.name == "load no-such-model"
    assert (load.status.status_code, load.status.description) == (StatusCode.ERROR, str(raised.value))
    assert load.attributes is not None
    assert load.attributes["error.type"] == "ModelNotFoundError"


# --- generate --------------------------------------------------------------------------------------------------------


def test_a_generation_is_a_span_by_the_convention(tiny: BitNetModel, exported: InMemorySpanExporter) -> None:
    result = tiny.generate(PROMPT, max_new_tokens=5, temperature=0.5, top_k=9, seed=7, details=True)
    span = only(exported.get_finished_spans())
    assert (span.name, span.kind) == (f"text_completion {TINY.name}", SpanKind.INTERNAL)
    attributes = dict(span.attributes or {})
    waited = attributes.pop("gen_ai.response.time_to_first_chunk")
    assert attributes == {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "bitnet_rust",
        "gen_ai.request.model": TINY.name,
        "gen_ai.output.type": "text",
        "gen_ai.request.max_tokens": 5,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_k": 9,
        "gen_ai.request.seed": 7,
        "gen_ai.usage.input_tokens": result.prompt_tokens,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.response.finish_reasons": ("length",),
    }
    (first,) = span.events
    assert first.name == "bitnet.first_token"
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.start_time < first.timestamp <= span.end_time
    assert isinstance(waited, float)
    assert 0 < waited * 1e9 <= span.end_time - span.start_time


def test_a_batch_is_one_span(tiny: BitNetModel, exported: InMemorySpanExporter) -> None:
    results = tiny.generate([PROMPT, "ROMEO:"], max_new_tokens=4, details=True)
    attributes = only(exported.get_finished_spans()).attributes
    assert attributes is not None
    assert attributes["gen_ai.usage.input_tokens"] == sum(result.prompt_tokens for result in results)
    assert attributes["gen_ai.usage.output_tokens"] == 8
    assert attributes["gen_ai.response.finish_reasons"] == ("length", "length")
    assert "gen_ai.request.temperature" not in attributes  # it is greedy


def test_a_stream_is_a_span_of_where_it_was_asked_for(tiny: BitNetModel, exported: InMemorySpanExporter) -> None:
    with trace.get_tracer("program").start_as_current_span("ask") as ask:
        stream = tiny.generate(PROMPT, stream=True, max_new_tokens=9)
    assert len(exported.get_finished_spans()) == 1  # ask
    next(stream)
    stream.close()  # nobody reads on
    span = exported.get_finished_spans()[-1]
    assert parent(span) == ask.get_span_context().span_id
    assert span.status.status_code is StatusCode.UNSET
    assert span.attributes is not None
    assert 1 <= span.attributes["gen_ai.usage.output_tokens"] < 9  # type: ignore[operator]
    assert "gen_ai.response.finish_reasons" not in span.attributes


def test_a_seed_that_no_attribute_holds_is_left_out(tiny: BitNetModel, exported: InMemorySpanExporter) -> None:
    for seed in (2**63 - 1, 2**63):
        tiny.generate(PROMPT, max_new_tokens=1, temperature=1.0, seed=seed)
    seeds = [(span.attributes or {}).get("gen_ai.request.seed") for span in exported.get_finished_spans()]
    assert seeds == [2**63 - 1, None]


# --- engines ---------------------------------------------------------------------------------------------------------


def test_requests_of_threads_and_tasks_have_their_callers_as_parents(
    engine: Engine, exported: InMemorySpanExporter
) -> None:
    tracer, callers = trace.get_tracer("program"), {}

    def ask(name: str) -> None:
        with tracer.start_as_current_span(name) as caller:
            callers[name] = caller.get_span_context()
            engine.submit(PROMPT, max_new_tokens=4).result()

    async def task(name: str) -> None:
        with tracer.start_as_current_span(name) as caller:
            callers[name] = caller.get_span_context()
            await engine.submit(PROMPT, max_new_tokens=4)

    async def tasks() -> None:
        await asyncio.gather(*(task(f"task {i}") for i in range(3)))

    threads = [threading.Thread(target=ask, args=(f"thread {i}",)) for i in range(3)]
    for thread in threads:
        thread.start()
    asyncio.run(tasks())
    for thread in threads:
        thread.join()
    requests = [span for span in exported.get_finished_spans() if span.name.startswith("text_completion")]
    assert sorted(parent(span) or 0 for span in requests) == sorted(caller.span_id for caller in callers.values())
    assert {span.context.trace_id for span in requests} == {caller.trace_id for caller in callers.values()}
    for span in requests:
        assert span.attributes is not None
        assert span.attributes["gen_ai.usage.output_tokens"] == 4
        assert span.attributes["gen_ai.response.finish_reasons"] == ("length",)
        assert [event.name for event in span.events] == ["bitnet.first_token"]


def test_the_span_has_ended_when_the_result_is_there(engine: Engine, exported: InMemorySpanExporter) -> None:
    for count in range(1, 20):
        engine.submit(PROMPT, max_new_tokens=1).result()
        assert len(exported.get_finished_spans()) == count


def test_requests_that_fail_are_errors(slow: BitNetModel, exported: InMemorySpanExporter) -> None:
    with Engine(slow, max_sequences=1, max_queue=1) as engine:
        running = engine.submit([1, 2, 3], max_new_tokens=1 << 19)
        next(iter(running))
        with pytest.raises(DeadlineError):
            engine.submit([1, 2, 3], deadline=1e-6).result()
        waiting = engine.submit([1, 2, 3])
        with pytest.raises(QueueFullError) as full:
            engine.submit([1, 2, 3])
        engine.close(cancel=True)
        for handle in (running, waiting):
            with pytest.raises(RequestCanceledError):
                handle.result()
    spans = exported.get_finished_spans()
    errors = ["DeadlineError", "QueueFullError", "RequestCanceledError", "RequestCanceledError"]
    assert [(span.attributes or {})["error.type"] for span in spans] == errors
    assert {span.status.status_code for span in spans} == {StatusCode.ERROR}
    assert spans[1].status.description == str(full.value)
    assert spans[0].name == "text_completion bitnet"  # a model that has no other name


def test_a_tokenizer_that_fails_does_not_tell_the_text(
    exported: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    with BitNetModel.from_pretrained(TINY) as model, Engine(model) as engine:
        decode = model.tokenizer._decode

        def failing(ids: Sequence[int], skip_special_tokens: bool) -> str:
            if threading.current_thread() is engine._thread:
                raise ValueError(f"cannot decode {SECRET}")
            return decode(ids, skip_special_tokens)

        monkeypatch.setattr(model.tokenizer, "_decode", failing)
        handle = engine.submit(PROMPT, max_new_tokens=50)
        with pytest.raises(ValueError, match=SECRET):
            handle.result()
    span = exported.get_finished_spans()[-1]
    assert (span.attributes or {})["error.type"] == "ValueError"
    assert span.status.status_code is StatusCode.ERROR
    assert SECRET not in span.to_json()


def test_no_span_has_a_text(engine: Engine, exported: InMemorySpanExporter) -> None:
    chat = [{"role": "user", "content": SECRET}]
    engine.chat(chat, chat_template=CHAT, max_new_tokens=4, stop=[f"{SECRET} {SECRET}"]).result()
    engine.model.chat(chat, chat_template=CHAT, max_new_tokens=4, stop=[f"{SECRET} {SECRET}"])
    spans = exported.get_finished_spans()
    assert [span.name for span in spans] == [f"chat {TINY.name}"] * 2
    assert not any(SECRET in span.to_json() for span in spans)


def test_a_fault_of_a_span_processor_ends_no_request(
    engine: Engine, exported: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            raise ConnectionError("the collector is not there")

    provider = trace.get_tracer_provider()
    assert isinstance(provider, TracerProvider)
    provider.add_span_processor(Broken())
    for _ in range(2):
        assert engine.submit(PROMPT, max_new_tokens=3).result().finish_reason == "length"
    assert [record.message for record in caplog.records] == ["a span could not be ended"] * 2


# --- the server ------------------------------------------------------------------------------------------------------


def posted(engine: Engine, headers: dict[str, str]) -> None:
    """A chat and a completion, asked for over HTTP."""

    async def post() -> None:
        app = create_app(engine, ServerOptions(served_model_name="served", chat_template=CHAT))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers) as client:
            bodies = {
                "chat/completions": {"messages": [{"role": "user", "content": SECRET}]},
                "completions": {"prompt": SECRET},
            }
            for route, body in bodies.items():
                answer = await client.post(f"/v1/{route}", json=body | {"max_tokens": 3, "n": 2, "temperature": 0.7})
                assert answer.status_code == 200, answer.text

    asyncio.run(post())


def origin(span: ReadableSpan, spans: Sequence[ReadableSpan]) -> int | None:
    """The span above all of this process, which a newer FastAPI puts its own between."""
    above = next((other for other in spans if other.context.span_id == parent(span)), None)
    return parent(span) if above is None else origin(above, spans)


def ours(spans: Sequence[ReadableSpan]) -> list[ReadableSpan]:
    return [span for span in spans if span.instrumentation_scope and span.instrumentation_scope.name == "bitnet_rust"]


def test_the_server_goes_on_with_the_trace_of_its_client(engine: Engine, exported: InMemorySpanExporter) -> None:
    posted(engine, {"traceparent": f"00-{0xABC:032x}-{0xDEF:016x}-01"})
    spans = exported.get_finished_spans()
    requests = ours(spans)
    assert [span.name for span in requests] == ["chat served"] * 2 + ["text_completion served"] * 2
    assert {(span.context.trace_id, origin(span, spans)) for span in requests} == {(0xABC, 0xDEF)}
    assert {(span.attributes or {})["gen_ai.request.temperature"] for span in requests} == {0.7}
    assert not any(SECRET in span.to_json() for span in spans)


@pytest.mark.parametrize("header", ["", "00-garbage", "x" * 5000], ids=["none", "garbage", "long"])
def test_without_a_usable_header_a_trace_begins_at_the_server(
    engine: Engine, exported: InMemorySpanExporter, header: str
) -> None:
    posted(engine, {"traceparent": header} if header else {})
    spans = exported.get_finished_spans()
    assert [origin(span, spans) for span in ours(spans)] == [None] * 4


def test_a_span_that_is_current_comes_before_the_header(engine: Engine, exported: InMemorySpanExporter) -> None:
    headers = {"traceparent": f"00-{0xABC:032x}-{0xDEF:016x}-01"}
    with trace.get_tracer("program").start_as_current_span("server") as server, continued(headers):
        engine.submit(PROMPT, max_new_tokens=1).result()
    request, _ = exported.get_finished_spans()
    assert parent(request) == server.get_span_context().span_id


# --- who does not ask for it -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("imported", [False, True])
def test_a_program_without_a_provider_gets_no_spans_and_no_imports(imported: bool, tmp_path: Path) -> None:
    program = f"""
import json, sys
if {imported}:
    import opentelemetry.trace
before = {{name for name in sys.modules if name.startswith("opentelemetry")}}
from bitnet_rust import BitNetModel, Engine
with BitNetModel.from_pretrained({str(TINY)!r}) as model, Engine(model) as engine:
    same = model.generate("a", max_new_tokens=4) == engine.submit("a", max_new_tokens=4).result().text
print(json.dumps([same, sorted(name for name in sys.modules if name.startswith("opentelemetry") and name not in before)]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    same, more = json.loads(done.stdout)
    assert same
    if not imported:
        assert more == []
    assert not any(name.startswith("opentelemetry.sdk") for name in more)


def test_what_is_not_sampled_is_not_exported(
    engine: Engine, exported: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_tracer_provider(monkeypatch)
    provider = TracerProvider(sampler=ALWAYS_OFF)
    provider.add_span_processor(SimpleSpanProcessor(exported))
    trace.set_tracer_provider(provider)
    engine.submit(PROMPT, max_new_tokens=2).result()
    engine.model.generate(PROMPT, max_new_tokens=2)
    assert exported.get_finished_spans() == ()

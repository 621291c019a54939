"""bitnet serve when clients ask too much, hang up, have no key, and when it is told to end."""

import asyncio
import gc
import json
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import uvicorn

from bitnet_rust import BitNetError, BitNetModel, Engine, RequestCanceledError, Tokenizer
from bitnet_rust.engine import Handle
from bitnet_rust.generation import Piece
from bitnet_rust.server import ServerOptions, create_app
from bitnet_rust.server.beside import Beside
from bitnet_rust.server.errors import APIError
from bitnet_rust.server.lifecycle import listening
from bitnet_rust.server.observe import Record
from bitnet_rust.server.service import Service
from serving import Served

ENDLESS: Any = {"prompt": "x", "max_tokens": 10**6, "ignore_eos": True, "stream": True}
SHORT: Any = {"prompt": "x", "max_tokens": 4, "temperature": 0}
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
LONG: Any = {"input": ["x" * 4000] * 256}


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose context does not end while a test runs."""
    config = {
        "vocab_size": 256, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4,
        "max_position_embeddings": 1 << 20,
    }  # fmt: skip
    path = tmp_path_factory.mktemp("endless") / "endless.bitnet"
    with BitNetModel.from_config(config) as model:
        model.tokenizer = Tokenizer.bytes()
        model.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def server(endless: Path) -> Iterator[Served]:
    """It runs one request, lets one wait, and takes small ones only, of few texts and answers."""
    with Served(
        "--model", str(endless), "--max-sequences", "1", "--max-queue", "1", "--max-body-bytes", "1000",
        "--max-tokens", "1000000", "--max-choices", "4", "--max-prompts", "5", "--cors-origin", "http://page.example",
    ) as server:  # fmt: skip
        yield server


def until(server: Served, true: Callable[[dict[str, float]], bool]) -> dict[str, float]:
    """The metrics once they say so."""
    while not true(figures := server.metrics()):
        pass
    return figures


def asked(path: str, body: Any) -> bytes:
    """A request as it goes over a connection."""
    content = json.dumps(body).encode()
    return b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
        path.encode(),
        len(content),
        content,
    )


def begun(stream: httpx.Response) -> Iterator[str]:
    """The lines of a stream after its first event, before which it may have been silent. The stream is closed when nobody holds them."""
    lines = stream.iter_lines()
    assert json.loads(next(line for line in lines if line.startswith("data: "))[6:])["choices"]
    return lines


# --- too much --------------------------------------------------------------------------------------------------------


def test_what_can_never_have_room_is_not_told_to_come_back(server: Served) -> None:
    for body, param in (({"n": 3}, "n"), ({"prompt": ["x", "y", "z"]}, "prompt")):
        refused = server.http.post(COMPLETIONS, json=SHORT | body)
        assert refused.status_code == 400, refused.text
        error = refused.json()["error"]
        assert error["param"] == param
        assert error["message"] == "3 answers at once: this server has room for 2, those that wait included"


def test_a_full_queue_answers_429_and_hanging_up_makes_room(server: Served) -> None:
    before = server.metrics()['bitnet_requests_total{outcome="canceled"}']
    with server.http.stream("POST", COMPLETIONS, json=ENDLESS) as running:
        lines = begun(running)
        with server.http.stream("POST", COMPLETIONS, json=ENDLESS) as waiting:
            assert waiting.status_code == 200
            until(server, lambda m: m["bitnet_requests_waiting"] == 1)
            refused = server.http.post(COMPLETIONS, json=SHORT)
            assert refused.status_code == 429
            assert 1 <= int(refused.headers["Retry-After"]) <= 60
            assert refused.json()["error"]["code"] == "queue_full"
            with (
                openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client,
                pytest.raises(openai.RateLimitError, match="1 requests wait"),
            ):
                client.completions.create(model="endless", prompt="x")
        assert next(lines) == ""  # it was running all the time
    canceled, open_ = (
        'bitnet_requests_total{outcome="canceled"}',
        ("bitnet_requests_running", "bitnet_requests_waiting"),
    )
    figures = until(server, lambda m: m[canceled] == before + 2 and not any(m[name] for name in open_))
    assert server.metrics()["bitnet_generated_tokens_total"] == figures["bitnet_generated_tokens_total"]
    assert figures["bitnet_kv_pages_used"] == 0
    assert server.http.post(COMPLETIONS, json=SHORT).status_code == 200


def test_hanging_up_before_a_whole_answer_cancels_it_too(server: Served) -> None:
    before = server.metrics()
    with socket.create_connection(server.address) as peer:
        peer.sendall(asked(COMPLETIONS, ENDLESS | {"stream": False}))
        until(server, lambda m: m["bitnet_requests_running"] == 1)
    figures = until(server, lambda m: m["bitnet_requests_running"] == 0)
    name = 'bitnet_requests_total{outcome="canceled"}'
    assert figures[name] == before[name] + 1
    until(server, lambda m: m["bitnet_client_disconnects_total"] > before["bitnet_client_disconnects_total"])


@contextmanager
def served(engine: Engine) -> Iterator[tuple[str, int]]:
    """A server of this program, so that a test can look into it: its host and port."""
    ready = threading.Event()

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            ready.set()

    server = Server(uvicorn.Config(create_app(engine), port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert ready.wait(60)
        yield server.servers[0].sockets[0].getsockname()
    finally:
        server.should_exit = True
        thread.join(60)


@pytest.mark.parametrize("stream", [True, False])
def test_after_a_client_has_hung_up_the_engine_takes_one_step_at_most(
    endless: Path, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    """The engine's steps are read when the request is canceled: the one that runs then may end."""
    steps: list[int] = []
    with BitNetModel.from_pretrained(endless) as model, Engine(model) as engine:
        cancel = Handle.cancel

        def counting(handle: Handle) -> None:
            cancel(handle)
            steps.append(engine.metrics()["steps"])

        monkeypatch.setattr(Handle, "cancel", counting)
        with served(engine) as address:
            with socket.create_connection(address) as peer:
                peer.sendall(asked(COMPLETIONS, ENDLESS | {"stream": stream}))
                while engine.metrics()["generated_tokens"] < 10:
                    assert steps == []
            while engine.metrics()["running"] or not steps:
                pass
            figures = engine.metrics()
            assert figures["canceled"] == 1
            assert figures["steps"] <= steps[0] + 1


def test_what_a_request_was_made_of_goes_with_its_end(tiny: BitNetModel) -> None:
    """Garbage would stay, and the memory with it, until somebody looks for it."""
    with (
        Engine(tiny) as engine,
        served(engine) as (host, port),
        httpx.Client(base_url=f"http://{host}:{port}", timeout=60, trust_env=False) as http,
    ):
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            for stream in (False, True):
                http.post(COMPLETIONS, json=SHORT | {"stream": stream}).raise_for_status()
            http.get("/health/live").raise_for_status()  # over the same connection: those before have ended
            gc.collect()
            left = [kept for kept in gc.garbage if isinstance(kept, Record | Handle | Piece)]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert left == []


def test_requests_for_vectors_have_a_queue_and_end_when_their_clients_hang_up(endless: Path) -> None:
    with Served("--model", str(endless), "--max-queue", "1") as server:
        with socket.create_connection(server.address) as running, socket.create_connection(server.address) as waiting:
            for peer in (running, waiting):
                peer.sendall(asked(EMBEDDINGS, LONG))
            until(server, lambda m: m["bitnet_embeddings_in_flight"] == 2)
            refused = server.http.post(EMBEDDINGS, json={"input": "x"})
            assert refused.status_code == 429
            assert 1 <= int(refused.headers["Retry-After"]) <= 60
            assert refused.json()["error"]["code"] == "queue_full"
            assert refused.json()["error"]["message"].startswith("the queue is full: 1 requests wait, max_queue = 1")
            assert server.http.post(COMPLETIONS, json=SHORT).status_code == 200  # the engine's queue is another
        figures = until(server, lambda m: m["bitnet_embeddings_in_flight"] == 0)
        assert figures["bitnet_embedded_tokens_total"] == 0  # neither has come to its end
        until(server, lambda m: m["bitnet_client_disconnects_total"] == 2)
        assert server.http.post(EMBEDDINGS, json={"input": "vector"}).json()["usage"]["prompt_tokens"] == 6
        assert server.metrics()["bitnet_embedded_tokens_total"] == 6
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
    requests = [event for event in server.log() if event.get("path") == EMBEDDINGS]
    assert sorted((event["status"], event["prompt_tokens"]) for event in requests) == [
        (200, 6), (429, 1), (499, 256 * 4000), (499, 256 * 4000),
    ]  # fmt: skip


def test_work_beside_the_engine_takes_turns_and_ends_with_an_error_when_all_is_canceled() -> None:
    begun, go_on = threading.Event(), threading.Event()
    order: list[str] = []

    def first() -> str:
        begun.set()
        go_on.wait()
        order.append("a1")
        return "a1"

    def piece(name: str) -> Callable[[], str]:
        return lambda: (order.append(name), name)[1]

    async def main() -> None:
        beside = Beside("test", limit=1)
        a, b = beside.start([first, piece("a2")]), beside.start([piece("b1"), piece("b2")])
        with pytest.raises(APIError, match="the queue is full: 1 requests wait, max_queue = 1") as full:
            beside.start([piece("c")])
        assert (full.value.status, full.value.headers) == (429, {"Retry-After": "1"})
        await asyncio.to_thread(begun.wait)
        go_on.set()
        assert [await a, await b] == [["a1", "a2"], ["b1", "b2"]]
        assert order == ["a1", "b1", "a2", "b2"]

        begun.clear()
        go_on.clear()
        d, e = beside.start([first, piece("d2")]), beside.start([piece("e")])
        await asyncio.to_thread(begun.wait)
        beside.cancel_all()
        for work in (d, e):
            with pytest.raises(RequestCanceledError):
                await work
        go_on.set()
        await asyncio.to_thread(beside.close)
        assert order[4:] == ["a1"]  # what ran, and nothing after it

    try:
        asyncio.run(main())
    finally:
        go_on.set()


def test_metrics_count_the_work_beside_the_engine(endless: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def piece() -> None:
        begun.set()
        go_on.wait()

    async def main(service: Service) -> None:
        for beside, name in (
            (service.texts, "bitnet_texts_in_flight"),
            (service.vectors, "bitnet_embeddings_in_flight"),
        ):
            begun.clear()
            go_on.clear()
            running, waiting = beside.start([piece]), beside.start([piece])
            await asyncio.to_thread(begun.wait)
            assert f"\n{name} 2.0\n" in service.metrics.text().decode()
            go_on.set()
            await running
            await waiting
            assert f"\n{name} 0.0\n" in service.metrics.text().decode()

    with BitNetModel.from_pretrained(endless) as model, Engine(model) as engine:
        try:
            asyncio.run(main(create_app(engine).state.service))
        finally:
            go_on.set()


def test_options_that_cannot_be_are_named() -> None:
    assert ServerOptions(request_timeout=None, max_tokens=None).max_choices == 16
    ServerOptions(cors_origins=["*", "null", "http://localhost:3000"], allowed_hosts=["A.example", "192.0.2.1", "::1"])
    wrong: Any
    for wrong, message in (
        ({"drain_timeout": None}, "drain_timeout = None: expected a number of seconds"),
        ({"heartbeat": -1}, "heartbeat = -1: expected"),
        ({"max_prompts": None}, "max_prompts = None: expected a whole number"),
        ({"max_choices": 0}, "max_choices = 0: expected"),
        *(({"cors_origins": [x]}, f"cors_origins = {x!r}: expected") for x in ("", "a.example", "https://a.example/")),
        *(
            ({"allowed_hosts": [x]}, f"allowed_hosts = {x!r}: expected")
            for x in ("", "https://a.example", "a:80", "a/b")
        ),
    ):
        with pytest.raises(BitNetError, match=re.escape(message)):
            ServerOptions(**wrong)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_refused(server: Served, chunked: bool) -> None:
    body = json.dumps({"prompt": "x" * 1000}).encode()
    content: Any = iter([body[:600], body[600:]]) if chunked else body
    answer = server.http.post(COMPLETIONS, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert answer.json()["error"]["message"] == "the request is larger than 1,000 bytes"


def test_max_tokens_has_a_limit_that_the_operator_sets(server: Served) -> None:
    answer = server.http.post(COMPLETIONS, json=SHORT | {"max_tokens": 10**6 + 1})
    assert answer.json()["error"]["message"] == "max_tokens = 1000001: expected at most 1000000"


def test_answers_and_texts_of_one_request_have_limits_that_the_operator_sets(server: Served) -> None:
    for path, body, message in (
        (COMPLETIONS, SHORT | {"n": 5}, "n = 5: expected at most 4"),
        (COMPLETIONS, SHORT | {"best_of": 5}, "best_of = 5: expected at most 4"),
        (COMPLETIONS, SHORT | {"prompt": ["x"] * 6}, "prompt has 6 texts: expected at most 5"),
        (EMBEDDINGS, {"input": ["x"] * 6}, "input has 6 texts: expected at most 5"),
    ):
        answer = server.http.post(path, json=body)
        assert (answer.status_code, answer.json()["error"]["message"]) == (400, message)


def test_a_request_has_a_time_in_which_to_arrive_and_one_to_be_done(endless: Path) -> None:
    with Served("--model", str(endless), "--request-timeout", "0.3") as server:
        answer = server.http.post(COMPLETIONS, json=ENDLESS | {"stream": False})
        assert answer.status_code == 504
        assert answer.json()["error"]["code"] == "timeout"
        assert answer.headers["x-should-retry"] == "false"
        with (
            openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client,
            pytest.raises(openai.APIError, match="deadline has passed"),
        ):
            list(
                client.completions.create(
                    model="endless", prompt="x", max_tokens=10**6, stream=True, extra_body={"ignore_eos": True}
                )
            )
        late = server.http.post(EMBEDDINGS, json={"input": ["x" * 12000] * 8})
        assert late.status_code == 504
        assert late.json()["error"]["message"] == "the embeddings were not done within 0.3 seconds"
    with (
        Served("--model", str(endless), "--body-timeout", "1") as server,
        socket.create_connection(server.address) as peer,
    ):
        peer.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{"
        )
        assert peer.recv(100).startswith(b"HTTP/1.1 408 ")


def test_who_does_not_read_is_hung_up_on(endless: Path) -> None:
    with Served("--model", str(endless), "--write-timeout", "0.2") as server:
        body = json.dumps(ENDLESS | {"logprobs": 20}).encode()
        with socket.socket() as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            peer.connect(server.address)
            peer.sendall(
                b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
            )
            until(server, lambda m: m["bitnet_client_disconnects_total"] == 1)
            until(server, lambda m: m["bitnet_requests_running"] == 0)


def test_a_stream_that_waits_is_not_silent(endless: Path) -> None:
    with (
        Served("--model", str(endless), "--max-sequences", "1", "--heartbeat", "0.05") as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client,
    ):
        with server.http.stream("POST", COMPLETIONS, json=ENDLESS) as running:
            held = begun(running)
            waiting = client.completions.create(model="endless", **SHORT, stream=True)
            with server.http.stream("POST", COMPLETIONS, json=SHORT | {"stream": True}) as watched:
                lines = watched.iter_lines()
                assert [next(lines) for _ in range(4)] == [": waiting", ""] * 2
                assert next(held) == ""  # it was running all the time
                running.close()
                *events, end = (line for line in lines if line.startswith("data: "))
        text = server.http.post(COMPLETIONS, json=SHORT).json()["choices"][0]["text"]
        assert "".join(chunk.choices[0].text for chunk in waiting) == text
        assert "".join(json.loads(event[6:])["choices"][0]["text"] for event in events) == text
        assert end == "data: [DONE]"


# --- who may ask -----------------------------------------------------------------------------------------------------


def test_keys_are_asked_for_but_not_by_health_and_page(endless: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("# ours\nalice sk-alice\n\nsk-nameless\n")
    with Served(
        "--model", str(endless), "--api-key-file", str(keys), environment={"BITNET_API_KEYS": "sk-a, sk-b"}
    ) as server:
        for secret in ("sk-alice", "sk-nameless", "sk-a", "sk-b"):
            with openai.OpenAI(base_url=f"{server.url}/v1", api_key=secret) as client:
                assert [model.id for model in client.models.list()] == ["endless"]
        for header in ("", "Bearer", "Bearer sk-alic", "Bearer alice", "Basic sk-alice", "sk-alice", "Bearer \xff"):
            for path in ("/v1/models", "/metrics", "/openapi.json", "/nothing"):
                answer = server.http.get(path, headers={"Authorization": header.encode("latin-1")})
                assert answer.status_code == 401
                assert answer.headers["WWW-Authenticate"] == "Bearer"
        with (
            openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0) as client,
            pytest.raises(openai.AuthenticationError, match="the API key is wrong"),
        ):
            client.models.list()
        for path in ("/health/live", "/health/ready", "/"):
            assert server.http.get(path).status_code == 200
        server.http.post(COMPLETIONS, json=SHORT, headers={"Authorization": "Bearer sk-alice"})
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
    assert "alice" in [event["client"] for event in server.log() if event["event"] == "request"]
    assert not any("sk-" in line for line in server.lines)


def test_names_that_point_here_and_forms_of_web_pages_get_nothing(server: Served) -> None:
    assert server.http.get("/v1/models", headers={"Host": "evil.example"}).status_code == 403
    assert server.http.get("/v1/models", headers={"Host": "localhost:1234"}).status_code == 200
    answer = server.http.post(COMPLETIONS, content=json.dumps(SHORT), headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415
    for origin, allowed in (("http://page.example", "http://page.example"), ("http://other.example", None)):
        answer = server.http.post(COMPLETIONS, json=SHORT, headers={"Origin": origin})
        assert answer.headers.get("Access-Control-Allow-Origin") == allowed


# --- what is written down --------------------------------------------------------------------------------------------


def test_requests_have_ids_and_log_and_metrics_count_them_once(endless: Path) -> None:
    with Served("--model", str(endless), "--log-prompts") as server:
        given = server.http.post(COMPLETIONS, json=SHORT, headers={"X-Request-ID": "mine-1"})
        assert given.headers["X-Request-ID"] == "mine-1"
        made = server.http.post(COMPLETIONS, json=SHORT | {"n": 0}, headers={"X-Request-ID": "no good\u00e9".encode()})
        assert made.headers["X-Request-ID"].startswith("req-")
        # The step that made the last token is counted after the answer is on its way.
        figures = until(server, lambda m: m["bitnet_generated_tokens_total"] == 4)
        assert figures['bitnet_http_requests_total{method="POST",route="/v1/completions",status="200"}'] == 1
        assert figures['bitnet_http_requests_total{method="POST",route="/v1/completions",status="400"}'] == 1
        assert figures['bitnet_errors_total{code="invalid_value"}'] == 1
        assert figures['bitnet_requests_total{outcome="finished"}'] == 1
        assert figures["bitnet_time_to_first_token_seconds_count"] == 1
        assert figures["bitnet_time_per_token_seconds_count"] == 3
        assert figures['bitnet_batch_size_bucket{le="1.0"}'] == figures["bitnet_batch_size_count"]
        usage = server.http.post(COMPLETIONS, json=SHORT | {"prompt": ["x", "x"], "n": 2}).json()["usage"]
        server.signal(signal.SIGTERM)
        server.wait()
    first, second, third = (
        event for event in server.log() if event["event"] == "request" and event["method"] == "POST"
    )
    assert first["request_id"] == "mine-1"
    assert (first["status"], first["prompt_tokens"], first["completion_tokens"]) == (200, 1, 4)
    assert first["finish_reasons"] == ["length"]
    assert first["prompt"] == ["x"]
    assert first["answers"] == [given.json()["choices"][0]["text"]]
    assert (second["status"], second["code"]) == (400, "invalid_value")
    assert {name: third[name] for name in ("prompt_tokens", "completion_tokens")}.items() <= usage.items()
    assert third["prompt_tokens"] == 2  # a prompt counts once for all its choices


def test_the_log_has_no_text_of_requests_unless_asked(endless: Path) -> None:
    with Served("--model", str(endless)) as server:
        server.http.post(COMPLETIONS, json=SHORT | {"prompt": "a secret thing"})
        server.http.post(COMPLETIONS, json=SHORT | {"prompt": ["another secret", 5]})
        server.http.post(COMPLETIONS, json=SHORT | {"a secret field": 5})
        server.http.post(COMPLETIONS, json=SHORT | {"logit_bias": {"a secret key": 5}})
        server.http.post(COMPLETIONS, json=SHORT | {"model": "a secret model"})
        server.signal(signal.SIGTERM)
        server.wait()
    assert len(server.log()) >= 4
    assert not any("secret" in line for line in server.lines)


# --- the end ---------------------------------------------------------------------------------------------------------


def test_sigterm_finishes_what_is_running_and_refuses_the_rest(endless: Path) -> None:
    with Served("--model", str(endless)) as server:
        with server.http.stream("POST", COMPLETIONS, json=ENDLESS) as running:
            lines = begun(running)
            server.signal(signal.SIGTERM)
            while server.http.get("/health/ready").status_code != 503:
                pass
            assert server.http.get("/health/live").status_code == 200
            refused = server.http.post(COMPLETIONS, json=SHORT)
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "draining"
            assert "Retry-After" in refused.headers
            for _ in range(50):  # it goes on
                assert "error" not in next(lines)
            assert server.process.poll() is None
        assert server.wait() == 0


def test_what_does_not_end_in_time_ends_with_an_error(endless: Path) -> None:
    with (
        Served("--model", str(endless), "--drain-timeout", "0.2") as server,
        server.http.stream("POST", COMPLETIONS, json=ENDLESS) as running,
    ):
        lines = begun(running)
        server.signal(signal.SIGTERM)
        *_, last = filter(None, lines)
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "canceled"
        assert server.wait() == 1
    with (
        Served("--model", str(endless), "--drain-timeout", "0.2") as server,
        socket.create_connection(server.address) as vectors,
    ):
        vectors.sendall(asked(EMBEDDINGS, LONG))
        until(server, lambda m: m["bitnet_embeddings_in_flight"] == 1)
        server.signal(signal.SIGTERM)
        answer = b"".join(iter(lambda: vectors.recv(1 << 16), b""))
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "canceled"
        assert server.wait() == 1


def test_a_file_that_turns_out_to_be_damaged_makes_the_server_not_ready(tmp_path: Path) -> None:
    shape = {
        "vocab_size": 256,
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 6,
        "num_attention_heads": 16,
    }
    path = tmp_path / "large.bitnet"  # else it would be verified before it is served
    with BitNetModel.from_config(shape) as model:
        model.tokenizer = Tokenizer.bytes()
        model.save_pretrained(path)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        damaged = bytes(byte ^ 1 for byte in file.read(8))
        file.seek(-8, 1)
        file.write(damaged)
    with Served("--model", str(path)) as server:
        while (ready := server.http.get("/health/ready")).status_code == 200:
            pass
        assert (ready.status_code, ready.json()) == (503, {"status": "failed", "reason": "the model's file is damaged"})
        assert server.http.get("/health/live").status_code == 200
        refused = server.http.post(COMPLETIONS, json=SHORT)
        assert (refused.status_code, refused.json()["error"]["code"]) == (500, "model_error")
        server.signal(signal.SIGTERM)
        server.wait()
    assert any(event["event"] == "weights are damaged: every step will be refused" for event in server.log())


def test_an_address_that_is_taken_is_said_in_one_line(server: Served, endless: Path, bitnet: Any) -> None:
    host, port = server.address
    status, _, err = bitnet("serve", "--model", str(endless), "--port", str(port))
    assert status == 1
    assert f"cannot listen on {host}:{port}" in err


def test_what_is_written_to_a_client_is_sent_at_once() -> None:
    async def main() -> int:
        options: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            options.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        with listening("127.0.0.1", 0) as place:
            async with await asyncio.start_server(connected, sock=place):
                with socket.create_connection(place.getsockname()):
                    return await options

    assert asyncio.run(main()) != 0

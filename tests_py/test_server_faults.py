"""A server among clients that hang up, do not read, and send anything but requests; and one that is killed."""

import json
import random
import re
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from bitnet_rust import BitNetModel, Tokenizer
from bitnet_rust.bench.machine import process_bytes
from serving import Served

CHARACTERS = "".join(map(chr, range(32, 127)))
# One token is one character, and a stream is as long as a test needs it.
LONG = {
    "vocab_size": len(CHARACTERS),
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 1 << 20,
}
ENDLESS: dict[str, Any] = {"max_tokens": 10**6, "ignore_eos": True, "stream": True}


@pytest.fixture(scope="module")
def long_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BitNetModel]:
    with BitNetModel.from_config(LONG) as model:
        model.tokenizer = Tokenizer.characters(CHARACTERS)
        model.save_pretrained(tmp_path_factory.mktemp("model") / "long.bitnet")
        yield model


@pytest.fixture(scope="module")
def path(long_model: BitNetModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return next(tmp_path_factory.getbasetemp().glob("model*/long.bitnet"))


@pytest.fixture(scope="module")
def server(path: Path) -> Iterator[Served]:
    limits = ("--max-body-bytes", str(32 << 20), "--kv-bytes", str(64 << 20), "--write-timeout", "600")
    with Served("--model", str(path), *limits) as server:
        yield server
    assert not [entry for entry in server.log() if "traceback" in entry]


@pytest.fixture(scope="module")
def hasty(path: Path) -> Iterator[Served]:
    """A server that waits no longer than 2 seconds for the rest of a request: who has to be answered asks another."""
    with Served("--model", str(path), "--body-timeout", "2") as server:
        yield server
    assert server.process.returncode == 0
    assert not [entry for entry in server.log() if "traceback" in entry]


@pytest.fixture(autouse=True)
def still_well(request: pytest.FixtureRequest, server: Served, long_model: BitNetModel) -> Iterator[None]:
    """After each test the server answers as before, and nothing runs that nobody waits for."""
    yield
    until_idle(server)
    assert answer(server, "Is anybody there?", 16) == long_model.generate("Is anybody there?", max_new_tokens=16)


def answer(server: Served, prompt: str, tokens: int) -> str:
    reply = server.http.post("/v1/completions", json={"prompt": prompt, "max_tokens": tokens, "temperature": 0})
    text: str = reply.raise_for_status().json()["choices"][0]["text"]
    return text


def until(server: Served, figure: str, value: float) -> None:
    """Waits until a figure has a value; each look takes the server some milliseconds."""
    end = time.monotonic() + 600
    while (found := server.metrics()[figure]) != value:
        assert time.monotonic() < end, f"{figure} = {found}: expected {value}"


def until_idle(server: Served) -> None:
    until(server, "bitnet_requests_running", 0)


def connect(server: Served, receive_buffer: int | None = None) -> socket.socket:
    place = urlsplit(server.url)
    assert place.hostname is not None
    assert place.port is not None
    connection = socket.socket()
    connection.settimeout(60)
    if receive_buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.connect((place.hostname, place.port))
    return connection


def request(body: bytes, headers: str = "", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n{headers}\r\n"
    return head.encode() + body


def begin(server: Served, receive_buffer: int | None = None, **body: Any) -> socket.socket:
    """A stream whose first event has come."""
    connection = connect(server, receive_buffer)
    connection.sendall(request(json.dumps({"prompt": "Once", "temperature": 0, **ENDLESS, **body}).encode()))
    seen = b""
    while b"data: " not in seen:
        seen += connection.recv(512)
    return connection


# --- clients that hang up --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["closed", "reset"])
def test_what_clients_left_alone_ends_and_others_go_on(server: Served, long_model: BitNetModel, how: str) -> None:
    before = server.metrics()
    with ThreadPoolExecutor(1) as pool:
        patient = pool.submit(answer, server, "The patient one", 600)
        for connection in [begin(server) for _ in range(12)]:
            if how == "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
        assert patient.result() == long_model.generate("The patient one", max_new_tokens=600)
    for name in ('bitnet_requests_total{outcome="canceled"}', "bitnet_client_disconnects_total"):
        until(server, name, before[name] + 12)
    until(server, "bitnet_kv_pages_used", 0)


def test_a_client_that_goes_before_its_request_is_whole_leaves_nothing(server: Served) -> None:
    for part in (b"P", b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n", request(b'{"prompt": "Once', length=1000)):
        with closing(connect(server)) as connection:
            connection.sendall(part)
    assert server.metrics()["bitnet_requests_running"] == 0


# --- clients that do not read ----------------------------------------------------------------------------------------


def test_slow_readers_do_not_hold_up_others_nor_fill_the_memory(server: Served, long_model: BitNetModel) -> None:
    answer(server, "warm", 600)
    before = process_bytes("VmRSS", server.process.pid)
    # With the probabilities of five tokens at each place a stream has a megabyte, of which its client reads a piece.
    slow = [begin(server, 4096, max_tokens=4000, logprobs=5) for _ in range(6)]
    prompts = [f"Number {i}" for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(lambda prompt: answer(server, prompt, 100), prompts))
    assert texts == [long_model.generate(prompt, max_new_tokens=100) for prompt in prompts]
    until_idle(server)
    after = process_bytes("VmRSS", server.process.pid)
    if before is not None and after is not None:
        assert after - before < 100 << 20
    # What was kept for them is still theirs.
    events = b""
    while not events.endswith(b"0\r\n\r\n"):
        piece = slow[0].recv(1 << 16)
        assert piece, "the stream was cut short"
        events += piece
    assert len(events) > 400_000
    assert events.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    for connection in slow:
        connection.close()


# --- what is no request ----------------------------------------------------------------------------------------------

DEEP = b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
BODIES: dict[str, bytes] = {
    "empty": b"",
    "not JSON": b"First Citizen:",
    "cut short": b'{"prompt": "Once',
    "not UTF-8": b'{"prompt": "\xff\xfe"}',
    "half a surrogate": rb'{"prompt": "\ud800"}',
    "NUL": rb'{"prompt": "a\u0000b"}',
    "deep": DEEP,
    "a list": b"[]",
    "null": b"null",
    "numbers out of range": b'{"prompt": "Once", "temperature": 1e400, "max_tokens": 1e99}',
    "NaN": b'{"prompt": "Once", "temperature": NaN}',
    "a number of many digits": b'{"prompt": "Once", "max_tokens": ' + b"9" * 10_000 + b"}",
    "tokens that there are not": b'{"prompt": [1, 2, 99999999]}',
    "negative tokens": b'{"prompt": [-1]}',
    "prompts within prompts": b'{"prompt": [[[1]]]}',
    "many prompts": json.dumps({"prompt": ["a"] * 100_000}).encode(),
    "many copies": b'{"prompt": "a", "n": 1000000000}',
    "many stops": json.dumps({"prompt": "a", "stop": ["x"] * 100_000}).encode(),
    "a bias of text": b'{"prompt": "a", "logit_bias": {"x": "y"}}',
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_is_no_request_is_refused_in_words(server: Served, name: str) -> None:
    reply = server.http.post("/v1/completions", content=BODIES[name], headers={"Content-Type": "application/json"})
    assert 400 <= reply.status_code < 500, reply.text
    error = reply.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert 0 < len(error["message"]) < 1000


LINES: dict[str, bytes] = {
    "noise": random.Random(7).randbytes(4096),
    "TLS": bytes.fromhex("16030100a5010000a10303") + bytes(160),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "two lengths": b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "a length that is none": b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    "a chunk that is none": b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a chunk that is none, for another host": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "endless headers": b"GET / HTTP/1.1\r\n" + b"X-Filler: " + b"a" * (1 << 20),
    "a long path": b"GET /" + b"a" * (1 << 20) + b" HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("name", LINES)
def test_what_is_not_HTTP_ends_with_its_connection(hasty: Served, name: str) -> None:
    with closing(connect(hasty)) as connection:
        reply = b""
        try:
            connection.sendall(LINES[name])
            while piece := connection.recv(1 << 16):
                reply += piece
        except (ConnectionResetError, BrokenPipeError):
            pass
    # A reply, or, for what might still become a request, none within the time for it to arrive.
    assert reply == b"" or re.match(rb"HTTP/1\.1 4\d\d ", reply), reply[:200]


@pytest.mark.parametrize("part", ["head", "trailer"])
def test_fields_without_end_are_cut_short_and_not_kept(server: Served, part: str) -> None:
    start = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
    if part == "trailer":
        start = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    with closing(connect(server)) as connection:
        connection.sendall(start)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            connection.sendall((b"X-Filler: " + b"a" * (1 << 14) + b"\r\n") * (1 << 12))


def test_bodies_at_random_never_break_the_server(server: Served) -> None:
    """Requests of the right form with a byte, or a value, that is not."""
    rng = random.Random(11)
    right = {
        "prompt": "Once",
        "max_tokens": 4,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["x"],
        "n": 1,
        "seed": 1,
        "logprobs": 1,
    }
    odd: Sequence[Any] = [
        None,
        -1,
        0,
        1.5,
        10**30,
        "",
        "x",
        [],
        {},
        [None],
        {"a": 1},
        True,
        1e308,
        "\u0000",
        [[]],
        [{}],
    ]
    for i in range(150):
        if i % 2:
            content = json.dumps(right | {rng.choice([*right]): rng.choice(odd)}).encode()
        else:
            changed = bytearray(json.dumps(right).encode())
            changed[rng.randrange(len(changed))] = rng.randrange(256)
            content = bytes(changed)
        reply = server.http.post("/v1/completions", content=content, headers={"Content-Type": "application/json"})
        assert reply.status_code == 200 or 400 <= reply.status_code < 500, (content, reply.text)
        assert ("error" in reply.json()) == (reply.status_code != 200)


# --- prompts of ten megabytes ----------------------------------------------------------------------------------------

HUGE = json.dumps({"prompt": "All work and no play. " * 480_000}).encode()


def test_a_prompt_of_ten_megabytes_is_too_long_and_nobody_waits_for_it(path: Path, long_model: BitNetModel) -> None:
    with Served("--model", str(path), "--max-body-bytes", str(32 << 20)) as server, ThreadPoolExecutor(1) as pool:
        expected = long_model.generate("Meanwhile", max_new_tokens=8)
        answer(server, "warm", 16)
        others = times = 0
        while others < 2:  # who gets the processor late finds the huge one answered, and sends it again
            assert times < 20
            times, others = times + 1, 0
            huge = pool.submit(
                server.http.post, "/v1/completions", content=HUGE, headers={"Content-Type": "application/json"}
            )
            while not huge.done():
                assert answer(server, "Meanwhile", 8) == expected
                others += 1
            reply = huge.result()
            assert reply.status_code == 400
            assert reply.json()["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_beyond_the_limit_is_refused_before_it_is_read(path: Path, chunked: bool) -> None:
    with Served("--model", str(path)) as small:
        before = process_bytes("VmHWM", small.process.pid)
        content: Any = (HUGE[at : at + (1 << 16)] for at in range(0, len(HUGE), 1 << 16)) if chunked else HUGE
        try:
            reply = small.http.post("/v1/completions", content=content, headers={"Content-Type": "application/json"})
        except (httpx.WriteError, httpx.ReadError):
            reply = None  # it hung up while we were still sending
        if reply is not None:
            assert reply.status_code == 413
            assert reply.json()["error"]["code"] == "request_too_large"
        after = process_bytes("VmHWM", small.process.pid)
        if before is not None and after is not None:
            assert after - before < 24 << 20
        assert len(answer(small, "Is anybody there?", 16)) == 16


# --- a server that is killed -----------------------------------------------------------------------------------------


def test_a_killed_server_is_seen_by_its_clients_and_comes_back_at_the_same_place(
    path: Path, long_model: BitNetModel
) -> None:
    with Served("--model", str(path)) as first:
        streams = [begin(first) for _ in range(4)]
        seen: list[bytes] = []

        def read(stream: socket.socket) -> None:
            events = b""
            try:
                while piece := stream.recv(1 << 16):
                    events += piece
            except ConnectionResetError:
                pass
            seen.append(events)

        readers = [threading.Thread(target=read, args=(stream,)) for stream in streams]
        for reader in readers:
            reader.start()
        first.signal(signal.SIGKILL)
        for reader in readers:
            reader.join(60)
        assert len(seen) == 4
        assert not any(b"[DONE]" in events or events.endswith(b"0\r\n\r\n") for events in seen), "an end that was none"
        for stream in streams:
            stream.close()
        assert first.wait() == -signal.SIGKILL
        port = urlsplit(first.url).port
    with Served("--model", str(path), "--port", str(port)) as second:
        assert second.url == first.url
        assert answer(second, "Again", 32) == long_model.generate("Again", max_new_tokens=32)

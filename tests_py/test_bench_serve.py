"""The load on a server: what it measures, and that it finds what servers do wrong."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bitnet_rust import ArgumentError, BitNetError, bench
from bitnet_rust.bench import commands, serving
from conftest import Terminal


class Faulty(BaseHTTPRequestHandler):
    """A server that repeats the prompt, a word an event, and does what the prompt says wrong."""

    protocol_version = "HTTP/1.1"
    count = 0

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        words = body["prompt"].split()
        fault = words[0]
        Faulty.count += 1
        name = f"cmpl-{Faulty.count}"
        if fault == "refused":
            self.send_response(429)
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"full")
            return
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for i, word in enumerate(words):
            if i == 1 and fault == "closed":
                self.close_connection = True
                return
            if i == 1 and fault == "error":
                self.event({"error": {"message": "the replica has gone"}})
                break
            if fault == "changing":
                word = f"{word}{Faulty.count}"
            self.event(
                {
                    "id": "cmpl-other" if i == 1 and fault == "mixed" else name,
                    "choices": [{"text": word, "finish_reason": None}],
                }
            )
        if fault != "unfinished":
            self.event({"id": name, "choices": [{"text": "", "finish_reason": "length"}]})
        self.event({"id": name, "choices": [], "usage": {"completion_tokens": len(words)}})
        if fault != "silent":
            self.chunk(b"data: [DONE]\n\n")
        self.chunk(b"")

    def event(self, value: dict[str, Any]) -> None:
        self.chunk(b"data: " + json.dumps(value).encode() + b"\n\n")

    def chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def faulty() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Faulty) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def crowd(port: int, prompts: list[str], **plan: Any) -> dict[str, Any]:
    """What clients say of a server, each prompt sent once unless the plan says otherwise."""
    bodies = [{"prompt": prompt} for prompt in prompts]
    whole = {
        "host": "127.0.0.1",
        "port": port,
        "path": "/v1/completions",
        "headers": {},
        "bodies": bodies,
        "clients": 3,
        "seconds": 0,
        "abandon": 0,
    }
    command = [sys.executable, "-I", str(Path(serving.__file__).with_name("clients.py"))]
    done = subprocess.run(command, input=json.dumps(whole | plan), capture_output=True, text=True, check=True)
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome


def test_clients_take_turns_on_the_requests_and_put_their_streams_together(faulty: int) -> None:
    prompts = [" ".join(["word"] * n) for n in (1, 40, 3, 7, 2)]
    replies = crowd(faulty, prompts)["replies"]
    assert sorted(r["request"] for r in replies) == [0, 1, 2, 3, 4]
    for r in replies:
        assert r["text"] == prompts[r["request"]].replace(" ", "")
        assert r["tokens"] == r["early"] == len(prompts[r["request"]].split())
        assert r["first"] > 0


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        ("refused", "status 429: full"),
        ("closed", "the connection was closed before the end"),
        ("error", 'the stream ended with an error: {"message": "the replica has gone"}'),
        ("mixed", "events of several requests in one stream: cmpl-"),
        ("unfinished", "the stream ended without a finish_reason"),
        ("silent", "the stream ended without [DONE]"),
    ],
)
def test_clients_see_what_is_wrong_with_a_stream_and_go_on(faulty: int, fault: str, problem: str) -> None:
    replies = crowd(faulty, [f"{fault} word", "good word", "good words"], clients=1)["replies"]
    assert [r.get("problem", "")[: len(problem)] for r in replies] == [problem, "", ""]
    assert [r.get("text") for r in replies[1:]] == ["goodword", "goodwords"]


def test_a_client_leaves_a_stream_alone_and_asks_again(faulty: int) -> None:
    replies = crowd(faulty, ["a b c", "d e f", "g h i", "j k l"], abandon=2, clients=1)["replies"]
    assert [r.get("text") for r in replies] == ["abc", None, "ghi", None]
    assert [r.get("abandoned", False) for r in replies] == [False, True, False, True]


def test_a_server_that_is_not_there_is_a_problem_of_every_request() -> None:
    replies = crowd(1, ["a", "b"])["replies"]
    assert len(replies) == 2
    assert all(r["problem"].startswith("cannot send: ") for r in replies)


def test_equal_requests_that_get_different_texts_are_counted(faulty: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "WORDS", ["changing"])
    r = bench.serve(url=f"http://127.0.0.1:{faulty}", model="any", clients=1, requests=1, seconds=0.3, rounds=1)
    assert r["problems"] == {}
    assert r["replies"] >= 1
    assert r["differing"] == r["replies"] - 1
    assert f"{r['differing']} differing" in bench.report(r)


def test_a_server_has_the_texts_of_the_model_alone_and_a_part_of_the_engines_speed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    r = json.loads(
        json.dumps(bench.serve("tiny", clients=4, requests=6, prompt=24, tokens=12, seconds=0.5, rounds=2, abandon=4))
    )
    assert r["replies"] >= 6
    assert r["abandoned"] >= 1
    assert r["problems"] == {}
    assert r["differing"] == 0
    assert r["tokens_per_second_min"] <= r["tokens_per_second"] <= r["tokens_per_second_max"]
    for part in r["repeats"]:
        assert part["of_engine"] == part["tokens_per_second"] / part["engine_tokens_per_second"]
        assert part["of_engine_by_cpu"] > 0
    assert 0 < r["first_token_ms"]["median"] <= r["first_token_ms"]["max"]
    assert 0 < r["client_cpu"] < 1
    assert r["rss_bytes"] == r["rss_samples"][-1][1]
    text = bench.report(r)
    assert "0 differing, no problems" in text
    assert "without a server; the server has" in text


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    with (
        pytest.raises(BitNetError, match=r"^the server did not start: there is no .*nowhere"),
        serving.server(tmp_path / "nowhere", 1, {}),
    ):
        pass


def test_the_command_says_by_its_exit_status_whether_all_went_well(
    faulty: int, bitnet: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = (
        "--url",
        f"http://127.0.0.1:{faulty}",
        "--model",
        "any",
        "--requests",
        "2",
        "--seconds",
        "0.1",
        "--rounds",
        "1",
    )
    status, out, _ = bitnet("bench", "serve", *options, "--json")
    assert status == 0
    assert json.loads(out)["replies"] >= 2
    monkeypatch.setattr(serving, "WORDS", ["refused"])
    status, out, err = bitnet("bench", "serve", *options)
    assert status == 1
    assert "status 429: full" in out
    assert "1/1" in err


def test_a_limit_that_is_missed_fails(bitnet: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    small = [
        "bench",
        "serve",
        "--shape",
        "tiny",
        "--clients",
        "2",
        "--requests",
        "2",
        "--prompt",
        "8",
        "--tokens",
        "8",
        "--seconds",
        "0.3",
        "--rounds",
        "1",
    ]
    status, out, _ = bitnet(*small, "--min-of-engine", "0", "--max-rss-growth", str(1 << 40), "--json")
    assert (status, json.loads(out)["problems"]) == (0, {})
    status, out, err = bitnet(*small, "--min-of-engine", "1e9")
    assert status == 1
    assert "without a server; the server has" in out
    assert re.search(r"bitnet: of_engine = [\d.]+: expected at least 1e\+09 \(--min-of-engine\)", err)
    for other in (("--no-engine",), ("--url", "http://127.0.0.1:1", "--model", "any")):
        status, _, err = bitnet(*small, *other, "--min-of-engine", "0.5")
        assert status == 1
        assert "--min-of-engine 0.5: expected neither --no-engine nor --url with it" in err


def test_memory_that_grows_too_much_fails(bitnet: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    grown = {"benchmark": "serve", "problems": {}, "differing": 0, "rss_growth_bytes": 4097}
    monkeypatch.setattr(commands, "serve", lambda *_, **__: grown)
    monkeypatch.setattr(commands, "_show", lambda *_: None)
    assert bitnet("bench", "serve", "--max-rss-growth", "4097")[0] == 0
    status, _, err = bitnet("bench", "serve", "--max-rss-growth", "4096")
    assert status == 1
    assert "rss_growth_bytes = 4097: expected at most 4096 (--max-rss-growth)" in err


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ArgumentError, match="model = None: expected the name that the server gives its model"):
        bench.serve(url="http://127.0.0.1:1")
    with pytest.raises(ArgumentError, match="url = 'localhost:80': expected http://host:port"):
        bench.serve(url="localhost:80", model="any", rounds=1)
    with pytest.raises(ArgumentError, match="tokens = 7: expected at least 8"):
        bench.serve("tiny", tokens=7)
    with pytest.raises(ArgumentError, match="seconds = 0: expected a number above 0"):
        bench.serve("tiny", seconds=0)

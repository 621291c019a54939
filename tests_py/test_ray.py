"""The server on Ray Serve, with Ray itself: what clients see of replicas that come and go."""

import json
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from bitnet_rust import BitNetModel, Tokenizer

pytestmark = pytest.mark.full
ray = pytest.importorskip(
    "ray", reason="NOT TESTED: Ray Serve. pip install 'bitnet-rust[ray]', as `make test-full` does"
)

CHARACTERS = "".join(map(chr, range(32, 127)))
LONG = {
    "vocab_size": len(CHARACTERS),
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 1 << 20,
}
TOKENS = 1_000  # of a stream that is open while replicas go
MARK = uuid.uuid4().hex  # in the environment of our replicas


@pytest.fixture(scope="module")
def model() -> Iterator[BitNetModel]:
    with BitNetModel.from_config(LONG) as model:
        model.tokenizer = Tokenizer.characters(CHARACTERS)
        yield model


@pytest.fixture(scope="module")
def path(model: BitNetModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "long.bitnet"
    model.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Ray on this machine; the URL that Ray Serve listens at."""
    from ray import serve

    changed = {
        "BITNET_TEST_MARK": MARK,
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        # A machine with other work is slow, and nothing is wrong with it.
        "RAY_agent_register_timeout_ms": "120000",
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60",
        "BITNET_LOG_LEVEL": "debug",  # of the replicas
    }
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        with socket.socket() as place:  # it keeps the port, which Ray's proxy shares
            place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            place.bind(("127.0.0.1", 0))
            port = place.getsockname()[1]
            ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
            serve.start(http_options={"host": "127.0.0.1", "port": port})
            yield f"http://127.0.0.1:{port}"
            serve.shutdown()
    finally:
        ray.shutdown()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@pytest.fixture(scope="module")
def url(cluster: str, path: Path) -> str:
    from ray import serve

    from bitnet_rust.integrations.ray import Settings, application

    serve.run(application(Settings(model=str(path), replicas=2, server={"served_model_name": "long"})))
    return cluster


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=120) as client:
        yield client


def replicas() -> set[int]:
    """The processes of our replicas."""
    found = set()
    for place in Path("/proc").iterdir():
        try:
            if (
                b"ray::ServeReplica:default:replica" in (place / "cmdline").read_bytes()
                and MARK.encode() in (place / "environ").read_bytes()
            ):
                found.add(int(place.name))
        except OSError:
            continue
    return found


def ask(client: openai.OpenAI, prompt: str, tokens: int) -> str:
    return client.completions.create(model="long", prompt=prompt, max_tokens=tokens, temperature=0).choices[0].text


def test_answers_and_errors_are_those_of_one_server(client: openai.OpenAI, url: str, model: BitNetModel) -> None:
    alone = model.generate("Once upon", max_new_tokens=40)
    assert ask(client, "Once upon", 40) == alone
    stream = client.completions.create(model="long", prompt="Once upon", max_tokens=40, temperature=0, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == alone
    with pytest.raises(openai.NotFoundError, match="there is no model 'other'"):
        client.completions.create(model="other", prompt="Once")
    assert httpx.get(f"{url}/health/ready", timeout=120).json() == {"status": "ok"}
    assert "bitnet_requests_running" in httpx.get(f"{url}/metrics", timeout=120).text
    large = httpx.post(
        f"{url}/v1/completions", content=b" " * (5 << 20), headers={"Content-Type": "application/json"}, timeout=120
    )
    assert large.status_code == 413
    assert large.json()["error"]["code"] == "request_too_large"


def test_a_client_that_goes_ends_its_request_on_the_replica(url: str) -> None:
    body = {"prompt": "Once", "max_tokens": 10**6, "ignore_eos": True, "stream": True}
    for _ in range(4):
        with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=60) as stream:
            next(stream.iter_lines())
    quiet = 0
    for _ in range(3000):  # either replica may answer
        idle = "bitnet_requests_running 0.0" in httpx.get(f"{url}/metrics", timeout=120).text
        quiet = quiet + 1 if idle else 0
        if quiet == 20:
            return
    raise AssertionError("requests go on that nobody waits for")


def test_a_replica_that_is_killed_costs_open_streams_alone(
    client: openai.OpenAI, url: str, model: BitNetModel, record_property: Any
) -> None:
    before = replicas()
    assert len(before) == 2
    prompts = [f"Question {i}: " for i in range(24)]
    alone = [model.generate(prompt, max_new_tokens=24) for prompt in prompts]
    killed, over = threading.Event(), threading.Event()
    wrong: list[str] = []
    before_it, after_it = threading.Semaphore(0), threading.Semaphore(0)  # one for each short answer

    def short(first: int) -> None:
        at = first
        while not over.is_set():
            i = at = (at + 1) % len(prompts)
            answered = after_it if killed.is_set() else before_it
            try:
                if ask(client, prompts[i], 24) != alone[i]:
                    wrong.append(f"another text for {prompts[i]}")
            except openai.OpenAIError as error:
                wrong.append(repr(error))
            answered.release()

    ends: list[str] = []

    def long() -> None:
        body = {"prompt": "Once", "max_tokens": 10**6, "ignore_eos": True, "stream": True}
        with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=120) as stream:
            begun.release()
            last = ""
            for line in stream.iter_lines():
                last = line or last
                if over.is_set():
                    ends.append("goes on")
                    return
            ends.append(last)

    begun = threading.Semaphore(0)
    threads = [threading.Thread(target=long) for _ in range(6)] + [
        threading.Thread(target=short, args=(i,)) for i in range(4)
    ]
    for thread in threads:
        thread.start()
    take(begun, 6)
    take(before_it, 20)
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    killed.set()
    start = time.monotonic()
    until(
        lambda: len(replicas() - {victim}) == 2 and running(2), "there is a replica in place of the one that was killed"
    )
    record_property("seconds_until_a_new_replica", time.monotonic() - start)
    take(after_it, 40)
    over.set()
    for thread in threads:
        thread.join(120)
    assert wrong == []
    assert len(ends) == 6
    lost = [end for end in ends if end != "goes on"]
    assert lost, "no stream was on the replica that was killed"
    for end in lost:
        assert end.startswith("data: "), end
        assert json.loads(end[6:])["error"]["code"] == "replica_lost"
    assert "goes on" in ends


def take(semaphore: threading.Semaphore, count: int) -> None:
    """Waits for so many releases."""
    for _ in range(count):
        assert semaphore.acquire(timeout=120)


def until(true: Callable[[], bool], what: str) -> None:
    """Waits until something is so; each look, at processes and at what Ray says of them, takes milliseconds."""
    for _ in range(20_000):
        if true():
            return
    raise AssertionError(f"it never was so that {what}")


def running(count: int) -> bool:
    """Whether Ray Serve says that so many replicas are there."""
    from ray import serve

    states = serve.status().applications["default"].deployments["replica"].replica_states
    return states.get("RUNNING", 0) >= count


def test_a_stream_that_is_lost_is_an_error_of_openais_client(client: openai.OpenAI) -> None:
    stream = client.completions.create(
        model="long", prompt="Once", max_tokens=10**6, stream=True, extra_body={"ignore_eos": True}
    )
    next(stream)
    for process in replicas():
        os.kill(process, signal.SIGKILL)
    with pytest.raises(openai.APIError, match="the replica that worked on this request was lost"):
        for _ in stream:
            pass
    assert len(ask(client, "And now?", 8)) == 8  # waits for a new replica


def test_replicas_come_with_the_load(cluster: str, path: Path) -> None:
    from ray import serve

    from bitnet_rust.integrations.ray import Settings, application

    scaling = {
        "min_replicas": 1,
        "max_replicas": 2,
        "target_ongoing_requests": 2,
        "upscale_delay_s": 0.5,
        "metrics_interval_s": 0.5,
    }
    serve.run(application(Settings(model=str(path), autoscaling=scaling)))
    assert running(1)
    over = threading.Event()

    def long() -> None:
        body = {"prompt": "Once", "max_tokens": 10**6, "ignore_eos": True, "stream": True}
        with httpx.stream("POST", f"{cluster}/v1/completions", json=body, timeout=120) as stream:
            for _ in stream.iter_lines():
                if over.is_set():
                    return

    threads = [threading.Thread(target=long) for _ in range(6)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: running(2), "there is a second replica")
    finally:
        over.set()
        for thread in threads:
            thread.join(120)


def test_a_full_replica_answers_429_and_others_of_its_routes_as_ever(cluster: str, path: Path) -> None:
    from ray import serve

    from bitnet_rust.integrations.ray import Settings, application

    engine, server = {"max_sequences": 1, "max_queue": 1}, {"heartbeat": 0.2}
    serve.run(application(Settings(model=str(path), engine=engine, server=server)))
    body = {"prompt": "Once", "max_tokens": 10**6, "ignore_eos": True, "stream": True}
    url = f"{cluster}/v1/completions"
    with httpx.stream("POST", url, json=body, timeout=120) as running:
        lines = running.iter_lines()  # it is closed when nobody holds them
        next(lines)
        with httpx.stream("POST", url, json=body, timeout=120):
            until(
                lambda: "bitnet_requests_waiting 1.0" in httpx.get(f"{cluster}/metrics", timeout=120).text, "one waits"
            )
            refused = httpx.post(url, json={"prompt": "Once"}, timeout=120)
            assert refused.status_code == 429
            assert 1 <= int(refused.headers["Retry-After"]) <= 60
            assert refused.json()["error"]["code"] == "queue_full"
            assert httpx.get(f"{cluster}/health/ready", timeout=120).status_code == 200


def test_replicas_log_requests_as_the_settings_say(cluster: str, path: Path) -> None:
    from ray import serve

    from bitnet_rust.integrations.ray import Settings, application

    serve.run(application(Settings(model=str(path), server={"log_prompts": True})))
    until(lambda: len(replicas()) == 1, "the replica is alone")
    (process,) = replicas()
    id_of = {"X-Request-ID": "mine-1"}
    answer = httpx.post(
        f"{cluster}/v1/completions", json={"prompt": "Once", "max_tokens": 4}, headers=id_of, timeout=120
    )
    httpx.get(f"{cluster}/health/ready", timeout=120)
    lines = Path(f"/proc/{process}/fd/2").read_text().splitlines()
    events = [json.loads(line) for line in lines if line.startswith("{")]
    asked, looked = (event for event in events if event["event"] == "request")
    assert (asked["request_id"], asked["status"], asked["level"]) == ("mine-1", 200, "info")
    assert (asked["prompt"], asked["answers"]) == (["Once"], [answer.json()["choices"][0]["text"]])
    assert (looked["path"], looked["level"]) == ("/health/ready", "debug")
    assert any(event["logger"] == "bitnet_rust.core.model" for event in events)


def streams(url: str, count: int, tokens: int) -> tuple[list[threading.Thread], list[list[str]]]:
    """Streams that have begun, in threads, and the events of each."""
    begun = threading.Semaphore(0)
    events: list[list[str]] = [[] for _ in range(count)]

    def read(into: list[str]) -> None:
        body = {"prompt": "Once", "max_tokens": tokens, "ignore_eos": True, "stream": True}
        with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=600) as stream:
            for line in filter(None, stream.iter_lines()):
                if not into:
                    begun.release()
                into.append(line.removeprefix("data: "))

    threads = [threading.Thread(target=read, args=(into,)) for into in events]
    for thread in threads:
        thread.start()
    take(begun, count)
    return threads, events


def ends(threads: list[threading.Thread], events: list[list[str]]) -> list[str]:
    """The last event of each stream, once all are over."""
    for thread in threads:
        thread.join(600)
    return [last for *_, last in events]


def test_streams_end_whole_when_replicas_go_and_when_all_is_deleted(cluster: str, path: Path) -> None:
    from ray import serve

    from bitnet_rust.integrations.ray import Settings, application

    def run(count: int) -> None:
        serve.run(application(Settings(model=str(path), replicas=count, server={"drain_timeout": 600})))

    run(2)
    open_streams = streams(cluster, 6, TOKENS)
    run(1)  # returns when one is left
    assert ends(*open_streams) == ["[DONE]"] * 6
    open_streams = streams(cluster, 2, TOKENS)
    serve.delete("default")
    assert ends(*open_streams) == ["[DONE]"] * 2


def test_streams_that_outlast_the_drain_timeout_end_with_an_error(cluster: str, path: Path) -> None:
    from ray import serve

    from bitnet_rust.integrations.ray import Settings, application

    serve.run(application(Settings(model=str(path), server={"drain_timeout": 0.5})))
    open_streams = streams(cluster, 2, 10**6)
    serve.delete("default")
    assert [json.loads(last)["error"]["code"] for last in ends(*open_streams)] == ["replica_lost"] * 2


def test_settings_that_are_not_there_are_named() -> None:
    from bitnet_rust.integrations.ray import Settings

    with pytest.raises(ValueError, match="replica_count"):
        Settings(replica_count=2)  # type: ignore[call-arg]

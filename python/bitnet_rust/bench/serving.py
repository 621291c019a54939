"""A server under load: many clients, mixed lengths, every stream compared with what the model says alone."""

import asyncio
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Unpack
from urllib.parse import urlsplit

from ..engine import Engine
from ..errors import ArgumentError, BitNetError
from ..hub import resolve
from ..model import BitNetModel
from ..runtime import num_threads
from ..tokenizer import Tokenizer
from .machine import Say, cpu_seconds, machine, process_bytes, quantile, spread
from .subject import SubjectOptions, cached, check_counts, check_options, chosen, opened, place

LEAST_TOKENS = 8  # of a reply
# What a server that is not ours gets: its tokens are unknown.
WORDS = (
    *("the", "of", "and", "to", "in", "is", "that", "for", "on", "with", "as", "be", "at", "by", "this", "had", "not"),
    *(
        "from",
        "or",
        "have",
        "they",
        "which",
        "one",
        "you",
        "were",
        "all",
        "there",
        "would",
        "their",
        "we",
        "him",
        "been",
    ),
)


def serve(
    shape: str | None = None,
    *,
    url: str | None = None,
    api_key: str | None = None,
    clients: int = 64,
    requests: int = 64,
    prompt: int = 128,
    tokens: int = 64,
    seconds: float = 20.0,
    rounds: int = 3,
    abandon: int = 0,
    engine: bool = True,
    **options: Unpack[SubjectOptions],
) -> dict[str, Any]:
    """Measure ``bitnet serve`` with many clients at once, in turns with an engine that has the same requests without a server.

    The clients are a process of their own. Each sends one request after the other, greedy completions whose text is streamed, and all
    texts are compared with what the model makes of the request alone.

    Args:
        shape, options: as in ``decode``, but for cache: random weights are always in a file, with a tokenizer of made-up words.
        url: a server of OpenAI's kind that runs elsewhere, as "http://127.0.0.1:8000", to be measured in place of one that is started;
            model is then the name that it has there. Equal requests have to get equal texts.
        api_key: what that server asks for.
        clients: requests at once.
        requests: how many different requests there are, which are sent over and over.
        prompt: the longest prompt, in tokens (words with url); the shortest has one.
        tokens: the longest reply, in tokens; the shortest has 8.
        seconds: how long requests are begun in each round.
        rounds: of the engine and the server.
        abandon: one in so many requests is left alone after its first piece, its connection closed; 0: none.
        engine: measure the engine alone too; False leaves it out, for long runs.

    Returns:
        A dictionary: "tokens_per_second" of all clients, "engine_tokens_per_second" and "of_engine", the median over rounds of the first by
        the second; "of_engine_by_cpu", the same of tokens by seconds of the processor, that of the clients among them; "first_token_ms" and "gap_ms" (between the pieces of a stream); "replies", "problems" (what went wrong, and how often),
        "differing" (replies with another text than the model's own); "client_cpu", the share of a processor that the clients took; and of
        a server that was started "rss_bytes" in the end, "rss_growth_bytes" since the first tenth of the time, and "rss_samples". The
        rounds are in "repeats". bench/README.md explains the figures.
    """
    check_counts(
        clients=(clients, 1), requests=(requests, 1), prompt=(prompt, 1), tokens=(tokens, LEAST_TOKENS), rounds=(rounds, 1), abandon=(abandon, 0)
    )  # fmt: skip
    if not isinstance(seconds, int | float) or not 0 < seconds <= 86400:
        raise ArgumentError(f"seconds = {seconds!r}: expected a number above 0, at most 86400")
    say = options.get("progress") or (lambda line: None)
    plan = {
        "clients": clients, "requests": requests, "prompt": prompt, "tokens": tokens, "seconds": seconds, "rounds": rounds, "abandon": abandon,
    }  # fmt: skip
    if url is not None:
        name = options.get("model")
        if name is None:
            raise ArgumentError("model = None: expected the name that the server gives its model")
        load = Load(plan, _requests(plan, None), name, say)
        for i in range(rounds):
            load.clients(i, url, api_key)
        return {"benchmark": "serve", "model": name, "url": url, **plan, **load.figures(), "machine": machine()}
    check_options("serve", options)
    if not options.get("cache", True):
        raise ArgumentError(f"cache = {options['cache']!r}: expected True: a server needs a file")
    name = chosen(shape, options)
    path = resolve(name, **place(options)) if options.get("model") is not None else _with_words(cached(name, **options))
    with opened("serve", "from-model", **(options | SubjectOptions(model=str(path), revision=None))) as subject:
        subject.check_context(prompt, tokens)
        load = Load(plan, _requests(plan, subject.model.config.vocab_size), SERVED, say)
        load.alone(subject.model)
        with server(path, clients, options) as (process, address):
            for i in range(rounds):
                if engine and i % 2 == 0:
                    load.engine(i, subject.model)
                load.clients(i, address, None, process)
                if engine and i % 2:
                    load.engine(i, subject.model)
        return {"benchmark": "serve", **subject.facts(), "model": name, **plan, **load.figures(), "machine": machine()}


SERVED = "measured"  # the name of the model on a server that is started


class Load:
    """Requests, and what came of them in rounds of an engine and of a server."""

    def __init__(self, plan: dict[str, Any], requests: list[dict[str, Any]], model: str, say: Say) -> None:
        self._plan, self._requests, self._model, self._say = plan, requests, model, say
        self._texts: dict[int, str] = {}  # what each request has to get
        self._rounds: list[dict[str, Any]] = [{} for _ in range(plan["rounds"])]
        self._problems: dict[str, int] = {}
        self._differing = 0
        self._memory: list[tuple[float, int]] = []

    def alone(self, model: BitNetModel) -> None:
        """Notes what a model says to each request alone."""
        self._say(f"{len(self._requests)} requests, one after the other: what the model says alone")
        for i, request in enumerate(self._requests):
            result = model.generate(request["prompt"], max_new_tokens=request["max_tokens"], details=True)
            self._texts[i] = result.text

    def engine(self, number: int, model: BitNetModel) -> None:
        """A round of an engine that has the same requests, as many at once, from the same process."""
        plan, requests = self._plan, self._requests
        early = made = begun = 0

        async def client(engine: Engine, ends: float) -> None:
            nonlocal begun
            while time.perf_counter() < ends:
                request, begun = requests[begun % len(requests)], begun + 1
                await engine.submit(request["prompt"], max_new_tokens=request["max_tokens"])

        async def crowd() -> None:
            nonlocal early, made
            start = time.perf_counter()
            tasks = [asyncio.create_task(client(engine, start + plan["seconds"])) for _ in range(plan["clients"])]
            await asyncio.sleep(plan["seconds"])
            early = engine.metrics()["generated_tokens"]
            await asyncio.gather(*tasks)
            made = engine.metrics()["generated_tokens"]

        used = time.process_time()
        with Engine(model, max_sequences=plan["clients"]) as engine:
            asyncio.run(crowd())
        speed = early / plan["seconds"]
        self._rounds[number] |= {
            "engine_tokens_per_second": speed,
            "engine_tokens_per_cpu_second": made / (time.process_time() - used),
        }
        self._say(f"{number + 1}/{plan['rounds']}: the engine alone {speed:.1f} tokens/s")

    def clients(self, number: int, url: str, api_key: str | None, process: int | None = None) -> None:
        """A round of clients of a server; with its process, whose memory is watched."""
        address = urlsplit(url)
        if address.scheme != "http" or not address.hostname:
            raise ArgumentError(f"url = {url!r}: expected http://host:port")
        plan = self._plan | {
            "host": address.hostname,
            "port": address.port or 80,
            "path": address.path.rstrip("/").removesuffix("/v1") + "/v1/completions",
            "headers": {"Authorization": f"Bearer {api_key}"} if api_key else {},
            "bodies": [
                {"model": self._model, "temperature": 0, "stream": True, "stream_options": {"include_usage": True}, **r}
                for r in self._requests
            ],
        }
        used = cpu_seconds(process)
        outcome = self._run(plan, process)
        replies = outcome["replies"]
        done = [r for r in replies if "text" in r]
        for reply in replies:
            if problem := reply.get("problem"):
                self._problems[problem] = self._problems.get(problem, 0) + 1
            elif "text" in reply and self._texts.setdefault(reply["request"], reply["text"]) != reply["text"]:
                self._differing += 1
        if len({r["id"] for r in done}) != len(done):
            self._problems["two streams have the same id"] = 1
        seconds = outcome["seconds"]
        self._rounds[number] |= {
            "tokens_per_second": sum(r["early"] for r in replies) / seconds,
            "replies": len(done),
            "abandoned": sum("abandoned" in r for r in replies),
            "first_token_ms": [1e3 * r["first"] for r in done],
            "gap_ms": [1e3 * gap for r in done for gap in r["gaps"]],
            "client_cpu": outcome["cpu_seconds"] / outcome["drained_seconds"],
        }
        if used is not None:
            used = (cpu_seconds(process) or used) - used + outcome["cpu_seconds"]
            self._rounds[number]["tokens_per_cpu_second"] = sum(r["tokens"] for r in replies) / used
        self._say(
            f"{number + 1}/{plan['rounds']}: {self._rounds[number]['tokens_per_second']:.1f} tokens/s, {len(done)} replies, "
            f"{sum(self._problems.values())} problems, {self._differing} differing"
        )

    def _run(self, plan: dict[str, Any], process: int | None) -> dict[str, Any]:
        """Runs the clients and watches the memory of a process meanwhile."""
        command = [sys.executable, "-I", str(Path(__file__).with_name("clients.py"))]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as clients:
            over = threading.Event()
            watch = threading.Thread(target=self._watch, args=(process, over, min(1.0, plan["seconds"] / 20)))
            if process is not None:
                watch.start()
            try:
                said, _ = clients.communicate(json.dumps(plan))
            except BaseException:
                clients.kill()
                raise
            finally:
                over.set()
                if process is not None:
                    watch.join()
        if clients.returncode:
            raise BitNetError(f"the clients ended with status {clients.returncode}")
        outcome: dict[str, Any] = json.loads(said)
        return outcome

    def _watch(self, process: int, over: threading.Event, pause: float) -> None:
        while not over.wait(pause):
            memory = process_bytes("VmRSS", process)
            if memory is not None:
                self._memory.append((time.perf_counter(), memory))

    def figures(self) -> dict[str, Any]:
        """What a result says of all rounds."""
        rounds = self._rounds
        found: dict[str, Any] = spread("tokens_per_second", [r["tokens_per_second"] for r in rounds])
        for key, of in (("tokens_per_second", "of_engine"), ("tokens_per_cpu_second", "of_engine_by_cpu")):
            if all(key in r and f"engine_{key}" in r for r in rounds):
                for r in rounds:
                    r[of] = r[key] / r[f"engine_{key}"]
                found |= spread(f"engine_{key}", [r[f"engine_{key}"] for r in rounds])
                found |= spread(of, [r[of] for r in rounds])
        for key in ("first_token_ms", "gap_ms"):
            values = sorted(value for r in rounds for value in r.pop(key))
            if values:
                found[key] = {"median": quantile(values, 0.5), "p95": quantile(values, 0.95), "max": values[-1]}
        found |= {key: sum(r[key] for r in rounds) for key in ("replies", "abandoned")}
        found |= {"problems": self._problems, "differing": self._differing}
        found["client_cpu"] = statistics.mean(r["client_cpu"] for r in rounds)
        if self._memory:
            found |= _memory(self._memory)
        return found | {"repeats": rounds}


def _reason(log: list[str]) -> str:
    """Why a server ended, which the last line of its log has, in JSON if nothing took that from it."""
    last = log[-1] if log else "no message"
    try:
        return str(json.loads(last)["error"])
    except (ValueError, TypeError, KeyError):
        return last


@contextmanager
def server(path: Path, clients: int, options: SubjectOptions) -> Iterator[tuple[int, str]]:
    """``bitnet serve`` as a process, that many requests at once: its number and its URL."""
    command = [
        sys.executable, "-P", "-m", "bitnet_rust", "serve", "--model", str(path), "--served-model-name", SERVED, "--port", "0",
        "--max-sequences", str(clients), "--head-dtype", options.get("head_dtype", "auto"), "--packing", options.get("packing", "auto"),
        "--kv-dtype", options.get("kv_dtype", "float32"), "--resident", "copy", "--verify", "never", "--threads", str(num_threads()),
    ]  # fmt: skip
    isa = options.get("isa")
    env = os.environ | ({"BITNET_ISA": isa} if isa else {})
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=env, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            if not url:
                log.seek(0)
                said = log.read().decode(errors="replace").strip().splitlines()
                raise BitNetError(f"the server did not start: {_reason(said)}")
            yield process.pid, url
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


def _memory(samples: list[tuple[float, int]]) -> dict[str, Any]:
    """The memory of a server: in the end, and how much of it came since the first tenth of the time."""
    start, end = samples[0][0], samples[-1][0]
    settled = [memory for at, memory in samples if at - start >= (end - start) / 10]
    quarter = max(1, len(settled) // 4)
    return {
        "rss_bytes": settled[-1],
        "rss_growth_bytes": round(statistics.median(settled[-quarter:]) - statistics.median(settled[:quarter])),
        "rss_samples": [[round(at - start, 1), memory] for at, memory in samples],
    }


def _requests(plan: dict[str, Any], vocabulary: int | None) -> list[dict[str, Any]]:
    """Prompts and lengths, short ones more often than long ones: token ids, or words where the vocabulary is not known."""
    rng = random.Random(plan["requests"])

    def length(least: int, most: int) -> int:
        return round(math.exp(rng.uniform(math.log(least), math.log(most))))

    requests = []
    for _ in range(plan["requests"]):
        size = length(1, plan["prompt"])
        prompt: Any = (
            [rng.randrange(vocabulary) for _ in range(size)] if vocabulary else " ".join(rng.choices(WORDS, k=size))
        )
        requests.append({"prompt": prompt, "max_tokens": length(LEAST_TOKENS, plan["tokens"])})
    return requests


def _with_words(native: Path) -> Path:
    """The same random weights with a tokenizer of made-up words, beside the native file."""
    file = native.with_name(f"{native.stem}-words{native.suffix}")
    if not file.exists():
        with BitNetModel.from_pretrained(native, resident="map", verify=False) as model:
            model.tokenizer = _words(model.config.vocab_size)
            model.save_pretrained(file)
    return file


def _words(size: int) -> Tokenizer:
    """A tokenizer whose tokens are "w0", "w1", ..."""
    from tokenizers import Tokenizer as Words
    from tokenizers import models, pre_tokenizers

    words = Words(models.WordLevel({f"w{i}": i for i in range(size)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return Tokenizer(words)

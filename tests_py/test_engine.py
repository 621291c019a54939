"""Engine: requests of threads and tasks as one batch, each with the text that it gets alone."""

import asyncio
import gc
import os
import random
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import bitnet_rust
from bitnet_rust import (
    ArgumentError,
    BitNetModel,
    DeadlineError,
    DTypeError,
    Engine,
    ForkError,
    Handle,
    InternalError,
    Piece,
    QueueFullError,
    RequestCanceledError,
)
from bitnet_rust.server import create_app
from conftest import SLOW
from interrupting import assert_ctrl_c_ends

PROMPT = "First Citizen:"
ENDLESS: dict[str, Any] = {"max_new_tokens": 10**6, "ignore_eos": True}


@pytest.fixture
def engine(tiny: BitNetModel) -> Iterator[Engine]:
    with Engine(tiny) as engine:
        yield engine


# --- what a request gets ---------------------------------------------------------------------------------------------


def test_requests_of_many_threads_get_what_they_get_alone(tiny: BitNetModel) -> None:
    rng = random.Random(5)
    calls = []
    for i in range(60):
        options: dict[str, Any] = {"max_new_tokens": rng.randrange(1, 40), "seed": i, "details": True}
        if i % 3:
            options |= {"temperature": rng.uniform(0.5, 2), "top_p": rng.uniform(0.5, 1), "logprobs": rng.randrange(3)}
        if i % 4 == 0:
            options |= {"stop": ["e", "\n\n"], "repetition_penalty": 1.2}
        prompt: Any = ["First", "Before we proceed any further, hear me speak." * 2, [1, 2, 3], [7] * 100][i % 4]
        calls.append((prompt, options))
    alone = [tiny.generate(prompt, **options) for prompt, options in calls]

    page = 2 * 64 * 32 * 4 * tiny.config.num_hidden_layers * 8
    with Engine(tiny, max_sequences=7, max_batch_tokens=40, kv_bytes=20 * page) as engine:
        got: list[Any] = [None] * len(calls)

        def ask(first: int) -> None:
            handles = {}
            for i in range(first, len(calls), 4):
                prompt, options = calls[i]
                rest = {name: value for name, value in options.items() if name != "details"}
                handles[i] = engine.submit(prompt, priority=i % 2, client=f"client {i % 3}", **rest)
            for i, handle in handles.items():
                got[i] = handle.result()

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert got == alone
        figures = engine.metrics()
        assert figures["submitted"] == 60
        assert figures["prefix_hit_tokens"] > 0
        assert figures["batch_size"]["sum"] / figures["batch_size"]["count"] > 2


def test_a_handle_gives_pieces_as_often_as_asked(engine: Engine, tiny: BitNetModel) -> None:
    handle = engine.submit(PROMPT, max_new_tokens=12, logprobs=1)
    pieces = list(handle)
    assert all(isinstance(piece, Piece) for piece in pieces)
    assert (
        list(handle) == pieces == list(tiny.generate(PROMPT, max_new_tokens=12, logprobs=1, details=True, stream=True))
    )
    assert handle.result().text == "".join(piece.text for piece in pieces)
    assert handle.done
    assert handle.prompt_tokens == handle.result().prompt_tokens
    assert repr(handle) == f"Handle({handle._id}, 12 tokens, done)"


@pytest.mark.parametrize("options", [{}, {"temperature": 1.2, "seed": 9, "logprobs": 0}])
def test_a_draft_model_changes_the_steps_and_not_the_text(tiny: BitNetModel, options: dict[str, Any]) -> None:
    """The model guesses for itself here: all that it guesses is right."""
    want = [tiny.generate(p, max_new_tokens=40, details=True, **options) for p in (PROMPT, [1, 2])]
    with Engine(tiny, assistant_model=tiny, num_assistant_tokens=3) as engine:
        assert [engine.submit(p, max_new_tokens=40, **options).result() for p in (PROMPT, [1, 2])] == want
        figures = engine.metrics()
    assert figures["draft_tokens"] == figures["accepted_draft_tokens"] > 0
    assert figures["steps"] < 40


def test_a_draft_model_must_know_the_same_tokens(tiny: BitNetModel, shakespeare: BitNetModel) -> None:
    with pytest.raises(
        ArgumentError, match=r"assistant_model = .* expected a model with the same tokens: vocab_size = 512"
    ):
        Engine(tiny, assistant_model=shakespeare)


def test_chat_renders_the_conversation(engine: Engine, tiny: BitNetModel) -> None:
    template = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
    reply = engine.chat(PROMPT, chat_template=template, max_new_tokens=8).result().text
    assert reply == tiny.chat(PROMPT, chat_template=template, max_new_tokens=8)


def test_a_stop_string_ends_the_request_in_the_core_too(slow: BitNetModel, tiny: BitNetModel) -> None:
    slow.tokenizer = tiny.tokenizer
    with Engine(slow) as engine:
        every = [tiny.tokenizer.decode([i]) for i in range(300)]
        handle = engine.submit(
            [1, 2, 3], stop=sorted({text for text in every if text.strip()}), seed=1, temperature=1.0, **ENDLESS
        )
        assert handle.result(60).finish_reason == "stop"
        while (figures := engine.metrics())["running"]:
            pass
        assert (figures["finished"], figures["canceled"]) == (1, 0)
    assert engine._open == {}


def test_an_engine_notices_that_the_weights_have_changed() -> None:
    shape = {k: v // 4 for k, v in SLOW.items()} | {"num_attention_heads": 4}
    prompt = [i % 50 for i in range(200)]  # whose pages are kept
    with BitNetModel.from_config(shape, trainable=True) as model, Engine(model) as engine:
        optimizer = bitnet_rust.optim.SGD(model.parameters(), lr=1.0)
        seen = []
        for _ in range(3):
            made = engine.submit(prompt, max_new_tokens=10, ignore_eos=True).result().token_ids
            assert made == model.generate(prompt, max_new_tokens=10, ignore_eos=True)
            seen.append(made)
            model.loss([prompt[:50]]).backward()
            optimizer.step()
            optimizer.zero_grad()
        assert seen[0] != seen[1]
        assert engine.metrics()["prefix_hit_tokens"] == 0


def test_a_failing_tokenizer_fails_the_request_alone(engine: Engine) -> None:
    class Broken:
        def __getattr__(self, name: str) -> Any:
            raise ZeroDivisionError("broken")

    handle = engine.submit(PROMPT, max_new_tokens=30)
    bad = engine.submit(PROMPT, **ENDLESS)
    bad._text._stream._tokenizer = Broken()  # type: ignore[union-attr, assignment]
    with pytest.raises(ZeroDivisionError, match="broken"):
        bad.result(60)
    assert len(handle.result().token_ids) == 30


# --- how a request ends ----------------------------------------------------------------------------------------------


def test_cancel_ends_a_request_that_runs_and_one_that_waits(slow: BitNetModel) -> None:
    with Engine(slow, max_sequences=1) as engine:
        running, waiting = engine.submit([1], **ENDLESS), engine.submit([2], **ENDLESS)
        pieces = iter(running)
        next(pieces)
        assert not running.done
        waiting.cancel()
        with pytest.raises(RequestCanceledError, match="canceled"):
            waiting.result(60)
        running.cancel()
        with pytest.raises(RequestCanceledError):
            list(pieces)
        assert len(list(zip(running, range(1), strict=False))) == 1, "what came before is still there"
        running.cancel()  # it has ended
        assert engine.submit([3], max_new_tokens=2).result(60).finish_reason == "length"
        assert engine.metrics()["canceled"] == 2


def test_result_waits_no_longer_than_asked_and_the_request_goes_on(slow: BitNetModel) -> None:
    with Engine(slow) as engine:
        handle = engine.submit([1], **ENDLESS)
        with pytest.raises(TimeoutError, match=r"0\.001 seconds"):
            handle.result(0.001)
        assert len(list(zip(range(3), handle, strict=False))) == 3
        handle.cancel()


def test_a_deadline_ends_a_request(slow: BitNetModel) -> None:
    with Engine(slow) as engine:
        handle = engine.submit([1], deadline=0.05, **ENDLESS)
        with pytest.raises(DeadlineError, match="deadline") as info:
            handle.result(60)
        assert isinstance(info.value, TimeoutError)
        assert engine.submit([1], deadline=600, max_new_tokens=1).result(60).finish_reason == "length"


def test_a_full_queue_refuses_requests(slow: BitNetModel) -> None:
    with Engine(slow, max_sequences=1, max_queue=1) as engine:
        handles = [engine.submit([1], **ENDLESS) for _ in range(2)]
        with pytest.raises(QueueFullError, match="max_queue = 1"):
            engine.submit([1])
        for handle in handles:
            handle.cancel()
        for handle in handles:
            with pytest.raises(RequestCanceledError):
                handle.result(60)
        engine.submit([1], max_new_tokens=1).result(60)


def test_closing_waits_and_an_exception_cancels(slow: BitNetModel) -> None:
    with Engine(slow) as engine:
        handle = engine.submit([1], max_new_tokens=5)
    assert handle.done
    assert len(handle.result().token_ids) == 5
    with pytest.raises(ArgumentError, match="closed"):
        engine.submit([1])
    engine.close()
    assert repr(engine) == "Engine(closed)"
    assert engine.metrics()["finished"] == 1

    def fail() -> None:
        with Engine(slow) as engine:
            handles.append(engine.submit([1], **ENDLESS))
            raise KeyError

    handles: list[Handle] = []
    with pytest.raises(KeyError):
        fail()
    with pytest.raises(RequestCanceledError):
        handles[0].result(60)


def test_closing_the_model_fails_the_requests(tiny_dir: Path) -> None:
    model = BitNetModel.from_config(SLOW | {"num_hidden_layers": 1})
    with Engine(model) as engine:
        handle = engine.submit([1], **ENDLESS)
        next(iter(handle))
        model.close()
        with pytest.raises(ArgumentError, match="closed"):
            handle.result(60)
        with pytest.raises(ArgumentError, match="closed"):
            engine.submit([1]).result(60)


def test_after_a_defect_an_engine_refuses_what_nobody_would_answer(
    tiny: BitNetModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    engine, told = Engine(tiny), Handle._receive

    def defect(self: Handle, *outcome: Any) -> None:
        monkeypatch.setattr(Handle, "_receive", told)
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(Handle, "_receive", defect)
    with pytest.raises(RequestCanceledError):
        engine.submit([1], max_new_tokens=4).result(60)
    engine._thread.join(60)
    assert "ZeroDivisionError: a defect" in capsys.readouterr().err
    with pytest.raises(InternalError, match="the engine has ended by a defect"):
        engine.submit([1])
    with TestClient(create_app(engine)) as client:
        ready = client.get("/health/ready")
        assert (ready.status_code, ready.json()) == (
            503,
            {"status": "failed", "reason": "the engine has ended by a defect"},
        )
    engine.close(cancel=True)
    with pytest.raises(ArgumentError, match="closed"):
        engine.submit([1])


def test_a_dropped_engine_cancels_its_requests_and_ends_its_thread(slow: BitNetModel) -> None:
    engine = Engine(slow)
    handle, thread, gone = engine.submit([1], **ENDLESS), engine._thread, weakref.ref(engine)
    next(iter(handle))
    del engine
    gc.collect()
    assert gone() is None
    thread.join(60)
    assert not thread.is_alive()
    with pytest.raises(RequestCanceledError):
        handle.result(60)


# --- asyncio ---------------------------------------------------------------------------------------------------------


def test_tasks_iterate_and_await(engine: Engine, tiny: BitNetModel) -> None:
    async def text(prompt: str) -> str:
        handle = engine.submit(prompt, max_new_tokens=15)
        streamed = "".join([piece.text async for piece in handle])
        assert (await handle).text == streamed
        return streamed

    async def main() -> list[str]:
        return await asyncio.gather(*(text(prompt) for prompt in ["First", "ROMEO:"] * 5))

    assert asyncio.run(main()) == tiny.generate(["First", "ROMEO:"] * 5, max_new_tokens=15)


def test_a_step_wakes_an_event_loop_once_however_many_requests_it_continues(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        wake = loop.call_soon_threadsafe
        monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *call: (calls.append(call), wake(*call))[1])
        await asyncio.gather(*(engine.submit("First", max_new_tokens=20, ignore_eos=True) for _ in range(8)))

    asyncio.run(main())
    engine.close()  # the last step is counted then
    figures = engine.metrics()
    assert figures["generated_tokens"] == 160
    assert 1 <= len(calls) <= figures["steps"]


def test_a_canceled_task_cancels_its_request(slow: BitNetModel) -> None:
    async def consume(handle: Handle) -> None:
        async for _ in handle:
            pass

    async def main(engine: Engine) -> list[Handle]:
        handles = [engine.submit([1], **ENDLESS), engine.submit([2], **ENDLESS)]
        for waiting in (asyncio.wait_for(handles[0], 0.05), asyncio.wait_for(consume(handles[1]), 0.05)):
            with pytest.raises(TimeoutError):
                await waiting
        return handles

    with Engine(slow) as engine:
        for handle in asyncio.run(main(engine)):
            with pytest.raises(RequestCanceledError):
                handle.result(60)


def test_the_loop_runs_while_a_task_waits(slow: BitNetModel) -> None:
    async def main(engine: Engine) -> None:
        handle = engine.submit([1], deadline=600, **ENDLESS)  # a loop that stood still would find it over
        task = asyncio.ensure_future(handle._whole())
        for _ in range(100):
            await asyncio.sleep(0)
        assert not handle.done
        handle.cancel()
        with pytest.raises(RequestCanceledError):
            await task

    with Engine(slow) as engine:
        asyncio.run(main(engine))


# --- arguments and figures -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_sequences": 0}, ArgumentError, "max_sequences = 0: expected 1 to 4096"),
        ({"max_queue": "many"}, DTypeError, "max_queue = 'many'"),
        ({"max_batch_tokens": -1}, ArgumentError, "max_batch_tokens"),
        ({"mode": "fast"}, ArgumentError, "mode = 'fast'"),
        ({"target_step": 0.1}, ArgumentError, "target_step"),
        ({"mode": "latency", "target_step": float("nan")}, ArgumentError, "target_step = nan"),
        ({"mode": "latency", "target_step": "0.5"}, DTypeError, "target_step = '0.5'"),
        ({"kv_bytes": 1000}, ArgumentError, "kv_bytes = 1000: expected at least"),
        ({"assistant_model": "small"}, DTypeError, "assistant_model = 'small': expected a BitNetModel"),
        ({"num_assistant_tokens": 4}, ArgumentError, "num_assistant_tokens = 4: expected none without an assistant"),
    ],
)
def test_an_engine_refuses_options_by_name(
    tiny: BitNetModel, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Engine(tiny, **options)


def test_an_engine_needs_a_model() -> None:
    with pytest.raises(DTypeError, match="expected a BitNetModel"):
        Engine("bitnet-shakespeare")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda e: e.submit([]), ArgumentError, "prompt is empty"),
        (lambda e: e.submit(""), ArgumentError, "prompt is empty"),
        (lambda e: e.submit([10**6]), ArgumentError, "token id out of range"),
        (lambda e: e.submit("a", temperature=-1), ArgumentError, "temperature"),
        (lambda e: e.submit("a", deadline=0), ArgumentError, "deadline = 0"),
        (lambda e: e.submit("a", deadline="5"), DTypeError, "deadline = '5'"),
        (lambda e: e.submit("a", deadline=10**400), ArgumentError, "deadline = 1000"),
        (lambda e: e.submit("a", priority=2**40), ArgumentError, "priority"),
        (lambda e: e.submit("a", client=3), DTypeError, "client = 3"),
        (lambda e: e.submit("a", client="\ud800"), ArgumentError, r"client = '\\ud800'"),
        (lambda e: e.submit("a", priorty=1), TypeError, r"submit\(\) has no keyword priorty; did you mean priority"),
    ],
)
def test_submit_refuses_arguments_by_name(
    engine: Engine, call: Callable[[Engine], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call(engine)
    assert engine.metrics()["submitted"] == 0


def test_what_is_closed_serves_no_requests(tiny_dir: Path, tiny: BitNetModel) -> None:
    closed = BitNetModel.from_pretrained(tiny_dir)
    closed.close()
    with pytest.raises(ArgumentError, match="model is closed"):
        Engine(closed)
    with pytest.raises(ArgumentError, match="assistant_model: model is closed"):
        Engine(tiny, assistant_model=closed)
    with pytest.raises(ArgumentError, match="assistant_model: model is closed"):
        tiny.generate([1], assistant_model=closed)
    with pytest.raises(ArgumentError, match="model is closed"), closed.profile():
        pass
    engine = Engine(tiny)
    engine.close()
    with pytest.raises(ArgumentError, match="engine is closed"):
        engine.submit([1])
    with pytest.raises(ArgumentError, match="engine is closed"), engine:
        pass


@pytest.mark.parametrize(
    ("timeout", "error", "message"),
    [
        (0, TimeoutError, "not done within 0"),
        (-1, TimeoutError, "not done within"),
        (float("nan"), ArgumentError, "timeout = nan: expected a number of seconds"),
        ("5", DTypeError, "timeout = '5': expected a number of seconds"),
        (10**400, ArgumentError, "timeout = 1000"),
    ],
)
def test_result_refuses_what_is_no_time(slow: BitNetModel, timeout: Any, error: type[Exception], message: str) -> None:
    with Engine(slow) as engine:
        handle = engine.submit([1], **ENDLESS)
        with pytest.raises(error, match=message):
            handle.result(timeout)
        handle.cancel()


@pytest.mark.parametrize("timeout", [float("inf"), 1e300, None])
def test_result_waits_as_long_as_it_takes(engine: Engine, timeout: float | None) -> None:
    assert len(engine.submit([1], max_new_tokens=3, ignore_eos=True).result(timeout).token_ids) == 3


def test_metrics_count_what_was_done(tiny: BitNetModel) -> None:
    with Engine(tiny, mode="latency", target_step=0.5) as engine:
        for _ in range(2):
            engine.submit([5] * 150, max_new_tokens=4, ignore_eos=True).result(60)
        engine.close()
        figures = engine.metrics()
    assert (figures["submitted"], figures["finished"], figures["generated_tokens"]) == (2, 2, 8)
    assert figures["prompt_tokens"] == 150 + 22
    assert figures["prefix_hit_tokens"] == 128
    assert (figures["running"], figures["queue_depth"], figures["kv_pages_used"]) == (0, 0, 0)
    assert figures["time_to_first_token"]["count"] == 2
    assert figures["time_per_token"]["count"] == 6
    assert len(figures["step_time"]["counts"]) == len(figures["step_time"]["bounds"]) + 1
    assert figures["tokens_per_second"] > 0


# --- the process -----------------------------------------------------------------------------------------------------

ENGINE = "from bitnet_rust import Engine\nmodel = BitNetModel.from_config(SLOW)\nengine = Engine(model)"


@pytest.mark.parametrize(
    "call",
    [
        "engine.submit([1, 2], max_new_tokens=10**6, ignore_eos=True).result()",
        "for piece in engine.submit([1, 2], max_new_tokens=10**6, ignore_eos=True): pass",
        "engine.submit([1, 2], max_new_tokens=10**6, ignore_eos=True); engine.close()",
    ],
)
def test_ctrl_c_ends_waiting(call: str) -> None:
    part = "engine.submit([1, 2], max_new_tokens=150, ignore_eos=True).result()"
    assert_ctrl_c_ends(call, ENGINE, part, after="assert model.forward([1, 2]).shape == (2, 4096)")


def test_a_process_may_end_while_requests_run() -> None:
    code = f"import json, sys\nfrom bitnet_rust import BitNetModel\nSLOW = json.loads(sys.argv[1])\n{ENGINE}\n" + (
        "handle = engine.submit([1, 2], max_new_tokens=10**6, ignore_eos=True)\nnext(iter(handle))"
    )
    import json

    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(SLOW)], capture_output=True, text=True, timeout=600, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_told_so(slow: BitNetModel) -> None:
    with Engine(slow) as engine:
        handle = engine.submit([1], **ENDLESS)
        calls: list[Callable[[], Any]] = [
            lambda: handle.result(),
            lambda: next(iter(handle)),
            lambda: handle.cancel(),
            lambda: asyncio.run(handle._whole()),
            lambda: engine.submit([1]),
            lambda: engine.metrics(),
            lambda: engine.close(),
        ]
        child = os.fork()
        if child == 0:
            told = 0
            for call in calls:
                try:
                    call()
                except ForkError:
                    told += 1
                except BaseException:
                    pass
            os._exit(0 if told == len(calls) else 1 + told)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        handle.cancel()

"""Engine: many requests at once on one model."""

import json
import math
import os
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self, Unpack

from . import _bitnet, tracing
from .arrays import seconds, whole_number
from .errors import ArgumentError, DTypeError, InternalError
from .generation import SamplingOptions, sampling_json
from .handle import Handle, refuse_forked, wake_loops
from .logs import delivered
from .model import BitNetModel, assistant_of
from .streaming import SequenceText

__all__ = ["Engine", "Handle"]

_MAX_SEQUENCES = 32  # infer.SchedulerOptions
_MAX_QUEUE = 1024


class Engine:
    """Continues requests of any number of threads and tasks as one batch.

    >>> with BitNetModel.from_pretrained("bitnet-shakespeare") as model, Engine(model) as engine:
    ...     handles = [engine.submit(prompt, max_new_tokens=32) for prompt in ["First Citizen:", "ROMEO:"]]
    ...     texts = [handle.result().text for handle in handles]

    Requests join and leave at every step, so each reading of the weights serves all of them. Long prompts are read in
    pieces between the tokens of the others. Equal beginnings of prompts, such as a system prompt, are computed and stored
    once, and kept for later requests while memory lasts. A request gets the tokens, and log-probabilities, that it would
    get alone.

    model: the model; it must stay open while the engine is.
    max_sequences: how many requests run at once (32).
    max_queue: how many more may wait (1024); ``submit`` raises QueueFullError beyond.
    max_batch_tokens: the most tokens that a step computes, one for each request that decodes, the rest for prompts.
    mode: "throughput" makes steps as large as max_batch_tokens; "latency" makes them so small that target_step is kept,
        measuring as it goes.
    target_step: seconds that a step may take in latency mode; by default twice the time of a step without prompts.
    kv_bytes: memory for keys and values, kept prefixes included; by default a quarter of what the memory budget has left,
        but no less than one request with the whole context needs and no more than max_sequences of them.
        When it ends, the request that is least important and came last waits and reads its tokens again later.
    assistant_model: a smaller model with the same tokens that guesses what the model will say. The model checks
        num_assistant_tokens guesses (4) in one step. The tokens stay the same, each step makes as many as were guessed right
        and one more.

    Leaving the ``with`` block waits for all requests, or cancels them when an exception leaves it. An engine is closed when
    it is garbage collected, too; its requests are canceled then.
    """

    def __init__(
        self,
        model: BitNetModel,
        *,
        max_sequences: int | None = None,
        max_queue: int | None = None,
        max_batch_tokens: int | None = None,
        mode: Literal["throughput", "latency"] = "throughput",
        target_step: float | None = None,
        kv_bytes: int | None = None,
        assistant_model: BitNetModel | None = None,
        num_assistant_tokens: int | None = None,
    ) -> None:
        if not isinstance(model, BitNetModel):
            raise DTypeError(f"model = {model!r}: expected a BitNetModel")
        assistant, guesses = assistant_of(assistant_model, num_assistant_tokens)
        if mode not in ("throughput", "latency"):
            raise ArgumentError(f"mode = {mode!r}: expected 'throughput' or 'latency'")
        options: dict[str, Any] = {"mode": mode, "num_assistant_tokens": guesses} | checked_limits(
            max_sequences=max_sequences, max_queue=_MAX_QUEUE if max_queue is None else max_queue,
            max_batch_tokens=max_batch_tokens, kv_bytes=kv_bytes,
        )  # fmt: skip
        if target_step is not None:
            options["target_step"] = seconds(target_step, "target_step")
        self.model = model
        self._max_queue: int = options["max_queue"]
        # before its queue is full, those that run included
        self._most_at_once: int = options.get("max_sequences", _MAX_SEQUENCES) + self._max_queue
        with delivered():
            self._core = _bitnet.scheduler(model._model, json.dumps(options), assistant)
        self._open: dict[int, Handle] = {}
        self._lock = threading.Lock()  # held while a request is entered, so that what comes of it finds it
        self._over = threading.Event()  # nothing is told to handles any more
        self._thread = threading.Thread(
            target=_receive, args=(self._core, self._open, self._lock, self._over), name="bitnet-engine", daemon=True
        )
        self._thread.start()
        self._process = os.getpid()
        self._closed = False
        self._finalizer = weakref.finalize(self, _shut, self._core, self._process)

    def submit(
        self,
        prompt: Any,
        *,
        priority: int = 0,
        deadline: float | None = None,
        client: str = "",
        add_special_tokens: bool = True,
        **options: Unpack[SamplingOptions],
    ) -> Handle:
        """Adds a request and returns at once.

        prompt: a text or token ids.
        priority: higher goes first, and may take the place of a lower one that runs. A request that waits rises slowly, so
            that none waits for ever.
        deadline: seconds from now; the request ends with DeadlineError when it is not done by then.
        client: whose request it is. Among requests of equal priority, those of the client who was served least start first.
        add_special_tokens, options: as in ``BitNetModel.generate``.

        Raises QueueFullError when the queue is full, ArgumentError for options out of range, a prompt that the context or
        kv_bytes cannot hold, or a closed engine.
        """
        self._refuse_closed()
        model = self.model
        params, stop = sampling_json(options, model.generation_config, "submit", ("priority", "deadline", "client"))
        text_asked = bool(stop) or isinstance(prompt, str)
        tokenizer = model.tokenizer if text_asked else model._tokenizer_or_none
        ids = model._prompt_ids(prompt, "prompt", add_special_tokens)
        limit = math.inf if deadline is None else seconds(deadline, "deadline")
        level = whole_number(priority, "priority")
        if not isinstance(client, str):
            raise DTypeError(f"client = {client!r}: expected a name, a text")
        if any(c == "\0" or "\ud800" <= c <= "\udfff" for c in client):
            raise ArgumentError(f"client = {client!r}: expected a name without NUL and lone surrogates")
        text = SequenceText(tokenizer, ids, stop)
        refuse_forked(self._process)
        traced = tracing.request(model._name, params, len(ids))
        handle = Handle(
            self._core, text, len(ids), options.get("logprobs") not in (None, -1), traced and traced.begin()
        )
        try:
            with self._lock:
                self._refuse_ended()
                handle._id = self._core.submit(ids, params, level, client, limit)
                self._open[handle._id] = handle
        except BaseException as error:
            if traced is not None:
                traced.end(error)
            raise
        return handle

    def chat(
        self,
        messages: str | Sequence[Mapping[str, Any]],
        *,
        chat_template: str | None = None,
        priority: int = 0,
        deadline: float | None = None,
        client: str = "",
        **options: Unpack[SamplingOptions],
    ) -> Handle:
        """Adds a request for the assistant's next message in a conversation, rendered as by ``BitNetModel.chat``.

        What the conversation has in common with an earlier one is not computed again.
        """
        prompt = self.model._render(messages, chat_template)
        with tracing.called("chat"):
            return self.submit(
                prompt, priority=priority, deadline=deadline, client=client, add_special_tokens=False, **options
            )

    def metrics(self) -> dict[str, Any]:
        """The engine's figures since its start; docs/how-to/serve-many.md explains them.

        Among the keys: ``queue_depth``, ``running``, ``batch_tokens``, ``tokens_per_second`` over the last ten seconds,
        ``kv_pages_used``, ``kv_pages_cached`` and ``kv_pages_limit``, ``prefix_hit_tokens``, ``preemptions``, counts of
        requests, and the histograms ``time_to_first_token``, ``time_per_token``, ``step_time`` (seconds) and ``batch_size``.
        """
        figures: dict[str, Any] = json.loads(self._core.metrics())
        return figures

    def close(self, *, cancel: bool = False) -> None:
        """Refuses further requests, waits for those that were accepted, or cancels them, and gives the memory back.

        Ctrl-C while it waits cancels the rest. Closing twice does nothing.
        """
        if not self._finalizer.alive:
            return
        self._closed = True
        try:
            self._core.close(not cancel)
        finally:
            self._finalizer.detach()
            if threading.current_thread() is not self._thread:
                self._thread.join()

    def __enter__(self) -> Self:
        self._refuse_closed()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(cancel=kind is not None)

    def _refuse_closed(self) -> None:
        if self._closed:
            raise ArgumentError("engine is closed")

    def _refuse_ended(self) -> None:
        if self._over.is_set() and not self._closed:
            raise InternalError(
                "the engine has ended by a defect, which standard error shows: it needs to be made again"
            )

    def __repr__(self) -> str:
        if not self._finalizer.alive:
            return "Engine(closed)"
        figures = self.metrics()
        return f"Engine({self.model!r}, {figures['running']} running, {figures['queue_depth']} waiting)"


_LIMITS = {"max_sequences": 4096, "max_queue": 2**20, "max_batch_tokens": 2**14, "kv_bytes": 2**62}


def checked_limits(**given: int | None) -> dict[str, int]:
    """Those of an engine's limits that are given; ArgumentError for one out of its range."""
    return {
        name: whole_number(value, name, range(1, _LIMITS[name] + 1))
        for name, value in given.items()
        if value is not None
    }


def _shut(core: _bitnet.Scheduler, process: int) -> None:
    """Ends a core whose engine was collected, or at the process's end; not in a process that was forked from it."""
    if os.getpid() == process:
        core.close(False)


def _receive(core: _bitnet.Scheduler, handles: dict[int, Handle], lock: threading.Lock, over: threading.Event) -> None:
    """The engine's thread: passes on what comes of requests. It must not hold the engine, which could not be collected."""
    try:
        while (outcomes := core.wait()) is not None:
            # Those that end are told first: who waits for them may have more to ask, and there is room for it now.
            ending = {
                request for request, _, _, ended, _, _, error in outcomes if ended is not None or error is not None
            }
            _tell([outcome for outcome in outcomes if outcome[0] in ending], handles, lock)
            _tell([outcome for outcome in outcomes if outcome[0] not in ending], handles, lock)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # a defect; nobody is left waiting, and nobody comes to wait
    finally:
        with lock:
            over.set()
            left = list(handles.values())
            handles.clear()
        for handle in left:
            handle._abandon()
        wake_loops(left)


def _tell(outcomes: Sequence[tuple[Any, ...]], handles: dict[int, Handle], lock: threading.Lock) -> None:
    """Gives handles what came of their requests, and forgets those that have ended."""
    with lock:
        found = [handles.get(outcome[0]) for outcome in outcomes]
    told: dict[Handle, int] = {}
    for handle, (request, token_id, logprob, ended, top, cached, error) in zip(found, outcomes, strict=True):
        if handle is not None and not handle._ended:  # it may have ended here, at a stop string
            handle._receive(token_id, logprob, ended, top, cached, error)
            told[handle] = request
    wake_loops(told)
    with lock:
        for handle, request in told.items():
            if handle._ended:
                del handles[request]

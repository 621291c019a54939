"""Generation as Python sees it: keywords, results, and the loop that turns steps of the core into text."""

import difflib
import json
from array import array
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict

from . import _bitnet, tracing
from .arrays import token_ids
from .errors import ArgumentError, DTypeError, FormatError
from .streaming import SequenceText
from .tokenizer import Tokenizer

if TYPE_CHECKING:
    from .model import BitNetModel
    from .profile import Profile


class SamplingOptions(TypedDict, total=False):
    """The keywords of ``generate`` and ``chat`` that say how a continuation is chosen and when it ends.

    They have the names and meanings of Hugging Face's ``generate``. Decoding is greedy unless ``do_sample=True`` or one
    of ``temperature``, ``top_k``, ``top_p``, ``min_p``, ``typical_p`` is given; then those of them, and a
    ``repetition_penalty``, that are not given come from the model's generation_config.json, else 1.0 and off. None means
    not given.

    max_new_tokens: the continuation ends after so many tokens; by default the model's generation_config.json says it,
        else 128.
    do_sample: whether tokens are drawn; by default where one of the options of sampling is given. False passes those
        over.
    temperature: divides the logits, 0 and more; 0 is greedy.
    top_k: keep the k most probable tokens; 0 keeps all.
    top_p: keep the most probable tokens that together reach this probability, above 0; 1 keeps all.
    min_p: keep tokens at least so many times as probable as the most probable one, 0 to 1; 0 keeps all.
    typical_p: keep the tokens nearest to the entropy that together reach this probability, above 0 (locally typical
        sampling); 1 keeps all.
    repetition_penalty: CTRL's penalty on the tokens of prompt and continuation, 0.01 to 100; 1 is none.
    presence_penalty: -2 to 2, subtracted once from the logits of tokens already generated.
    frequency_penalty: -2 to 2, subtracted for each time that a token was generated.
    logit_bias: numbers added to the logits of single tokens, by id, -100 to 100; -inf bans a token.
    seed: 0 to 2^64 - 1; equal seeds give equal texts, None draws one.
    stop: texts that end the continuation and are not part of it.
    stop_token_ids: tokens that end it, besides the model's own.
    ignore_eos: let the model's own end tokens pass.
    prompt_lookup_num_tokens: guess so many tokens, up to 16, where text repeats itself: faster, same text; 0 guesses
        none.
    logprobs: natural logarithms of the probabilities of each chosen token, and of so many most probable ones; they are
        part of what ``generate`` gives with ``details=True``, and of an engine's pieces.
    """

    max_new_tokens: int | None
    do_sample: bool | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    typical_p: float | None
    repetition_penalty: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    logit_bias: Mapping[int, float] | None
    seed: int | None
    stop: str | Sequence[str] | None
    stop_token_ids: Sequence[int] | None
    ignore_eos: bool | None
    prompt_lookup_num_tokens: int | None
    logprobs: int | None


class GenerationOptions(SamplingOptions, total=False):
    """The keywords of ``generate`` and ``chat``: those of a continuation, and who guesses.

    assistant_model: a smaller model with the same tokens, that guesses: faster, same text.
    num_assistant_tokens: how many it guesses at a time, 1 to 16; by default 4.
    """

    assistant_model: "BitNetModel | None"
    num_assistant_tokens: int | None


_SAMPLERS = ("temperature", "top_k", "top_p", "min_p", "typical_p")
_FROM_MODEL = (*_SAMPLERS, "repetition_penalty")  # generation_config may have these for sampling


@dataclass(frozen=True)
class Piece:
    """One step of a stream: a token and the text it completes, which is empty while a character or a possible stop
    string is incomplete.

    index: which prompt of the batch it belongs to, from 0.
    text: what the token completes; all of them together are the continuation, without the stop string.
    token_id: the token.
    finish_reason: "stop" after an end token, a stop id or a stop string, "length" after max_new_tokens or at the end of
        the context; None while it goes on.
    logprob: natural logarithm of the token's probability; None unless ``logprobs`` was asked for.
    top_logprobs: (token id, logarithm) of the most probable tokens, the best first, as many as ``logprobs`` says.
    """

    index: int
    text: str
    token_id: int
    finish_reason: str | None = None
    logprob: float | None = None
    top_logprobs: tuple[tuple[int, float], ...] = ()


@dataclass
class GenerationResult:
    """A whole continuation.

    text: without the stop string; empty when the model has no tokenizer.
    token_ids: all generated tokens, an end token included.
    finish_reason: "stop" (an end token, a stop id or a stop string) or "length".
    prompt_tokens: how many tokens the prompt had.
    logprobs: natural logarithms of the probabilities of token_ids, one each; None unless asked for.
    top_logprobs: for each of them (token id, logarithm) of the most probable tokens, the best first; None unless asked
        for.
    profile: of the call; None unless asked for. All results of a batch have the same.
    """

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    finish_reason: str = "length"
    prompt_tokens: int = 0
    logprobs: list[float] | None = None
    top_logprobs: list[tuple[tuple[int, float], ...]] | None = None
    profile: "Profile | None" = None


def generation_defaults(text: str, source: str) -> dict[str, Any]:
    """The fields of a generation_config.json of source. FormatError if it is not a JSON object."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"generation_config.json of {source} is not a JSON object: {error}") from error
    if not isinstance(fields, dict):
        raise FormatError(f"generation_config.json of {source} is not a JSON object: {type(fields).__name__}")
    return fields


def check_defaults(fields: Mapping[str, Any], source: str) -> None:
    """FormatError for a field that generation takes and that has not the type for it."""
    for name in _FROM_MODEL:
        value = fields.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise FormatError(f"generation_config.json of {source}: {name} = {value!r}: expected a number")
    eos = fields.get("eos_token_id")
    for token in eos if isinstance(eos, list) else [eos] if eos is not None else []:
        if isinstance(token, bool) or not isinstance(token, int):
            raise FormatError(f"generation_config.json of {source}: eos_token_id = {eos!r}: expected token ids")


def sampling_json(
    options: Mapping[str, Any],
    defaults: Mapping[str, Any],
    call: str = "generate",
    keywords: Sequence[str] = (
        "stream",
        "details",
        "profile",
        "return_full_text",
        "assistant_model",
        "num_assistant_tokens",
    ),
) -> tuple[str, list[str]]:
    """The core's sampling parameters as JSON, and the stop strings, of the options of one call.

    defaults is the model's generation_config.json; call and its other keywords are for the message about an unknown one.
    """
    unknown = set(options) - set(SamplingOptions.__annotations__)
    if unknown:
        known = [*keywords, "add_special_tokens", *SamplingOptions.__annotations__]
        raise TypeError(no_keyword(sorted(unknown), call, known))
    given = {name: _plain(name, value) for name, value in options.items() if value is not None}
    stop = _stop_strings(given.pop("stop", ()))
    sample = given.pop("do_sample", any(name in given for name in _SAMPLERS))
    if not isinstance(sample, bool):
        raise ArgumentError(f"do_sample = {sample!r}: expected True or False")
    if sample:
        given = {"temperature": 1.0} | {k: defaults[k] for k in _FROM_MODEL if defaults.get(k) is not None} | given
    else:
        given = {name: value for name, value in given.items() if name not in _SAMPLERS}
    if "max_new_tokens" not in given and isinstance(defaults.get("max_new_tokens"), int):
        given["max_new_tokens"] = defaults["max_new_tokens"]
    if "stop_token_ids" in given:
        given["stop_token_ids"] = token_ids(given["stop_token_ids"], "stop_token_ids").tolist()
    if not given.get("ignore_eos"):
        eos = defaults.get("eos_token_id")
        given["stop_token_ids"] = given.get("stop_token_ids", []) + (
            [] if eos is None else eos if isinstance(eos, list) else [eos]
        )
    if "logit_bias" in given:
        given["logit_bias"] = _logit_bias(given["logit_bias"])
    return json.dumps(given), stop


def no_keyword(names: Iterable[str], call: str, known: Sequence[str]) -> str:
    """What to say about keywords that a call does not have."""
    close = dict.fromkeys(match for name in names for match in difflib.get_close_matches(name, known, 2))
    hint = f"did you mean {' or '.join(close)}?" if close else f"it has {', '.join(known)}"
    return f"{call}() has no keyword {', '.join(names)}; {hint}"


_NOT_NUMBERS = ("stop", "stop_token_ids", "logit_bias")


def _plain(name: str, value: Any) -> Any:
    """An option as JSON has it; NumPy's scalars are numbers."""
    if name in _NOT_NUMBERS:
        return value
    if hasattr(value, "item") and getattr(value, "size", 1) == 1:
        value = value.item()
    if not isinstance(value, bool | int | float | str):
        raise DTypeError(f"{name} = {value!r}: expected a number")
    return value


def _logit_bias(biases: Any) -> dict[str, float]:
    """JSON's form of {token id: bias}."""
    if not isinstance(biases, Mapping):
        raise ArgumentError(f"logit_bias = {biases!r}: expected a dictionary of token ids and numbers")
    out = {}
    for token, bias in biases.items():
        try:
            key = str(int(token) if isinstance(token, str) else token_ids(token)[0])  # JSON's keys are texts
            out[key] = float(bias)
        except (TypeError, ValueError):
            raise ArgumentError(f"logit_bias[{token!r}] = {bias!r}: expected a token id and a number") from None
    return out


def _stop_strings(stop: Any) -> list[str]:
    if isinstance(stop, bytes) or not isinstance(stop, Iterable):
        raise ArgumentError(f"stop = {stop!r}: expected a text or a list of texts")
    stops = [stop] if isinstance(stop, str) else list(stop)
    for text in stops:
        if not isinstance(text, str) or not text:
            raise ArgumentError(f"stop = {text!r}: expected texts of at least one character")
    return stops


class Session:
    """One generation under way: a batch of prompts, each with its text stream and stop strings.

    Iterating gives the pieces as they come; closing, or dropping it, gives the memory back.

    prompts: the token ids of each.
    """

    def __init__(
        self,
        model: _bitnet.Model,
        prompts: Sequence[Sequence[int]],
        params: str,
        stop: Sequence[str],
        tokenizer: Tokenizer | None,
        logprobs: bool,
        assistant: _bitnet.Model | None = None,
        assistant_tokens: int = 0,
        name: str = "bitnet",
    ) -> None:
        self.prompts = prompts
        self._logprobs = logprobs
        self._traced = tracing.request(name, params, sum(map(len, prompts)))
        ids = array("i")
        for prompt in prompts:
            ids.extend(prompt)
        self._generation = _bitnet.generation(
            model, ids, array("q", map(len, prompts)), params, assistant, assistant_tokens
        )
        self._texts: list[SequenceText | None] = [SequenceText(tokenizer, prompt, stop) for prompt in prompts]

    def __iter__(self) -> Generator[Piece, None, None]:
        pieces = self._pieces()
        return pieces if self._traced is None else self._traced.follow(pieces)

    def _pieces(self) -> Generator[Piece, None, None]:
        left = len(self.prompts)
        try:
            while left:
                for index, token_id, logprob, ended, top in self._generation.step():
                    sequence = self._texts[index]
                    if sequence is None:  # it has ended at a stop string, and the step had made more tokens
                        continue
                    text, finish = sequence.push(token_id, ended)
                    if finish is not None:
                        left -= 1
                        self._texts[index] = None
                        if ended is None:  # at a stop string, which the core does not see
                            self._generation.finish(index)
                    if self._logprobs:
                        yield Piece(index, text, token_id, finish, logprob, top)
                    else:
                        yield Piece(index, text, token_id, finish)
        finally:
            self._generation.close()

    def prompt_progress(self) -> tuple[int, int]:
        """Prompt tokens read, of how many."""
        _, read, total = self._generation.progress()
        return read, total

    def results(self) -> list[GenerationResult]:
        """Runs to the end."""
        pieces: list[list[Piece]] = [[] for _ in self.prompts]
        for piece in self:
            pieces[piece.index].append(piece)
        return [
            join_pieces(parts, len(prompt), self._logprobs) for parts, prompt in zip(pieces, self.prompts, strict=True)
        ]


def join_pieces(pieces: Sequence[Piece], prompt_tokens: int, logprobs: bool) -> GenerationResult:
    """The whole continuation that pieces are the steps of."""
    return GenerationResult(
        text="".join(piece.text for piece in pieces),
        token_ids=[piece.token_id for piece in pieces],
        finish_reason=next((piece.finish_reason for piece in pieces if piece.finish_reason), "length"),
        prompt_tokens=prompt_tokens,
        logprobs=[piece.logprob for piece in pieces if piece.logprob is not None] if logprobs else None,
        top_logprobs=[piece.top_logprobs for piece in pieces] if logprobs else None,
    )

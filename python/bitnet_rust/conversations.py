"""Conversations as examples: rendered by a chat template, with the assistant's tokens as what is to be learned."""

import json
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import ArgumentError, DTypeError, TokenizerError, printable
from .texts import json_records, read_text, text_files
from .tokenize import added_tokens
from .tokenizer import Tokenizer

IGNORED = -100  # a label that does not count, as in PyTorch and Hugging Face

# BitNet's form, for models without a template. A turn ends with the end token, or with an empty line where there is none.
DEFAULT_CHAT_TEMPLATE = (
    "{% set end = eos_token if eos_token is defined else '\\n\\n' %}"
    "{{ bos_token if bos_token is defined else '' }}"
    "{% for message in messages %}"
    "{{ message['role'] | capitalize }}: "
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] | trim }}{{ end }}{% endgeneration %}"
    "{% else %}{{ message['content'] | trim }}{{ end }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}Assistant: {% endif %}"
)

_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
# Fields that make a record a conversation. The first that fits counts: records with messages have other fields beside them, such as
# the prompt that the first message repeats.
_FORMS = (("messages",), ("conversations",), ("prompt", "completion"), ("instruction", "output"))
# One of these as a key, in what is no JSON, says that it was meant to be conversations.
_KEYS = re.compile(r'"(messages|conversations|completion|instruction)"\s*:')
_SHOWN = 200  # characters of a value that errors show
_EXPECTED = '"messages", "conversations", "prompt" and "completion", or "instruction" and "output"'


def is_conversation(record: Any) -> bool:
    """Whether an element of data is a conversation in one of the forms that chat_example takes."""
    return isinstance(record, Mapping) and "input_ids" not in record and _form(record) is not None


def _is_meant(record: Any) -> bool:
    """Whether a record, which is no conversation, was meant to be one: it has a field of one, and no text."""
    return (
        isinstance(record, Mapping)
        and "text" not in record
        and any(field in record for form in _FORMS for field in form)
    )


def hold_conversations(path: Path) -> bool:
    """Whether a path is a .jsonl or .json file of conversations, or a directory that begins with one. That of a .jsonl file its first
    record says. A .json file is a text like any other unless there are conversations in it, or would be if it were well formed."""
    if not path.exists():
        return False
    file = text_files(path)[0]
    if file.suffix == ".jsonl":
        first = next(json_records(file, "data"), (0, None))[1]
        return is_conversation(first) or _is_meant(first)
    if file.suffix != ".json":
        return False
    text = read_text(file, "data")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return text.lstrip().startswith(("[", "{")) and _KEYS.search(text) is not None
    return any(map(is_conversation, values if isinstance(values, list) else [values]))


def conversations(path: Path, name: str) -> Iterator[dict[str, Any]]:
    """The conversations of a file, or of a directory's files, each of a form that chat_example takes."""
    for file in text_files(path, name):
        for number, record in json_records(file, name):
            try:
                _check(record)
            except (ArgumentError, DTypeError) as error:
                place = "line" if file.suffix == ".jsonl" else "entry"
                raise type(error)(f"{name}: {place} {number} of {file}: {error}") from None
            yield record


def chat_example(record: Mapping[str, Any], tokenizer: Tokenizer, where: str = "record") -> dict[str, "array[int]"]:
    """The token ids of a conversation, and labels: the ids that the assistant says, and -100 elsewhere.

    record: one of
        {"messages": [{"role": "user", "content": ...}, ...]}, and "tools" for the template if it has them;
        {"conversations": [{"from": "human", "value": ...}, {"from": "gpt", ...}]};
        {"prompt": ..., "completion": ...}, two texts, which no template touches, or two lists of messages, of which the
            second is learned;
        {"instruction": ..., "input": ..., "output": ...}, which is a message of the user and one of the assistant.
    tokenizer: its chat_template renders messages.
    where: what the record is called in errors.

    Of a record that has the fields of several forms, the first of them counts.

    The assistant's part begins where generation would, after what the template puts before a reply, and ends with the token
    that ends the turn. A template says so itself by {% generation %}; otherwise the parts are found by rendering each beginning
    of the conversation. No token holds an end of the prompt and a start of the reply: the ids before a reply are those
    that generation is given.

    Raises ArgumentError for a record of another form, TokenizerError where the template renders a message otherwise when more
    follows, so that its part cannot be told.
    """
    if _is_completion(record):
        return _completion(record, tokenizer, where)
    messages, first = _messages(record, where)
    variables = {"tools": record["tools"]} if record.get("tools") else {}
    text, spans = _assistant_spans(tokenizer, messages, first, variables, where)
    ids, places = _encode(tokenizer, text, spans)
    labels = array("i", [IGNORED]) * len(ids)
    for begin, end in places:
        end = _turn_end(tokenizer, ids, begin, end)
        labels[begin:end] = ids[begin:end]
    return {"input_ids": ids, "labels": labels}


def first_prompt(record: Mapping[str, Any], tokenizer: Tokenizer) -> tuple[str, bool]:
    """The text of a conversation before the assistant's first message, as generation takes it, and whether the tokenizer is to add
    its special tokens, which a template writes itself."""
    if _is_completion(record):
        return str(record["prompt"]), True
    messages, first = _messages(record, "record")
    roles = [message["role"] for message in messages]
    before = messages[: roles.index("assistant", first)] if "assistant" in roles[first:] else messages
    return tokenizer.apply_chat_template(before, tokenize=False, add_generation_prompt=True), False


# --- the forms of records --------------------------------------------------------------------------------------------


def _form(record: Mapping[str, Any]) -> str | None:
    """The first field of the form that a record has. A field that is None is missing, as in tables of records of several forms."""
    return next((form[0] for form in _FORMS if all(record.get(field) is not None for field in form)), None)


def _is_completion(record: Any) -> bool:
    """Whether a record is a text and what follows it, without messages."""
    return isinstance(record, Mapping) and _form(record) == "prompt" and isinstance(record["prompt"], str)


def _check(record: Any) -> None:
    """Raises what chat_example would, of the form alone."""
    if _is_completion(record):
        _reply(record, "record")
    else:
        _messages(record, "record")


def _reply(record: Mapping[str, Any], where: str) -> str:
    reply = record["completion"]
    if not isinstance(reply, str):
        raise DTypeError(f"{where}.completion is of type {type(reply).__name__}: expected a text, as the prompt")
    return reply


def _completion(record: Mapping[str, Any], tokenizer: Tokenizer, where: str) -> dict[str, "array[int]"]:
    """A text and what follows it, with the end token after it."""
    said = _reply(record, where)
    before, after = added_tokens(tokenizer)
    prompt = [*before, *tokenizer.encode(record["prompt"], add_special_tokens=False)]
    reply = [*tokenizer.encode(said, add_special_tokens=False), *after]
    end = tokenizer.eos_token_id
    if end is not None and reply[-1:] != [end]:
        reply.append(end)
    return {"input_ids": array("i", prompt + reply), "labels": array("i", [IGNORED] * len(prompt) + reply)}


def _messages(record: Mapping[str, Any], where: str) -> tuple[list[dict[str, Any]], int]:
    """The messages of a record, and the first one that may be learned."""
    form = _form(record) if isinstance(record, Mapping) else None
    if form == "messages":
        return _checked(record["messages"], f"{where}.messages"), 0
    if form == "conversations":
        return _checked(_turns(record["conversations"], f"{where}.conversations"), f"{where}.conversations"), 0
    if form == "prompt":
        prompt = _checked(record["prompt"], f"{where}.prompt", "a text or a list of messages")
        return prompt + _checked(record["completion"], f"{where}.completion"), len(prompt)
    if form == "instruction":
        parts = {field: record.get(field) for field in ("instruction", "input", "output")}
        for field, text in parts.items():
            if text is not None and not isinstance(text, str):
                raise ArgumentError(f"{where}.{field} = {text!r}: expected a text")
        asked = "\n\n".join(text for text in (parts["instruction"], parts["input"]) if text)
        return [{"role": "user", "content": asked}, {"role": "assistant", "content": parts["output"]}], 0
    raise ArgumentError(f"{where}: expected {_EXPECTED}, found {printable(repr(record), _SHOWN)}")


def _turns(turns: Any, where: str) -> Any:
    """Turns {"from": ..., "value": ...} as messages; what has another form stays as it is."""
    if not isinstance(turns, list) or not all(isinstance(turn, Mapping) and "from" in turn for turn in turns):
        return turns
    for i, turn in enumerate(turns):
        if not isinstance(turn["from"], str):
            raise ArgumentError(f"{where}[{i}].from = {turn['from']!r}: expected a text")
    return [{"role": _ROLES.get(turn["from"], turn["from"]), "content": turn.get("value")} for turn in turns]


def _checked(messages: Any, where: str, expected: str = "a list of messages") -> list[dict[str, Any]]:
    if not isinstance(messages, list) or not messages:
        raise ArgumentError(f"{where} = {printable(repr(messages), _SHOWN)}: expected {expected}")
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise ArgumentError(
                f"{where}[{i}] = {printable(repr(message), _SHOWN)}: expected an object with role and content"
            )
        content = message.get("content")
        if not isinstance(content, str) and not (content is None and message.get("tool_calls")):
            raise ArgumentError(f"{where}[{i}].content = {printable(repr(content), _SHOWN)}: expected a text")
    return [dict(message) for message in messages]


# --- where the assistant speaks --------------------------------------------------------------------------------------


def _assistant_spans(
    tokenizer: Tokenizer, messages: Sequence[Mapping[str, Any]], first: int, variables: Mapping[str, Any], where: str
) -> tuple[str, list[tuple[int, int]]]:
    """The rendered conversation, and which characters of it the assistant says, in messages from first on."""
    text, marked = tokenizer.render_generation(messages, **variables)
    if marked:
        earlier = sum(message["role"] == "assistant" for message in messages[:first])
        return text, marked[earlier:]
    spans = []
    for i, message in enumerate(messages):
        if message["role"] != "assistant" or i < first:
            continue
        if i == 0:
            raise ArgumentError(
                f"{where}: the assistant speaks first: expected a message of the user or the system before"
            )
        options: dict[str, Any] = {"tokenize": False, **variables}
        before: str = tokenizer.apply_chat_template(messages[:i], add_generation_prompt=True, **options)
        through: str = tokenizer.apply_chat_template(messages[: i + 1], **options)
        end = _shared(through, text)  # some templates put an end token after the last message only
        said = (message.get("content") or "").strip()
        if not through.startswith(before) or end < len(before) or said not in text[len(before) : end]:
            raise TokenizerError(
                f"{where}: the chat template renders message {i} otherwise when others follow, so that it cannot be told which tokens are "
                "the assistant's: put {% generation %} and {% endgeneration %} around them in the template"
            )
        spans.append((len(before), end))
    return text, spans


def _encode(
    tokenizer: Tokenizer, text: str, spans: list[tuple[int, int]]
) -> tuple["array[int]", list[tuple[int, int]]]:
    """Token ids of a text, and the spans in them. Where a token would reach over a border, the text is cut there."""
    borders = [at for span in spans for at in span]
    ids = tokenizer.encode(text, add_special_tokens=False)
    places = []
    for at in borders:
        head = tokenizer.encode(text[:at], add_special_tokens=False)
        if ids[: len(head)] != head:
            break
        places.append(len(head))
    else:
        return array("i", ids), list(zip(places[::2], places[1::2], strict=True))
    pieces = [text[begin:end] for begin, end in zip([0, *borders], [*borders, len(text)], strict=True)]
    parts = [tokenizer.encode(piece, add_special_tokens=False) for piece in pieces]
    joined, places = array("i"), []
    for part in parts:
        joined.extend(part)
        places.append(len(joined))
    if tokenizer.decode(joined, False) != tokenizer.decode(ids, False):  # one that puts a space before every text
        return array("i", ids), [
            (_common(tokenizer, text[:b], ids), _common(tokenizer, text[:e], ids)) for b, e in spans
        ]
    return joined, list(zip(places[:-1:2], places[1:-1:2], strict=True))


def _common(tokenizer: Tokenizer, beginning: str, ids: list[int]) -> int:
    """How many tokens of a text those of its beginning share with it."""
    return _shared(tokenizer.encode(beginning, add_special_tokens=False), ids)


def _shared(a: Sequence[Any], b: Sequence[Any]) -> int:
    """How far two sequences are the same."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _turn_end(tokenizer: Tokenizer, ids: "array[int]", begin: int, end: int) -> int:
    """The end of a reply without the white space that a template puts after the token that ends a turn."""
    special = set(tokenizer.special_ids)
    last = max((at for at in range(begin, end) if ids[at] in special), default=None)
    if last is None or tokenizer.decode(ids[last + 1 : end], skip_special_tokens=False).strip():
        return end
    return last + 1

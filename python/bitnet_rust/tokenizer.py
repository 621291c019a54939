"""Text to token ids and back, by Hugging Face's `tokenizers`, and chat templates by Jinja."""

import json
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from . import _bitnet
from .arrays import token_ids
from .errors import ArgumentError, BitNetError, DTypeError, FileSystemError, FormatError, TokenizerError
from .hub import resolve
from .tokenizer_file import LibraryErrors, open_tokenizer

if TYPE_CHECKING:
    import tokenizers

# The files of a tokenizer, as checkpoints name them.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")

# What older checkpoints have for a tokenizer.json. It is no text: among those of a model it stands for why none could be made of it.
SENTENCEPIECE = "tokenizer.model"

_SPECIAL_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")


class Tokenizer:
    """The tokenizer of a model.

    >>> tokenizer = Tokenizer.from_pretrained("bitnet-shakespeare")
    >>> tokenizer.decode(tokenizer.encode("Hello"))
    'Hello'

    backend: the ``tokenizers.Tokenizer`` that does the work.
    chat_template: Jinja's text for ``apply_chat_template``; None for a model without one.
    """

    def __init__(
        self, backend: "tokenizers.Tokenizer", config: Mapping[str, Any] | None = None, chat_template: str | None = None
    ) -> None:
        self.backend = backend
        self._config = dict(config or {})
        self.chat_template = chat_template or _template_in(self._config)
        self._special = {name: _content(self._config.get(name)) for name in _SPECIAL_TOKENS}

    @classmethod
    def from_pretrained(
        cls, name: str | PathLike[str], *, revision: str | None = None, local_files_only: bool = False
    ) -> "Tokenizer":
        """Reads the tokenizer of a model, which need not be there itself.

        name: as for ``BitNetModel.from_pretrained``: a directory with tokenizer.json, or a
            tokenizer.model of Llama's kind, and beside it tokenizer_config.json and chat_template.jinja where they exist, a ``.bitnet`` file, a registered name, or a
            Hugging Face repository.
        revision, local_files_only: as in huggingface_hub.
        """
        path = resolve(name, revision=revision, local_files_only=local_files_only, files=TOKENIZER_FILES)
        try:
            texts: dict[str, str] = json.loads(_bitnet.assets(path))
        except (FormatError, FileSystemError) as error:
            raise TokenizerError(f"the tokenizer in {path} cannot be read: {error}") from error
        return cls.from_files(texts, str(path))

    @classmethod
    def from_files(cls, texts: Mapping[str, str], source: str) -> "Tokenizer":
        """Makes a tokenizer of the contents of its files by name; source says in errors where they came from."""
        if "tokenizer.json" not in texts:
            others = [name for name in (SENTENCEPIECE, "vocab.json", "vocab.txt") if name in texts]
            only = f" but a {others[0]}" if others else ""
            why = f", of which none can be made: {texts[others[0]]}" if others[:1] == [SENTENCEPIECE] else ""
            raise TokenizerError(
                f"{source} has no tokenizer.json{only}{why}; token ids can be passed instead of text, or put a tokenizer.json beside the weights"
            )
        config: dict[str, Any] = {}
        for name in ("special_tokens_map.json", "tokenizer_config.json"):
            if name in texts:
                try:
                    config |= dict(json.loads(texts[name]))
                except (ValueError, TypeError, RecursionError) as error:
                    raise TokenizerError(f"{name} of {source} is not a JSON object: {error}") from error
        return cls(open_tokenizer(texts["tokenizer.json"], source), config, texts.get("chat_template.jinja"))

    @classmethod
    def train_bpe(
        cls, texts: str | Iterable[str], vocab_size: int, *, special_tokens: Sequence[str] = (), progress: bool = False
    ) -> "Tokenizer":
        """Learns a byte-level BPE vocabulary (as GPT-2's) from a text or several; it can spell every text.

        vocab_size: at least 256, one for each byte, and the special tokens; a small text may not fill it.
        special_tokens: such as "<|endoftext|>"; they come first, and decode() skips them.
        progress: let the library draw its bars.
        """
        import tokenizers
        from tokenizers import decoders, models, pre_tokenizers, trainers

        if vocab_size < 256 + len(special_tokens):
            raise TokenizerError(
                f"vocab_size = {vocab_size}: expected at least 256 and the {len(special_tokens)} special tokens"
            )
        backend = tokenizers.Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(special_tokens),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=progress,
        )
        backend.train_from_iterator([texts] if isinstance(texts, str) else texts, trainer)
        return cls(backend)

    @classmethod
    def bytes(cls) -> "Tokenizer":
        """A tokenizer whose 256 tokens are the bytes of UTF-8: nothing to learn, and it can spell every text."""
        return cls.train_bpe([], 256)

    @classmethod
    def characters(cls, text: str) -> "Tokenizer":
        """A tokenizer whose tokens are the characters that occur in a text, sorted; it refuses all others."""
        import tokenizers
        from tokenizers import Regex, decoders, models, pre_tokenizers

        if not text:
            raise TokenizerError("text is empty: expected at least one character")
        backend = tokenizers.Tokenizer(models.WordLevel({c: i for i, c in enumerate(sorted(set(text)))}))
        backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        backend.decoder = decoders.Fuse()
        return cls(backend)

    def to_files(self) -> dict[str, str]:
        """The texts of its files by name, as from_files() takes them."""
        files = {"tokenizer.json": self.backend.to_str()}
        config = dict(self._config)
        if self.chat_template and _template_in(config) != self.chat_template:
            files["chat_template.jinja"] = self.chat_template
        config.setdefault("tokenizer_class", "PreTrainedTokenizerFast")
        files["tokenizer_config.json"] = json.dumps(config, ensure_ascii=False, indent=2) + "\n"
        return files

    def save_pretrained(self, directory: str | PathLike[str]) -> None:
        """Writes its files into a directory (made if need be), for from_pretrained()."""
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in self.to_files().items():
            (folder / name).write_text(text, "utf-8")

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """The token ids of a text; add_special_tokens puts in what the tokenizer's post-processor says, such as BOS."""
        if not isinstance(text, str):
            raise DTypeError(f"text is of type {type(text).__name__}: expected str")
        try:
            with LibraryErrors("the text cannot be encoded"):
                ids: list[int] = self.backend.encode(text, add_special_tokens=add_special_tokens).ids
        except TokenizerError as error:
            raise self._better(error, text) from error.__cause__
        return ids

    def _better(self, error: TokenizerError, text: str) -> BitNetError:
        """What is wrong with the text, where that can be said."""
        if isinstance(error.__cause__, TypeError):
            at = next(at for at, character in enumerate(text) if "\ud800" <= character <= "\udfff")
            return ArgumentError(
                f"text[{at}] = {text[at]!r}: half of a surrogate pair or an undecoded byte: expected Unicode text"
            )
        strange = next((c for c in text if self.token_to_id(c) is None), None)
        if "WordLevel" in str(error) and strange is not None:
            return TokenizerError(f"the character {strange!r} is not in the vocabulary of this tokenizer")
        return error

    def decode(self, ids: Any, skip_special_tokens: bool = True) -> str:
        """The text of token ids (an int, a sequence, an array); bytes that form no character become U+FFFD."""
        numbers = token_ids(ids, "ids").tolist()
        if numbers and min(numbers) < 0:
            raise ArgumentError(f"ids has {min(numbers)}: expected token ids, 0 and up")
        return self._decode(numbers, skip_special_tokens)

    def _decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        """decode() of a list that has nothing but token ids: streams have one for each token, and looking at it takes much longer."""
        with LibraryErrors("the token ids cannot be decoded"):
            text: str = self.backend.decode(ids, skip_special_tokens=skip_special_tokens)
        return text

    def token_to_id(self, token: str) -> int | None:
        """The id of a token, spelled as in tokenizer.json; None if there is no such token."""
        found: int | None = self.backend.token_to_id(token)
        return found

    def id_to_token(self, token_id: int) -> str | None:
        """A token as tokenizer.json spells it; None if there is none with this id."""
        found: str | None = self.backend.id_to_token(token_id) if 0 <= token_id < 2**32 else None
        return found

    @property
    def vocab_size(self) -> int:
        """Number of tokens, added ones included."""
        size: int = self.backend.get_vocab_size()
        return size

    def __len__(self) -> int:
        return self.vocab_size

    @property
    def bos_token(self) -> str | None:
        """The token that begins a text; None if the tokenizer names none."""
        return self._special["bos_token"]

    @property
    def eos_token(self) -> str | None:
        """The token that ends a text; None if the tokenizer names none."""
        return self._special["eos_token"]

    @property
    def pad_token(self) -> str | None:
        """The token that fills up a batch; None if the tokenizer names none."""
        return self._special["pad_token"]

    @property
    def unk_token(self) -> str | None:
        """The token for what has none; None if the tokenizer names none."""
        return self._special["unk_token"]

    def _special_id(self, name: str) -> int | None:
        token = self._special[name]
        return None if token is None else self.token_to_id(token)

    @property
    def bos_token_id(self) -> int | None:
        """The id of bos_token."""
        return self._special_id("bos_token")

    @property
    def eos_token_id(self) -> int | None:
        """The id of eos_token."""
        return self._special_id("eos_token")

    @property
    def pad_token_id(self) -> int | None:
        """The id of pad_token."""
        return self._special_id("pad_token")

    @property
    def special_ids(self) -> list[int]:
        """Ids of the special tokens, which decode() skips."""
        return sorted(i for i, token in self.backend.get_added_tokens_decoder().items() if token.special)

    @overload
    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tokenize: Literal[True] = ...,
        add_generation_prompt: bool = ...,
        chat_template: str | None = ...,
        **variables: Any,
    ) -> list[int]: ...
    @overload
    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tokenize: Literal[False],
        add_generation_prompt: bool = ...,
        chat_template: str | None = ...,
        **variables: Any,
    ) -> str: ...
    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tokenize: bool = True,
        add_generation_prompt: bool = False,
        chat_template: str | None = None,
        **variables: Any,
    ) -> list[int] | str:
        """Renders a conversation ([{"role": "user", "content": "..."}, ...]) as the model was trained to read it.

        The template is the model's own, or the one passed; it runs in Jinja's sandbox, and only as long as a text of that
        length takes. Further keyword arguments
        (tools, documents, ...) are given to it. Returns token ids, or the text with ``tokenize=False``.
        """
        given = {"messages": messages, "add_generation_prompt": add_generation_prompt} | variables
        text, _ = self._render(messages, self.chat_template if chat_template is None else chat_template, given)
        return self.encode(text, add_special_tokens=False) if tokenize else text

    def render_generation(
        self, messages: Sequence[Mapping[str, Any]], **variables: Any
    ) -> tuple[str, list[tuple[int, int]]]:
        """A conversation as text, and from where to where in it reach the parts that the template says are generated, between
        {% generation %} and {% endgeneration %} as in Hugging Face's templates; none where it says nothing."""
        return self._render(
            messages, self.chat_template, {"messages": messages, "add_generation_prompt": False} | variables
        )

    def _render(
        self, messages: Any, template: str | None, variables: dict[str, Any]
    ) -> tuple[str, list[tuple[int, int]]]:
        if isinstance(messages, str | Mapping) or not isinstance(messages, Sequence):
            raise DTypeError(f"messages is of type {type(messages).__name__}: expected a list of messages")
        for i, message in enumerate(messages):
            if not isinstance(message, Mapping):
                raise DTypeError(
                    f"messages[{i}] is of type {type(message).__name__}: expected a dictionary with role and content"
                )
        if not isinstance(template, str | None):
            raise DTypeError(f"chat_template is of type {type(template).__name__}: expected the text of a template")
        if template is None:
            raise TokenizerError(
                "this model has no chat template (neither chat_template.jinja nor one in tokenizer_config.json); "
                "pass chat_template=..., or use generate() with a prompt of your own"
            )
        from .chat_template import render

        special = {name: token for name, token in self._special.items() if token is not None}
        return render(template, special | variables)

    def __repr__(self) -> str:
        template = "with" if self.chat_template else "without"
        return f"Tokenizer(vocab_size={self.vocab_size}, eos_token={self.eos_token!r}, {template} chat template)"


def _content(token: Any) -> str | None:
    """A special token in tokenizer_config.json is a string, or an object with the string as content."""
    if isinstance(token, Mapping):
        token = token.get("content")
    return token if isinstance(token, str) else None


def _template_in(config: Mapping[str, Any]) -> str | None:
    """tokenizer_config.json has one template, or a list of named ones."""
    template = config.get("chat_template")
    if isinstance(template, list):
        named = {one["name"]: one["template"] for one in template if isinstance(one, Mapping) and "template" in one}
        template = named.get("default") or next(iter(named.values()), None)
    return template if isinstance(template, str) else None

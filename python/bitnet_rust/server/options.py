"""What whoever runs a server decides."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..arrays import seconds, whole_number
from ..errors import ArgumentError
from .auth import APIKey

_DURATIONS = ("request_timeout", "body_timeout", "write_timeout", "drain_timeout")
_NUMBERS = ("max_body_bytes", "max_tokens", "max_choices", "max_prompts")


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """Limits, names and keys of a server; the defaults suit one machine that is not public. Times are in seconds."""

    served_model_name: str | None = None  # what clients call the model; default: the name of its directory or file
    chat_template: str | None = None  # in place of the model's own
    api_keys: Sequence[APIKey] = ()  # requests need one of them; none: everybody is served
    cors_origins: Sequence[str] = ()  # whose pages a browser lets read the answers; "*" is all
    allowed_hosts: Sequence[str] = ()  # what a request's Host header may be; none: anything
    max_body_bytes: int = 4 << 20  # of a request
    max_tokens: int | None = None  # that one request may ask for; None: the model's context
    max_choices: int = 16  # the largest n and best_of
    max_prompts: int = 256  # texts in one request
    request_timeout: float | None = 600.0  # from a request's acceptance to its last token
    body_timeout: float = 30.0  # for a request to arrive, its head and its body each
    write_timeout: float = 60.0  # that a client may leave what was sent to it unread
    drain_timeout: float = 30.0  # for requests to finish when the server is told to end
    log_prompts: bool = False  # write prompts and answers to the log

    def __post_init__(self) -> None:
        for name in _DURATIONS:
            if (value := getattr(self, name)) is not None:
                seconds(value, name)
        for name in _NUMBERS:
            if (value := getattr(self, name)) is not None:
                whole_number(value, name, range(1, 2**40))
        if self.served_model_name is not None and not self.served_model_name.strip():
            raise ArgumentError(f"served_model_name = {self.served_model_name!r}: expected a name")

"""What whoever runs a server decides."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from ..arrays import seconds, whole_number
from ..chat_template import check
from ..errors import ArgumentError
from .auth import APIKey

_DURATIONS = ("request_timeout", "body_timeout", "write_timeout", "drain_timeout", "heartbeat")
_NUMBERS = ("max_body_bytes", "max_tokens", "max_choices", "max_prompts")
_UNLIMITED = ("request_timeout", "max_tokens")  # which may be None
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\s]+")  # as browsers send it


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """Limits, names and keys of a server; the defaults suit one machine that is not public. Times are in seconds.

    served_model_name: what clients call the model; by default the name of its directory or file.
    chat_template: a Jinja template in place of the model's own.
    api_keys: requests need one of them; without any everybody is served.
    cors_origins: whose pages a browser lets read the answers, as "https://app.example"; "*" is all of them, "null" those from files.
    allowed_hosts: names and addresses that a request's Host header may have, whatever its port; without any it may be anything.
    max_body_bytes: the largest body of a request.
    max_tokens: the most that one request may ask for; None is the model's context.
    max_choices: the largest n and best_of.
    max_prompts: the most texts in one request.
    request_timeout: from a request's acceptance to its last token; None waits for ever.
    body_timeout: for a request to arrive, its head and its body each.
    write_timeout: that a client may leave what was sent to it unread.
    drain_timeout: for requests to finish when the server is told to end.
    heartbeat: of silence, after which a stream has a comment, as proxies cut connections that are silent.
    log_prompts: write prompts and answers to the log.
    """

    served_model_name: str | None = None
    chat_template: str | None = None
    api_keys: Sequence[APIKey] = ()
    cors_origins: Sequence[str] = ()
    allowed_hosts: Sequence[str] = ()
    max_body_bytes: int = 4 << 20
    max_tokens: int | None = None
    max_choices: int = 16
    max_prompts: int = 256
    request_timeout: float | None = 600.0
    body_timeout: float = 30.0
    write_timeout: float = 60.0
    drain_timeout: float = 30.0
    heartbeat: float = 15.0
    log_prompts: bool = False

    def __post_init__(self) -> None:
        for name in _DURATIONS:
            if (value := getattr(self, name)) is not None or name not in _UNLIMITED:
                seconds(value, name)
        for name in _NUMBERS:
            if (value := getattr(self, name)) is not None or name not in _UNLIMITED:
                whole_number(value, name, range(1, 2**40))
        if self.served_model_name is not None and not self.served_model_name.strip():
            raise ArgumentError(f"served_model_name = {self.served_model_name!r}: expected a name")
        if self.chat_template is not None:
            check(self.chat_template)
        for origin in self.cors_origins:
            if origin not in ("*", "null") and not _ORIGIN.fullmatch(origin):
                raise ArgumentError(
                    f"cors_origins = {origin!r}: expected scheme, name and port as https://app.example, or *"
                )
        for host in self.allowed_hosts:
            if not _is_host(host):
                raise ArgumentError(f"allowed_hosts = {host!r}: expected a name or an address, without scheme and port")


def _is_host(name: str) -> bool:
    try:
        return bool(ip_address(name))
    except ValueError:
        return re.fullmatch(r"[A-Za-z0-9._-]+", name) is not None

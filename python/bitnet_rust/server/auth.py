"""API keys: where they come from, and comparing them in constant time."""

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

from ..configuration import settings
from ..errors import ArgumentError, FileSystemError


@dataclass(frozen=True)
class APIKey:
    """A key that clients may present, of which only a hash is kept, and its name for logs.

    name: what logs call the client.
    digest: SHA-256 of the key, 32 bytes.
    """

    name: str
    digest: bytes = field(repr=False)

    @classmethod
    def of(cls, secret: str, name: str | None = None) -> "APIKey":
        """The key with that text. Without a name it is called by the first characters of its hash."""
        if not secret or not secret.isascii() or any(c.isspace() or not c.isprintable() for c in secret):
            raise ArgumentError("an API key has no character, or one that is no printable ASCII")
        digest = hashlib.sha256(secret.encode()).digest()
        return cls(name or f"key-{digest.hex()[:8]}", digest)


def read_keys(path: str | PathLike[str] | None = None) -> list[APIKey]:
    """The keys in a file, and those of the setting api_keys, the variable BITNET_API_KEYS.

    A line of the file is a key, or a name for the logs and a key; empty lines and those that begin with # are passed over. A file
    without a key is an ArgumentError, whatever the setting has: whoever names one wants its keys.
    """
    keys = [APIKey.of(secret.strip()) for secret in (settings.api_keys or "").split(",") if secret.strip()]
    if path is None:
        return keys
    if not (in_file := list(_in_file(Path(path)))):
        raise ArgumentError(f"{path} has no API key: expected one in each line")
    return keys + in_file


def _in_file(path: Path) -> Iterable[APIKey]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise FileSystemError(f"the API keys in {path} cannot be read: {reason}") from error
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) > 2:
            raise ArgumentError(f"line {number} of {path} has {len(words)} words: expected a key, or a name and a key")
        try:
            yield APIKey.of(words[-1], words[0] if len(words) == 2 else None)
        except ArgumentError as error:
            raise ArgumentError(f"line {number} of {path}: {error}") from None


def find_key(keys: Sequence[APIKey], authorization: str) -> APIKey | None:
    """The key in an Authorization header, ``Bearer KEY``. How long it takes does not depend on which keys are alike."""
    scheme, _, secret = authorization.partition(" ")
    digest = hashlib.sha256(secret.strip().encode()).digest()
    found = None
    for key in keys:
        if hmac.compare_digest(digest, key.digest):
            found = key
    return found if scheme.lower() == "bearer" else None

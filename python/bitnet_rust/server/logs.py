"""The server's log: an event and its fields, as a line of JSON or of text."""

import logging
from typing import Any

from ..logs import event as log_event

LOGGER = logging.getLogger("bitnet_rust.server")


def log(level: str, event: str, failure: BaseException | None = None, /, **fields: Any) -> None:
    """Logs an event with its fields, and an exception with its traceback."""
    log_event(LOGGER, logging.getLevelNamesMapping()[level.upper()], event, failure, **fields)

"""``python -m bitnet_rust`` is the ``bitnet`` command. It begins here, so that Ctrl-C has its words while the modules of the commands are
imported, which takes most of the time of a short command."""

import os
import signal
import sys
import time
from typing import NoReturn

_LINE = "bitnet: interrupted"
_RECORD = '{"time": "%s", "level": "error", "logger": "bitnet_rust.cli", "event": "failed", "error": "interrupted", "status": 130}'


def _end(*_: object) -> NoReturn:
    """Says what `cli.run` says of an interrupt, and ends the process: an exception may be lost in what is half imported, or become another."""
    text = _LINE
    if "--json" in sys.argv:
        text = _RECORD % time.strftime("%Y-%m-%dT%H:%M:%S.000+00:00", time.gmtime())
    elif os.isatty(2):
        text = f"\n{text}"  # the terminal shows ^C at the end of a line
    try:
        os.write(2, f"{text}\n".encode())
    finally:
        os._exit(130)


def main() -> None:
    """Entry point of ``bitnet`` and ``python -m bitnet_rust``."""
    heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # in the background it is ignored
    if heard:
        signal.signal(signal.SIGINT, _end)
    from . import cli

    try:
        if heard:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        cli.main()
    except KeyboardInterrupt:
        _end()


if __name__ == "__main__":
    main()

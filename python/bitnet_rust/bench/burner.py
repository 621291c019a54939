"""Another process that keeps one core busy."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# It ends when this process does, however that ends: its standard input is closed then.
_CODE = """
import sys, threading, os
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
print("burning", flush=True)
while True:
    pass
"""


@contextmanager
def burning() -> Iterator[None]:
    """A busy process for as long as the block runs."""
    process = subprocess.Popen([sys.executable, "-c", _CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield
    finally:
        process.kill()
        process.communicate()

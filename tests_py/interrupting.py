"""Ctrl-C in a process of its own: how soon it ends a call, measured in a part of such a call and not in seconds."""

import json
import subprocess
import sys

from conftest import SLOW

# Processor time is that of all threads, and other programs do not change it much.
PROGRAM = """
import json, os, signal, sys, threading
from time import process_time, sleep
from bitnet_rust import BitNetModel, Engine, Trainer
SLOW = json.loads(sys.argv[1])
{setup}
begun = process_time()
{part}
part = process_time() - begun
begun, sent = process_time(), 0.0
def interrupt():
    global sent
    while process_time() < begun + 1.3 * part:
        sleep(0.001)
    sent = process_time()
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt, daemon=True).start()
try:
    {call}
except KeyboardInterrupt:
    print((process_time() - sent) / part)
{after}
"""


def assert_ctrl_c_ends(call: str, setup: str, part: str, after: str = "") -> None:
    """SIGINT comes when the call has worked for 1.3 times as long as ``part`` took, and it is over within half of that.

    Args:
        call: A statement that takes many times as long as ``part``.
        setup: Statements before, which may use ``SLOW`` and what the package has.
        part: A statement that does once what ``call`` does over and over.
        after: Statements that show that what was there can be used.
    """
    code = PROGRAM.format(setup=setup, part=part, call=call, after=after)
    done = subprocess.run([sys.executable, "-c", code, json.dumps(SLOW)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout, "the call came to its end"
    assert float(done.stdout) < 0.5

"""The command at a real terminal: narrow ones, and such as know ASCII alone."""

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

BITNET = [sys.executable, "-m", "bitnet_rust"]
ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
TEMPLATE = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"


def at_terminal(*command: str, columns: int, typed: str = "", env: dict[str, str] | None = None) -> tuple[int, str]:
    """Exit status of a command, and all that a terminal of so many columns got of it, where a line was typed at each prompt."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    before = termios.tcgetattr(theirs)
    unset = {"NO_COLOR", "TERMINAL_WIDTH", "_TYPER_FORCE_DISABLE_TERMINAL", "COLUMNS", "LINES", "FORCE_COLOR"}
    others = {name: value for name, value in os.environ.items() if name not in unset}
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=others | {"TERM": "xterm-256color"} | (env or {})
    )
    got, keys = b"", typed.encode()
    while process.poll() is None or _waits(ours):
        if _waits(ours):
            got += os.read(ours, 1 << 16)
        if keys and got.endswith(b"> "):  # before, the terminal would take Ctrl-D for its own
            line, end, keys = keys.partition(b"\n")
            os.write(ours, line + end)
    assert termios.tcgetattr(theirs) == before, "the terminal is not as it was"
    os.close(ours)
    os.close(theirs)
    text = got.decode()
    assert text.count("\x1b[?25l") <= text.count("\x1b[?25h"), "the cursor stays hidden"
    return process.returncode, text


def _waits(terminal: int) -> bool:
    return bool(select.select([terminal], [], [], 0.1)[0])


def seen(text: str) -> str:
    return CONTROL.sub("", text)


@pytest.mark.parametrize("env", [{}, ASCII])
@pytest.mark.parametrize("columns", [40, 80])
def test_progress_stays_on_one_line(columns: int, env: dict[str, str]) -> None:
    program = """
from bitnet_rust.progress import Bar
for unit in ("count", "bytes"):
    with Bar("", unit, stay=True) as bar:
        for step in range(0, 1001, 50):
            bar(step, 1000, f"loss {step / 300:.4f}  eval 2.7972  12,345 tokens/s")
"""
    status, text = at_terminal(sys.executable, "-c", program, columns=columns, env=env)
    assert status == 0
    drawn = [seen(line).strip("\n") for line in text.split("\r") if seen(line).strip()]
    assert any("loss" in line and "1000/1000" in line for line in drawn)
    for line in drawn:
        assert len(line) <= columns, line
        assert "\\u" not in line
        assert "…" not in line
        assert "0/100 " not in line, "a bar before there is a number"
    assert ("━" in text) == (columns == 80 and not env)


@pytest.mark.parametrize("command", [("models",), ("inspect", "--tensors", "--stats"), ("inspect",)])
def test_tables_lose_nothing_in_a_narrow_terminal(command: tuple[str, ...]) -> None:
    wide = subprocess.run([*BITNET, *command], capture_output=True, text=True, check=True).stdout
    status, narrow = at_terminal(*BITNET, *command, "--quiet", columns=48)
    assert status == 0
    lines = seen(narrow).replace("\r", "").splitlines()
    assert max(map(len, lines)) <= 48
    assert Counter("".join(wide.split())) == Counter("".join("".join(lines).split()))


def test_a_chat_says_how_it_ends_and_leaves_the_terminal_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "template.jinja").write_text(TEMPLATE)
    chat = (
        *BITNET,
        "chat",
        "--model",
        "bitnet-shakespeare",
        "--chat-template",
        str(tmp_path / "template.jinja"),
        "-n",
        "4",
    )
    for env in ({}, ASCII, {"TERM": "dumb"}):
        status, text = at_terminal(*chat, columns=80, typed="Who is there?\n/exit\n", env=env)
        assert status == 0
        assert "/exit or Ctrl-D ends" in text
        assert "\\u" not in text
    status, text = at_terminal(*chat, "--quiet", columns=80, typed="\x04")
    assert status == 0
    assert "Ctrl-D" not in text


@pytest.mark.parametrize("options", [(), ("--log-format", "json")])
def test_a_server_logs_text_at_a_terminal_unless_told_and_gives_it_no_orders(options: tuple[str, ...]) -> None:
    ours, theirs = pty.openpty()
    command = [*BITNET, "serve", "--port", "0", *options]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, text=True) as server,
        ThreadPoolExecutor(1) as pool,
    ):
        os.close(theirs)
        written = pool.submit(_written, ours)
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        assert httpx.get(f"{url}/%1b%5d0;title%07%c2%9b2J", timeout=60, trust_env=False).status_code == 404
        server.terminate()
        text = written.result().decode().replace("\r\n", "\n")
    os.close(ours)
    assert server.returncode == 0
    text = text[text.rindex("started") :]  # before, a start that takes a while has a bar
    assert not set(text) & {"\x1b", "\x07", "\x9b"}
    (request,) = [line for line in text.splitlines() if "status" in line]
    if options:
        assert json.loads(request)["path"] == "/\x1b]0;title\x07\x9b2J"
    else:
        assert " INFO    bitnet_rust.server: request " in request
        assert r"path='/\x1b]0;title\x07\x9b2J' status=404" in request


def _written(terminal: int) -> bytes:
    """What a terminal gets until whoever writes there has ended."""
    got = b""
    with suppress(OSError):
        while piece := os.read(terminal, 1 << 16):
            got += piece
    return got


@pytest.mark.parametrize("command", ["--help", "train --help", "chat --help", "serve --help", "bench batch --help"])
def test_help_shows_types_of_what_takes_a_value(command: str) -> None:
    status, text = at_terminal(*BITNET, *command.split(), columns=80)
    assert status == 0
    assert "<bool>" not in text
    assert "list[" not in text.lower()

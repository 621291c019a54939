"""What the tests share. No test reaches the network: the hub client is pointed at a server of our own (hub_server.py)."""

import io
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from hub_server import HubServer

REPO = Path(__file__).resolve().parents[1]
GOLDEN = REPO / "tests_go" / "testdata" / "golden"
TINY = GOLDEN / "bitnet_offline_packed"  # a small model that recites Shakespeare

# Before anything imports huggingface_hub, which reads these once.
_HUB = HubServer()
_HUB_HOME = tempfile.TemporaryDirectory(prefix="bitnet-test-hub-")
os.environ["HF_ENDPOINT"] = _HUB.url
os.environ["HF_HOME"] = _HUB_HOME.name
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["HF_HUB_DISABLE_XET"] = "1"

# Texts have one width and no colours in every terminal and on every CI machine, of which typer knows some when it is imported, and
# nobody's own settings are in effect. What an outer make says to its children is not for those of the tests.
for _name in (
    "COLUMNS",
    "FORCE_COLOR",
    "GITHUB_ACTIONS",
    "LINES",
    "MAKEFLAGS",
    "NO_COLOR",
    "PY_COLORS",
    "TERMINAL_WIDTH",
    "TTY_COMPATIBLE",
):
    os.environ.pop(_name, None)
os.environ["TERM"] = "xterm"
os.environ["XDG_CONFIG_HOME"] = _HUB_HOME.name

from bitnet_rust import BitNetModel, cli  # noqa: E402

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(scope="session", autouse=True)
def hub() -> Iterator[HubServer]:
    """Answers from the start: what a test asks for that is not there is refused, and not waited for."""
    with _HUB:
        yield _HUB


@pytest.fixture(scope="session")
def tiny() -> Iterator[BitNetModel]:
    with BitNetModel.from_pretrained(TINY) as model:
        yield model


@pytest.fixture(scope="session")
def tiny_dir() -> Path:
    return TINY


@pytest.fixture(scope="session")
def shakespeare() -> Iterator[BitNetModel]:
    """The model that comes with the package."""
    with BitNetModel.from_pretrained("bitnet-shakespeare") as model:
        yield model


# A model whose steps take long enough to be interrupted, and whose context does not end.
SLOW = {
    "vocab_size": 4096,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
    "max_position_embeddings": 1 << 20,
}


@pytest.fixture(scope="session")
def slow() -> Iterator[BitNetModel]:
    with BitNetModel.from_config(SLOW) as model:
        yield model


def no_tracer_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes OpenTelemetry's provider away until the test ends, so that it may set one; a process can do so but once."""
    from opentelemetry import trace
    from opentelemetry.util._once import Once

    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())


class Terminal:
    """Runs the command in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
        self._monkeypatch.setattr(sys, "argv", ["bitnet", *arguments])
        self._monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        status = cli.run()
        out, err = self._capsys.readouterr()
        return status, out, err


@pytest.fixture
def bitnet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(monkeypatch, capsys)

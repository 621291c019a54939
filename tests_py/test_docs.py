"""What the documentation shows works: its Python blocks run, its `bitnet` commands succeed, its links lead somewhere.

The blocks of one page run in order, in a directory that has a text in shakespeare.txt, and where a checkout has it, and conversations in
chat.jsonl. ```python blocks share one namespace. Of ```sh blocks the lines that start with `bitnet ` or `python -m bench ` run, requests
of curl are sent, and the others have to name what there is. A ```text block is what the commands before it print, and blocks of other
languages have to be what `pages.py` says. A block with title="NAME" is written to that file, and Python in one is a script. What is downloaded comes from a server of
the tests, which has the small model under the names of large ones.

A line before a block says what is otherwise. `<!-- in the background: until the page ends -->` is a server: it gets a free port, which
later blocks have in place of the one shown. `<!-- run with: PACKAGES -->` is Python that needs these, and runs in `make test-full`,
apart from the blocks of this package. `<!-- not run: why -->` is for what cannot run: Python is compiled, and of commands the arguments
are parsed.
"""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer.main
import yaml

import bitnet_rust
from bitnet_rust import BitNetModel, cli
from conftest import REPO as ROOT
from conftest import no_tracer_provider
from hub_server import HubServer
from pages import PAGES, WITHOUT_A_LANGUAGE, Block, blocks, hold, hold_command, lines, ours, succeed
from test_gguf import TOKENIZERS, model_with

NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
RUN_WITH = [page for page in PAGES if any(block.how == "run with" for block in blocks(page))]
TALK = {"messages": [{"role": "user", "content": "Speak."}, {"role": "assistant", "content": "I will."}]}
TEMPLATE = "{% for m in messages %}{{ m.content }}\n{% endfor %}"

_LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")


@pytest.fixture(autouse=True)
def directory(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    no_tracer_provider(monkeypatch)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # python -m bench
    text = (ROOT / "recipes" / "data" / "tinyshakespeare.txt").read_text()[:40_000]
    Path("recipes/data").mkdir(parents=True)
    for place in ("shakespeare.txt", "recipes/data/tinyshakespeare.txt"):
        Path(place).write_text(text)
    Path("path").mkdir()
    Path("path/to").symlink_to(models)
    Path("chat.jsonl").write_text(f"{json.dumps(TALK)}\n" * 20)


@pytest.fixture(scope="module")
def models(hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What pages download, by its name, and a directory of what they call path/to/model and the like."""
    place = tmp_path_factory.mktemp("models")
    packed, masters = place / "checkpoint", place / "masters"
    with BitNetModel.from_pretrained("bitnet-shakespeare", trainable=True) as model:
        model.tokenizer.chat_template = TEMPLATE
        model.save_pretrained(packed, format="hf")
        model.save_pretrained(place / "model", format="hf")
        model.save_pretrained(masters, format="hf", masters="bfloat16")
        config = json.loads((masters / "config.json").read_text()) | {"max_position_embeddings": 4096}
        (masters / "config.json").write_text(json.dumps(config))  # as long as that of the real one
        for format in ("bitnet", "gguf", "onnx"):
            model.save_pretrained(place / f"model.{format}", format="native" if format == "bitnet" else format)
    before = dict(hub.repositories)
    hub.repositories |= {
        "microsoft/bitnet-b1.58-2B-4T": packed,
        "microsoft/bitnet-b1.58-2B-4T-bf16": masters,
        "openai-community/gpt2": ROOT / "tests_go" / "testdata" / "parity" / "gpt2_float32",
        "tiiuae/Falcon3-1B-Instruct-1.58bit": packed,
        "tiiuae/Falcon-E-1B-Base": masters,
    }
    yield place
    hub.repositories = before


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_blocks_run(page: Path) -> None:
    namespace: dict[str, object] = {"__name__": "__main__"}
    printed = ""
    with ExitStack() as stack:
        ports: dict[str, str] = {}  # as shown, and as they are
        for block in blocks(page):
            text = block.text
            for shown, real in ports.items():
                text = text.replace(f"127.0.0.1:{shown}", f"127.0.0.1:{real}")
            if block.title:
                Path(block.title).write_text(text)
            if block.how in ("not run", "run with"):
                hold(block)
            elif block.how == "in the background":
                ports |= started(block, stack)
            elif block.language == "python" and block.title:
                printed = succeed([sys.executable, block.title], str(block))
            elif block.language == "python":
                block.run(text, namespace)
            elif block.language == "sh":
                printed = "".join(run(line, str(block)) for line in lines(text))
            elif block.language == "text":
                assert printed.startswith(text.rstrip("\n")), f"{block}: the commands before it print\n{printed}"
            else:
                hold(block)


def run(line: str, where: str) -> str:
    """What a line of a shell prints that is run; others are looked at."""
    if command := ours(line):
        return succeed(command, where)
    if line.startswith("curl "):
        return answer(line)
    hold_command(line, where)
    return ""


def answer(line: str) -> str:
    """What a server answers to the request of a curl."""
    _, url, *options = shlex.split(line)
    given = dict(zip(options[::2], options[1::2], strict=True))
    assert set(given) <= {"-H", "-d"}, line
    header = given["-H"].split(": ", 1)
    reply = httpx.post(url, headers=[header], content=given["-d"], timeout=600, trust_env=False)
    return reply.raise_for_status().text


def started(block: Block, stack: ExitStack) -> dict[str, str]:
    """Starts the server of a block on a free port; gives the port that it is shown with, and its own."""
    (line,) = lines(block.text)
    command = ours(line)
    assert command is not None, f"{block}: {line}"
    at = command.index("--port") + 1
    shown, command[at] = command[at], "0"
    with Path("server.log").open("w") as log:
        server = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True))
    stack.callback(server.terminate)
    assert server.stdout is not None
    address = server.stdout.readline().strip()  # which it prints when it listens
    assert address, Path("server.log").read_text()
    return {shown: address.rpartition(":")[2].rstrip("/")}


@pytest.mark.full
@pytest.mark.parametrize("page", RUN_WITH, ids=lambda page: page.stem)
def test_blocks_for_other_packages_run(page: Path) -> None:
    """Beside the commands of the page, which make the files that they read."""
    with model_with(TOKENIZERS["llama-bpe"](), True) as model:
        model.save_pretrained("llama.gguf", format="gguf", gguf_type="tq2_0")
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(page):
        if block.how == "run with":
            assert block.why is not None
            for package in block.why.split(", "):
                pytest.importorskip(package)
            block.run(block.text, namespace)
        elif block.how is None and block.language == "sh":
            for line in lines(block.text):
                run(line, str(block))


@pytest.mark.full
def test_what_the_page_about_deployment_says_of_ray_is_so() -> None:
    pytest.importorskip("ray")
    from ray import serve
    from ray.serve.schema import ServeDeploySchema

    from bitnet_rust.integrations.ray import Settings, application

    found = blocks(ROOT / "docs" / "how-to" / "deploy.md")
    started = [
        line for block in found if block.language == "sh" for line in lines(block.text) if line.startswith("serve run ")
    ]
    written = [block for block in found if block.language == "yaml" and "applications:" in block.text]
    assert started
    assert written
    for line in started:
        _, _, place, *fields = shlex.split(line)
        assert place == f"{application.__module__}:{application.__name__}"
        assert isinstance(application(Settings(**dict(field.split("=") for field in fields))), serve.Application)
    for block in written:
        for one in ServeDeploySchema.model_validate(yaml.safe_load(block.text)).applications:
            assert one.import_path == f"{application.__module__}:{application.__name__}"
            assert isinstance(application(Settings(**one.args)), serve.Application)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_block_of_code_is_known(page: Path) -> None:
    """One whose fence or comment is written in another way would not run, and nobody would know."""
    text = page.read_text()
    assert len(blocks(page)) == len(re.findall(r"^[ >]*(?:```+|~~~+) *(?:\w|\{)", text, re.MULTILINE))
    fences = len(re.findall(r"^[ >]*(?:```+|~~~+)", text, re.MULTILINE))
    assert fences == 2 * (len(blocks(page)) + WITHOUT_A_LANGUAGE.get(str(page.relative_to(ROOT)), 0))
    comments = re.findall(r"^(<!-- [^\n]+ -->)\n```", text, re.MULTILINE)
    assert [c for c in comments if not re.match(r"<!-- (not run|run with|in the background): ", c)] == []


@pytest.mark.parametrize("page", [page for page in PAGES if "docs" in page.relative_to(ROOT).parts], ids=str)
def test_code_is_no_wider_than_a_laptop_shows(page: Path) -> None:
    """As many columns as docs/site.css speaks of; half as many where two programs stand side by side."""
    grids = [range(*m.span()) for m in re.finditer(r'<div class="grid".*?</div>\s*</div>', page.read_text(), re.DOTALL)]
    starts = [sum(map(len, page.read_text().splitlines(True)[: block.line - 1])) for block in blocks(page)]
    wide = [
        f"{block}: {line}"
        for block, start in zip(blocks(page), starts, strict=True)
        for line in block.text.expandtabs(4).splitlines()
        if len(line) > (57 if any(start in grid for grid in grids) else 111)
    ]
    assert wide == []


def test_every_page_is_read() -> None:
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("these files are not in a git repository")
    assert [name for name in listed.stdout.splitlines() if name not in NAMES] == []


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("cobol", "STOP RUN."),
        ("text", "What no command printed."),
        ("python", "print('"),
        ("sh", "bitnet generate --no-such-option"),
        ("sh", "bitnet no-such-command"),
        ("sh", "python -m bench peers --no-such-option"),
        ("sh", "make no-such-target"),
        ("sh", "pip install 'bitnet-rust[no-such-extra]'"),
        ("sh", "docker run bitnet --no-such-option"),
        ("sh", "rm -rf model"),
        ("toml", "no_such_setting = 1"),
        ("toml", "[generate]\nno_such_option = 1"),
        ("yaml", "preset: char\nno_such_field: 1"),
        ("yaml", "model: {preset: char}\ndata: {train: shakespeare.txt, no_such_field: 1}"),
        ("ini", "[Service]\nExecStart=/bin/bitnet serve --no-such-option"),
    ],
)
def test_a_block_that_is_not_right_is_found(language: str, text: str) -> None:
    page = ROOT / "docs" / "index.md"
    with pytest.raises((AssertionError, SyntaxError, bitnet_rust.BitNetError)):
        hold(Block(page, language, text, 1, None, "not run", "it is wrong"))


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_to_files(page: Path) -> None:
    broken = [
        target
        for target, _ in _LINK.findall(page.read_text())
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert not broken


def test_the_messages_of_the_troubleshooting_page_exist() -> None:
    code = [
        *(ROOT / "python").rglob("*.py"),
        ROOT / "setup.py",
        *(ROOT / "core").rglob("*.go"),
        *(ROOT / "accel").rglob("*.go"),
        *(ROOT / "bindings").glob("*.c"),
    ]
    text = "".join(path.read_text() for path in code if not path.name.endswith("_test.go"))
    headings = re.findall(r"^### `.+", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)
    messages = [message for heading in headings for message in re.findall(r"`(.+?)`", heading)]
    assert len(messages) > 20
    parts = [part.strip() for message in messages for part in message.split("...")]
    assert [part for part in parts if part not in text] == []


def reference(name: str) -> str:
    return (ROOT / "docs" / "reference" / name).read_text()


def test_the_command_line_reference_has_every_command() -> None:
    text = reference("cli.md")
    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    assert [name for name in commands if f"`bitnet {name}" not in text] == []
    listed = re.search(r"`bitnet (\w+( \| \w+)+)`", (ROOT / "README.md").read_text())
    assert listed is not None
    assert set(listed[1].split(" | ")) == set(commands)


def test_every_option_says_what_it_is() -> None:
    """The site's reference of options is made of these texts."""

    def parameters(command: Any, path: str) -> Iterator[tuple[str, Any]]:
        for name, part in getattr(command, "commands", {}).items():
            yield from parameters(part, f"{path} {name}")
        yield from ((f"{path} {parameter.name}", parameter) for parameter in command.params)

    everything = list(parameters(typer.main.get_command(cli.app), "bitnet"))
    assert len(everything) > 100
    assert [name for name, p in everything if not p.hidden and not p.help] == []


def test_the_sampling_reference_has_every_option() -> None:
    text = reference("sampling.md")
    assert [name for name in bitnet_rust.SamplingOptions.__annotations__ if f"`{name}" not in text] == []


def test_every_environment_variable_is_in_the_readme() -> None:
    sources = [
        *(ROOT / "accel").rglob("*.go"),
        *(ROOT / "bindings").glob("*.c"),
        *(ROOT / "core").rglob("*.go"),
        *(ROOT / "python").rglob("*.py"),
    ]
    used = {
        name
        for path in sources
        if not path.name.endswith("_test.go")
        for name in re.findall(r"\"(BITNET_[A-Z_]+)\"", path.read_text())
    }
    assert used
    text = (ROOT / "README.md").read_text()
    assert [name for name in sorted(used) if f"`{name}`" not in text] == []

"""Settings: arguments, environment, file, defaults, in this order; where they are seen and how they are refused."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main

import bitnet_rust
from bitnet_rust import ArgumentError, cli
from bitnet_rust.cli.defaults import variables
from bitnet_rust.configuration import PREFIX, SETTINGS, Settings, unknown_variables
from conftest import REPO, Terminal

TELL = "import bitnet_rust; s = bitnet_rust.settings; print(s.num_threads, s.look('num_threads').source, s.log_level)"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A settings file that is named in the environment."""
    path = tmp_path / "config.toml"
    path.write_text("")
    monkeypatch.setenv("BITNET_CONFIG", str(path))
    return path


def tell(code: str = TELL, **environment: str) -> str:
    env = os.environ | environment
    return subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_an_argument_goes_before_the_environment_and_that_before_the_file(file: Path) -> None:
    file.write_text("num_threads = 3\nlog_level = 'info'\n")
    assert tell() == "3 file info"
    assert tell(BITNET_NUM_THREADS="2", BITNET_LOG_LEVEL="debug") == "2 environment debug"
    argument = TELL.replace("print", "s.set(num_threads=1, log_level='ERROR'); print")
    assert tell(argument, BITNET_NUM_THREADS="2", BITNET_LOG_LEVEL="debug") == "1 argument error"
    called = TELL.replace("print", "bitnet_rust.set_num_threads(4); print")
    assert tell(called) == "4 argument info"
    file.write_text("")
    assert tell("import bitnet_rust; print(bitnet_rust.settings.look('num_threads').source)") == "default"


def test_the_core_does_what_the_file_says(file: Path) -> None:
    file.write_text("num_threads = 3\nisa = 'scalar'\nmemory_budget = '1 GiB'\nskip_zeros = false\n")
    code = "import bitnet_rust, json; b = bitnet_rust.build_info(); print([b[k] for k in ('threads', 'isa', 'memory_budget', 'skip_zeros')])"
    assert tell(code) == f"[3, 'scalar', {1 << 30}, False]"
    assert tell(code, BITNET_ISA="scalar", BITNET_MEMORY_BUDGET="2GiB") == f"[3, 'scalar', {2 << 30}, False]"
    in_bytes = code.replace("b = ", "bitnet_rust.settings.set(memory_budget=1 << 29); b = ")
    assert tell(in_bytes) == f"[3, 'scalar', {1 << 29}, False]"


def test_the_file_is_in_the_users_directory_unless_it_is_named(tmp_path: Path) -> None:
    place = tmp_path / "bitnet" / "config.toml"
    place.parent.mkdir()
    place.write_text("num_threads = 3\n")
    assert tell(XDG_CONFIG_HOME=str(tmp_path), BITNET_CONFIG="") == "3 file warning"
    home = "import bitnet_rust; print(bitnet_rust.settings.path)"
    assert (
        tell(home, XDG_CONFIG_HOME="", HOME="/somewhere", BITNET_CONFIG="") == "/somewhere/.config/bitnet/config.toml"
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nom_threads = 2", "there is no setting 'nom_threads' (did you mean 'num_threads'?)"),
        ("num_threads = 'many'", "num_threads = 'many': expected a whole number from 1 to 1024"),
        ("num_threads = 0", "num_threads = 0: expected a whole number from 1 to 1024"),
        ("num_threads = true", "num_threads = True: expected a whole number from 1 to 1024"),
        ("isa = 'sse9'", "isa = 'sse9'"),
        ("memory_budget = 'much'", "memory_budget = 'much': pool: unreadable memory budget \"much\": expected a positive number"),
        ("skip_zeros = 'no'", "skip_zeros = 'no': expected true or false"),
        ("log_level = 'loud'", "log_level = 'loud': expected one of debug, info, warning, error, critical"),
        ("pool_debug = true", "pool_debug cannot be set in a file: set BITNET_POOL_DEBUG before the process starts"),
        ("api_keys = 17", "api_keys = ...: expected a text"),
        ("num_threads = ", "not a settings file in TOML"),
        (None, "there is no such settings file (BITNET_CONFIG names it)"),
    ],
)  # fmt: skip
def test_what_the_file_cannot_say_is_an_error_of_loading_and_of_commands(
    file: Path, text: str | None, says: str
) -> None:
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    unusable = Settings()
    with pytest.raises(ArgumentError, match=re.escape(says)) as error:
        unusable.check()
    assert str(file) in str(error.value)


def test_a_bad_file_is_told_by_loading_by_info_and_by_commands(file: Path) -> None:
    file.write_text("num_threads = 'many'")
    code = """
import bitnet_rust
try:
    bitnet_rust.BitNetModel.from_config("char")
except bitnet_rust.ArgumentError as error:
    print(error, bitnet_rust.build_info()["environment_errors"] == [str(error)])
"""
    assert tell(code) == f"{file}: num_threads = 'many': expected a whole number from 1 to 1024 True"
    says = f"bitnet: {file}: num_threads = 'many': expected a whole number from 1 to 1024\n"
    for command in (("info",), ("models",), ("config", "show")):
        done = subprocess.run([sys.executable, "-m", "bitnet_rust", *command], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (1, says)
        assert bool(done.stdout) == (command != ("models",))


def test_settings_are_changed_or_refused_by_name() -> None:
    own = Settings()
    own.set(log_level="Info", quiet=True)
    assert (own.log_level, own.quiet, own.look("quiet").source) == ("info", True, "argument")
    with own.override(quiet=False, log_format="json"):
        assert (own.quiet, own.log_format) == (False, "json")
    assert (own.quiet, own.log_format) == (True, "text")
    with pytest.raises(ArgumentError, match=r"no setting 'log_leve' \(did you mean 'log_level'\?\)"):
        own.set(log_leve="info")
    with pytest.raises(ArgumentError, match="set BITNET_POOL_DEBUG in its environment"):
        own.set(pool_debug=True)
    with pytest.raises(ArgumentError, match="the core's"), own.override(num_threads=1):
        pass
    with pytest.raises(AttributeError, match="known are num_threads"):
        _ = own.colour


def test_an_unusable_variable_is_named(monkeypatch: pytest.MonkeyPatch, bitnet: Terminal) -> None:
    monkeypatch.setenv("BITNET_QUIET", "perhaps")
    says = "BITNET_QUIET in the environment: quiet = 'perhaps': expected true or false"
    with pytest.raises(ArgumentError, match=says):
        _ = Settings().quiet
    status, out, err = bitnet("config", "show", "--json")
    assert (status, json.loads(err)["error"]) == (1, says)
    assert json.loads(out)["settings"]["quiet"]["error"] == says
    assert bitnet("models") == (1, "", f"bitnet: {says}\n")


def test_config_show_tells_where_each_value_comes_from(file: Path) -> None:
    file.write_text("num_threads = 3\n[generate]\ntop_k = 5\n[bench.decode]\nrepeat = 2\n")
    env = os.environ | {"BITNET_API_KEYS": "sesame", "BITNET_GENERATE_SEED": "7", "BITNET_QUIETT": "1"}
    command = [sys.executable, "-m", "bitnet_rust", "config", "show"]
    done = subprocess.run([*command, "--json"], env=env, capture_output=True, text=True, check=True)
    shown = json.loads(done.stdout)
    assert shown["path"] == str(file)
    assert {
        name: (s["value"], s["source"], s["place"]) for name, s in shown["settings"].items() if s["source"] != "default"
    } == {
        "num_threads": (3, "file", str(file)),
        "config": (str(file), "environment", "BITNET_CONFIG"),
        "api_keys": ("(secret)", "environment", "BITNET_API_KEYS"),
    }
    assert shown["options"] == {
        "generate --seed": {"value": "7", "source": "BITNET_GENERATE_SEED"},
        "generate --top-k": {"value": 5, "source": str(file)},
        "bench decode --repeat": {"value": 2, "source": str(file)},
    }
    assert shown["unknown_variables"] == ["BITNET_QUIETT"]
    text = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    assert "sesame" not in text + done.stdout
    assert "BITNET_QUIETT in the environment is not known" in text
    path = subprocess.run([*command[:-1], "path"], env=env, capture_output=True, text=True, check=True).stdout
    assert path == f"{file}\n"


# --- defaults of commands' options -----------------------------------------------------------------------------------


@pytest.fixture
def defaults(file: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes the file and lets this process have it."""

    def write(text: str) -> None:
        file.write_text(text)
        fresh = Settings()
        for module in ("cli", "cli.common", "cli.config", "cli.defaults", "cli.output", "configuration"):
            monkeypatch.setattr(f"bitnet_rust.{module}.settings", fresh)

    return write


def test_an_options_default_is_in_the_environment_else_in_the_file(
    bitnet: Terminal, defaults: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    defaults("[generate]\nmax_new_tokens = 3\n")
    assert len(json.loads(bitnet("generate", "x", "--json")[1])["token_ids"]) == 3
    monkeypatch.setenv("BITNET_GENERATE_MAX_NEW_TOKENS", "2")
    assert len(json.loads(bitnet("generate", "x", "--json")[1])["token_ids"]) == 2
    assert len(json.loads(bitnet("generate", "x", "-n", "1", "--json")[1])["token_ids"]) == 1


# Lines of the file and variables of the environment that are wrong, the command whose they are, and what is said.
WRONG = [
    ("[generate]\ntop_q = 1", {}, "generate x", "{file}: [generate] top_q = 1: bitnet generate has no such option (did you mean 'top_p'?)"),
    ("[generat]\ntop_k = 1", {}, "generate x", "{file}: [generat] is no command of bitnet (did you mean 'generate'?)"),
    ("[generate]\ntop_k = 'x'", {}, "generate x", "{file}: [generate] top_k = 'x': expected a whole number"),
    ("[generate]\ntop_k = true", {}, "generate x", "{file}: [generate] top_k = True: expected a whole number"),
    ("[generate]\ntop_k = 2.0", {}, "generate x", "{file}: [generate] top_k = 2.0: expected a whole number"),
    ("[generate]\ntop_p = []", {}, "generate x", "{file}: [generate] top_p = []: expected a number"),
    ("[generate]\nmodel = 3", {}, "generate x", "{file}: [generate] model = 3: expected a text"),
    ("[generate]\nprofile = 3", {}, "generate x", "{file}: [generate] profile = 3: expected a path"),
    ("[generate]\necho = 'yes'", {}, "generate x", "{file}: [generate] echo = 'yes': expected true or false"),
    ("[generate]\nstop = 'end'", {}, "generate x", "{file}: [generate] stop = 'end': expected a list of texts"),
    ("[generate]\nstop_token_ids = [1, 'x']", {}, "generate x", "{file}: [generate] stop_token_ids = [1, 'x']: expected a list of whole numbers"),
    ("[chat]\npacking = '3bit'", {}, "chat", "{file}: [chat] packing = '3bit': expected one of auto, 2bit, base3"),
    ("[serve]\nport = 65536", {}, "serve", "{file}: [serve] port = 65536: expected a whole number from 0 to 65535"),
    ("[bench.decod]\ntokens = 4", {}, "bench decode", "{file}: [bench.decod] is no command of bitnet bench (did you mean 'decode'?)"),
    ("[bench]\ntokens = 4", {}, "bench decode", "{file}: [bench] tokens = 4: expected tables of its commands, decode, "),
    ("[bench.decode]\ntokens = 1", {}, "bench decode", "{file}: [bench.decode] tokens = 1: expected a whole number of at least 2"),
    ("[bench.serve]\napi_key = 17", {}, "bench serve", "{file}: [bench.serve] api_key = ...: expected a text"),
    ("", {"BITNET_GENERATE_TOP_K": "x"}, "generate x", "BITNET_GENERATE_TOP_K = 'x' in the environment: expected a whole number"),
    ("", {"BITNET_EVAL_JSON": "perhaps"}, "eval --data x", "BITNET_EVAL_JSON = 'perhaps' in the environment: expected true or false"),
    ("", {"BITNET_BENCH_BATCH_SIZE": "1 x"}, "bench batch", "BITNET_BENCH_BATCH_SIZE = '1 x' in the environment: expected a list of whole numbers of at least 1"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "environment", "command", "says"), WRONG)
def test_what_is_wrong_with_options_is_said_by_their_command_and_where_settings_are_shown(
    bitnet: Terminal, defaults: Any, monkeypatch: pytest.MonkeyPatch, text: str, environment: dict[str, str], command: str, says: str,
) -> None:  # fmt: skip
    file = os.environ["BITNET_CONFIG"]
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    defaults(f"[perplexity]\nwindow = 16\n{text}")
    says = says.format(file=file)
    for shown in (command, "config show", "info"):
        status, out, err = bitnet(*shown.split())
        assert (status, err.count("\n"), err.startswith(f"bitnet: {says}")) == (1, 1, True), (shown, err)
        assert bool(out) == (shown != command)
    shown = json.loads(bitnet("config", "show", "--json")[1])
    assert [error.startswith(says) for error in shown["errors"]] == [True]
    assert list(shown["options"]) == ["perplexity --window"]
    status, out, err = bitnet("doctor", "--json")
    assert (status, err) == (1, "")
    assert [c["found"].startswith(says) for c in json.loads(out)["checks"] if c["state"] == "wrong"] == [True]
    assert bitnet(*command.split(), "--help")[0] == 0


def test_commands_mind_their_own_options_and_those_that_show_settings_do_without_wrong_ones(
    bitnet: Terminal, defaults: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BITNET_CONFIG_PATH_JSON", "perhaps")
    defaults("[serve]\nport = 'x'\n[doctor]\njson = 3\n[config.show]\njson = 3\n[info]\nno = 1\n")
    assert bitnet("models")[0] == 0
    assert bitnet("config", "path") == (0, f"{os.environ['BITNET_CONFIG']}\n", "")
    for command in ("doctor", "config show", "info"):
        status, out, err = bitnet(*command.split())
        assert (status, "port = 'x'" in out + err, out[0] != "{") == (1, True, True)


def test_an_error_of_a_run_names_the_line_of_the_file(bitnet: Terminal, defaults: Any) -> None:
    defaults("[generate]\ntop_p = 3.0\n")
    assert bitnet("generate", "x")[2] == "bitnet: [generate] top_p = 3: expected a number in (0, 1] (1 is off)\n"


def test_a_key_in_the_file_is_not_shown(bitnet: Terminal, defaults: Any) -> None:
    defaults("[bench.serve]\napi_key = 'sesame'\n")
    for form in ((), ("--json",)):
        status, out, err = bitnet("config", "show", *form)
        assert (status, "(secret)" in out, "sesame" in out + err) == (0, True, False)


# --- the table and the sources ---------------------------------------------------------------------------------------


def test_every_variable_in_the_sources_is_a_setting_and_documented() -> None:
    """But for those of tests, the guards of C headers, and the names of commands' options, which follow a rule."""
    patterns = ("accel/**/*.go", "core/**/*.go", "bindings/*.[ch]", "bindings/*.go", "python/**/*.py")
    sources = [path for pattern in patterns for path in REPO.glob(pattern) if not path.name.endswith("_test.go")]
    known = {setting.variable for setting in SETTINGS}
    options = set(variables(typer.main.get_command(cli.app)))
    used = {name for path in sources for name in re.findall(r"\bBITNET_[A-Z_]*[A-Z]\b", path.read_text())}
    used = {name for name in used if not name.endswith("_H") and not name.startswith(PREFIX + "TEST")}
    assert used - known - options == set()
    page = (REPO / "docs" / "reference" / "settings.md").read_text()
    assert [name for setting in SETTINGS for name in (setting.name, setting.variable) if f"`{name}`" not in page] == []


def test_one_module_reads_our_variables() -> None:
    readers = [
        path.relative_to(REPO).as_posix()
        for path in (REPO / "python").rglob("*.py")
        if "bench" not in path.parts and re.search(r"os\.environ|getenv", path.read_text())
    ]
    assert readers == ["python/bitnet_rust/configuration.py"]


def test_a_mistyped_variable_is_found() -> None:
    known = variables(typer.main.get_command(cli.app))
    environment = dict.fromkeys(
        ["BITNET_ISA", "BITNET_TEST_SEED", "BITNET_SERVE_PORT", "BITNET_SERV_PORT", "PATH"], "1"
    )
    assert unknown_variables(known, environment) == ["BITNET_SERV_PORT"]


def test_settings_are_public() -> None:
    assert isinstance(bitnet_rust.settings, bitnet_rust.Settings)

"""What happens at the edges: tokens that cannot be chosen, files the system refuses, processes that cannot run Go."""

import gc
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bitnet_rust
from bitnet_rust import (
    ArgumentError,
    BitNetError,
    BitNetModel,
    FileSystemError,
    ForkError,
    LogitsError,
    OutOfMemoryError,
    Tensor,
)
from conftest import SLOW
from interrupting import assert_ctrl_c_ends


def test_a_model_of_which_no_token_can_be_chosen_raises_logits_error(tiny: BitNetModel) -> None:
    banned = dict.fromkeys(range(tiny.config.vocab_size), -math.inf)
    with pytest.raises(LogitsError, match=r"sequence 0.*every token has -inf") as caught:
        tiny.generate([1, 2], logit_bias=banned)
    assert isinstance(caught.value, ArithmeticError)
    assert isinstance(caught.value, BitNetError)


@pytest.mark.parametrize("bad", [512, 99999, -1])
def test_the_last_token_of_a_perplexity_is_checked_too(tiny: BitNetModel, bad: int) -> None:
    with pytest.raises(ArgumentError, match=r"tokens\[2\] = .*token id out of range"):
        tiny.perplexity([1, 2, bad])


def test_numbers_of_any_size_are_refused_by_name(tiny: BitNetModel) -> None:
    for number in (10**30, -(10**30)):
        with pytest.raises(ArgumentError, match="window"):
            tiny.perplexity([1, 2, 3], window=number, stride=1)
        with pytest.raises(ArgumentError, match="threads"):
            bitnet_rust.set_num_threads(number)
    for seed in (-1, 2**64):
        with pytest.raises(ArgumentError, match="seed"):
            BitNetModel.from_config("char", seed=seed)
    with pytest.raises(TypeError):
        tiny.perplexity([1, 2, 3], window=2.5)  # type: ignore[arg-type]


def test_forward_names_the_sequence_it_refuses(tiny: BitNetModel) -> None:
    with pytest.raises(ArgumentError, match=r"sequence 1: tokens\[1\] = 512"):
        tiny.forward([[1, 2], [3, 512]])


def test_what_the_system_refuses_is_an_os_error(tiny: BitNetModel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileSystemError, match="not a directory") as caught:
        tiny.save_pretrained(tmp_path / "file" / "model")
    assert isinstance(caught.value, OSError)


@pytest.mark.skipif(sys.platform != "linux", reason="how mappings end differs between systems")
def test_a_model_file_cut_short_while_it_is_used_is_a_format_error(tmp_path: Path) -> None:
    """In a process of its own: pytest's faulthandler takes the signal from Go's runtime."""
    code = f"""
import os, pathlib, sys
from bitnet_rust import BitNetModel, FormatError
file = pathlib.Path(sys.argv[1])
with BitNetModel.from_config({SLOW}) as model:
    model.save_pretrained(file)
whole = file.read_bytes()
with BitNetModel.from_pretrained(file, resident="map") as model:
    for tokens in (1, 64):
        os.truncate(file, len(whole) // 2)
        try:
            model.forward([1] * tokens)
        except FormatError as error:
            print(error)
        with file.open("r+b") as back:
            back.write(whole)
        assert model.forward([1] * tokens).shape == (tokens, 4096)
"""
    ran = [sys.executable, "-c", code, str(tmp_path / "model.bitnet")]
    result = subprocess.run(ran, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("model.bitnet: found a fault at byte") == 2


def test_a_config_that_no_machine_holds_is_refused_at_once() -> None:
    sizes = {
        "vocab_size": 1 << 24,
        "hidden_size": 1 << 17,
        "intermediate_size": 1 << 18,
        "num_hidden_layers": 1024,
        "num_attention_heads": 1024,
        "head_dim": 128,
    }
    for extra in ({}, {"quantization": {"modules_to_not_convert": ["proj"]}}):
        with pytest.raises(OutOfMemoryError, match="TiB"):
            BitNetModel.from_config(sizes | extra)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_every_call_into_the_core_is_refused_after_fork(tiny_dir: Path) -> None:
    model = BitNetModel.from_pretrained(tiny_dir)
    numbers = Tensor([1.0, 2.0])
    calls: list[Callable[[], Any]] = [
        lambda: bitnet_rust.Tokenizer.from_pretrained(tiny_dir),
        lambda: model._model.info(),
        lambda: numbers + numbers,
        lambda: Tensor([1.0]),
        bitnet_rust.build_info,
        bitnet_rust.num_threads,
        bitnet_rust.memory_stats,
        bitnet_rust.memory_blocks,
        bitnet_rust.trim_memory,
        lambda: bitnet_rust.on_memory_pressure(0.5, print),
        lambda: bitnet_rust.set_num_threads(1),
        bitnet_rust.list_models,
        lambda: bitnet_rust.find_model("2b"),
        lambda: bitnet_rust.register_model("mine", {"vocab_size": 1}),
        lambda: bitnet_rust.BitNetConfig.from_file(tiny_dir),
    ]
    child = os.fork()
    if child == 0:
        allowed = 0
        for call in calls:
            try:
                call()
                allowed += 1
            except ForkError:
                pass
            except BaseException:
                allowed += 1
        gc.collect()
        os._exit(allowed)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    model.close()


def test_a_signal_handler_may_not_close_the_model_it_interrupts(slow: BitNetModel) -> None:
    """The close would wait for the call that waits for the handler."""
    other = BitNetModel.from_config("char")

    def handler(*_: object) -> None:
        other.close()
        slow.close()

    before = signal.signal(signal.SIGUSR1, handler)
    main = threading.main_thread().ident
    assert main is not None
    allocated, over = bitnet_rust.memory_stats()["allocs"], threading.Event()

    def interrupt() -> None:
        """Once the call has memory, so that the signal does not come before it."""
        while bitnet_rust.memory_stats()["allocs"] == allocated:
            if over.is_set():
                return
        signal.pthread_kill(main, signal.SIGUSR1)

    thread = threading.Thread(target=interrupt)
    try:
        thread.start()
        with pytest.raises(ArgumentError, match="signal handler"):
            slow.perplexity([1] * 500_000)  # one call, which looks up now and then
    finally:
        over.set()
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    with pytest.raises(ArgumentError, match="closed"):
        other.forward([1])
    assert slow.forward([1]).shape == (1, 4096)


LARGE = SLOW | {"num_hidden_layers": 4, "hidden_size": 2048, "intermediate_size": 8192, "vocab_size": 65536}  # 0.3 GB


@pytest.mark.parametrize("call", ["make", "save"])
def test_ctrl_c_ends_making_and_saving_a_model(tmp_path: Path, call: str) -> None:
    part, setup = f"BitNetModel.from_config({LARGE}).close()", ""
    if call == "save":
        part, setup = f"model.save_pretrained({str(tmp_path)!r})", f"model = BitNetModel.from_config({LARGE})"
    assert_ctrl_c_ends(f"[{part} for _ in range(50)]", setup, part)
    assert not list(tmp_path.glob("*.tmp"))

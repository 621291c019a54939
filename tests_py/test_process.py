"""The extension in a process: threads, Ctrl-C, fork, memory that is given back."""

import gc
import multiprocessing
import os
import signal
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bitnet_rust import ArgumentError, BitNetModel, ForkError
from conftest import SLOW
from interrupting import assert_ctrl_c_ends

PROMPT = "First Citizen:"


# --- threads ---------------------------------------------------------------------------------------------------------


def in_threads(*calls: Callable[[], Any]) -> list[Any]:
    results: list[Any] = [None] * len(calls)

    def run(i: int) -> None:
        results[i] = calls[i]()

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_threads_get_the_texts_they_get_alone(tiny: BitNetModel) -> None:
    options = [{"max_new_tokens": 100, "temperature": 2.0, "seed": seed} for seed in range(4)]
    alone = [tiny.generate(PROMPT, **o) for o in options]
    assert in_threads(*(lambda o=o: tiny.generate(PROMPT, **o) for o in options)) == alone


def test_two_threads_make_progress_at_once(slow: BitNetModel) -> None:
    """Each thread waits, after every token, until the other has one too."""
    both = threading.Barrier(2, timeout=600)

    def generate(seed: int) -> list[int]:
        made = []
        for token in slow.generate([1, 2, 3], stream=True, max_new_tokens=8, temperature=1.0, seed=seed):
            both.wait()
            made.append(token)
        return made

    together = in_threads(lambda: generate(1), lambda: generate(2))
    assert together == [slow.generate([1, 2, 3], max_new_tokens=8, temperature=1.0, seed=seed) for seed in (1, 2)]


def test_a_generation_serves_one_thread_at_a_time(slow: BitNetModel) -> None:
    session = slow.session([[1] * 4096], max_new_tokens=1)
    generation = session._generation
    started = threading.Event()

    def step() -> list[Any]:
        started.set()
        return generation.step()

    thread = threading.Thread(target=step)
    thread.start()
    started.wait()
    refused = 0
    while thread.is_alive() and not refused:
        try:
            generation.progress()
        except ArgumentError as error:
            assert "another thread" in str(error)
            refused += 1
            generation.close()  # takes effect when the step ends
    thread.join()
    assert refused
    with pytest.raises(ArgumentError, match="closed"):
        generation.step()


def test_closing_waits_for_calls_in_flight() -> None:
    model = BitNetModel.from_config(SLOW | {"num_hidden_layers": 2})
    entered = threading.Event()

    def forward() -> Any:
        entered.set()
        return model.forward([1] * 512).shape

    def close() -> None:
        entered.wait()
        model.close()

    shape, _ = in_threads(lambda: _or_closed(forward), close)
    assert shape in ((512, 4096), "closed")


def _or_closed(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except ArgumentError as error:
        assert "closed" in str(error)
        return "closed"


# --- memory ----------------------------------------------------------------------------------------------------------


def test_a_dropped_model_and_its_streams_are_given_back(tiny_dir: Path) -> None:
    model = BitNetModel.from_pretrained(tiny_dir)
    stream = model.generate(PROMPT, stream=True, max_new_tokens=50)
    next(stream)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
    assert len("".join(stream)) > 20  # the generation keeps the weights
    del stream
    gc.collect()


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_models_made_and_dropped_leave_no_memory_behind() -> None:
    def once() -> None:
        with BitNetModel.from_config(SLOW | {"num_hidden_layers": 2}) as model:  # 15 MB
            model.generate([1, 2, 3], max_new_tokens=2)

    for _ in range(3):
        once()
    before = resident()
    for _ in range(12):
        once()
    gc.collect()
    assert resident() - before < 60 << 20


# --- Ctrl-C ----------------------------------------------------------------------------------------------------------

MODEL = "model = BitNetModel.from_config(SLOW)"
CALLS = {  # and a part of each
    "generate": (
        "model.generate([1, 2, 3], max_new_tokens=10**6, ignore_eos=True)",
        "model.generate([1, 2, 3], max_new_tokens=30, ignore_eos=True)",
    ),
    "long prompt": ("model.generate([1] * 500_000)", "model.generate([1] * 500, max_new_tokens=1)"),
    "forward": ("model.forward([1] * 100_000)", "model.forward([1] * 500)"),
    "perplexity": ("model.perplexity([1] * 500_000)", "model.perplexity([1] * 500)"),
}


@pytest.mark.parametrize("name", CALLS)
def test_ctrl_c_ends_a_call_and_leaves_the_model_usable(name: str) -> None:
    call, part = CALLS[name]
    assert_ctrl_c_ends(call, MODEL, part, after="assert model.forward([1, 2]).shape == (2, 4096)")


def test_ctrl_c_ends_loading(tmp_path: Path) -> None:
    """A checkpoint of float weights that are ternarized at load."""
    make_master_checkpoint(tmp_path, SLOW | {"num_hidden_layers": 24, "intermediate_size": 8192})
    load = f"BitNetModel.from_pretrained({str(tmp_path)!r}).close()"
    assert_ctrl_c_ends(f"[{load} for _ in range(50)]", "", load)


def make_master_checkpoint(directory: Path, config: dict[str, int]) -> None:
    """An online checkpoint: bfloat16 master weights, all zero but for a pattern, written without a framework."""
    import json

    d, f, v, layers = (
        config["hidden_size"],
        config["intermediate_size"],
        config["vocab_size"],
        config["num_hidden_layers"],
    )
    shapes: dict[str, list[int]] = {"model.embed_tokens.weight": [v, d], "model.norm.weight": [d]}
    for i in range(layers):
        p = f"model.layers.{i}."
        shapes |= {f"{p}self_attn.{n}_proj.weight": [d, d] for n in "qkvo"}
        shapes |= {f"{p}mlp.{n}_proj.weight": [f, d] for n in ("gate", "up")} | {f"{p}mlp.down_proj.weight": [d, f]}
        shapes |= {
            f"{p}{n}.weight": [d] for n in ("input_layernorm", "post_attention_layernorm", "self_attn.attn_sub_norm")
        }
        shapes |= {f"{p}mlp.ffn_sub_norm.weight": [f]}
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 2
        for n in shape:
            size *= n
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 64 + 56)
    with (directory / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        block = b"\x80\x3f\x80\xbf\x00\x00\x80\x3d" * (1 << 17)
        while at > 0:
            file.write(block[:at])
            at -= len(block)
    fields = {
        "architectures": ["BitNetForCausalLM"], "model_type": "bitnet", "dtype": "bfloat16", "hidden_act": "relu2",
        "tie_word_embeddings": True, "num_key_value_heads": config["num_attention_heads"],
        "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"},
    }  # fmt: skip
    (directory / "config.json").write_text(json.dumps(config | fields))


def test_a_signal_handler_that_raises_ends_loading_and_closes_the_model(tiny_dir: Path) -> None:
    def progress(done: int, total: int) -> None:
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        BitNetModel.from_pretrained(tiny_dir, progress=progress)


# --- fork ------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_told_to_use_spawn(tiny: BitNetModel) -> None:
    tiny.forward([1, 2, 3])
    session = tiny.session([[1, 2]])
    calls: list[Callable[[], Any]] = [
        lambda: tiny.forward([1, 2, 3]),
        lambda: tiny.generate("First"),
        lambda: tiny.perplexity([1, 2]),
        lambda: BitNetModel.from_pretrained("bitnet-shakespeare"),
        lambda: BitNetModel.from_config("char"),
        lambda: next(iter(session)),
        lambda: tiny.save_pretrained("/nonexistent"),
        lambda: tiny.close(),
    ]
    child = os.fork()
    if child == 0:
        told = 0
        for call in calls:
            try:
                call()
            except ForkError as error:
                told += isinstance(error, RuntimeError) and "spawn" in str(error)
            except BaseException:
                pass
        del session
        gc.collect()
        os._exit(0 if told == len(calls) else 1 + told)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert tiny.forward([1, 2, 3]).shape == (3, 512)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_other_start_methods_work(method: str) -> None:
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert len(pool.apply(_generate_in_child)) == 3


def _generate_in_child() -> list[int]:
    with BitNetModel.from_pretrained("bitnet-shakespeare") as model:
        made: list[int] = model.generate([1, 2], max_new_tokens=3)
        return made

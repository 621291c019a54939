"""Exported checkpoints are the same models to transformers (`make test-full`; skipped where torch or transformers is missing)."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

NEEDED = ("torch", "transformers", "accelerate", "safetensors")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (needed to read exports)"),
]
TESTDATA = Path(__file__).parents[2] / "tests_go" / "testdata"
FOLDERS = sorted(
    config
    for config in [*TESTDATA.glob("golden/*/config.json"), *TESTDATA.glob("parity/*/config.json")]
    if config.parent.name != "gpt2_ternary"  # transformers has no ternary layers for it
)


@pytest.mark.parametrize("config", FOLDERS, ids=lambda p: f"{p.parents[1].name}-{p.parent.name}")
def test_transformers_computes_the_same_from_an_export(config: Path, tmp_path: Path) -> None:
    import check_export

    result = check_export.check(config.parent, tmp_path / "export")
    assert result.passed, result


GOLDEN = sorted((TESTDATA / "golden").glob("*/config.json"))


@pytest.mark.parametrize("form", ["autobitlinear", "bitlinear", "bfloat16"])
@pytest.mark.parametrize("config", GOLDEN, ids=lambda p: p.parent.name)
def test_transformers_says_the_greedy_tokens_of_the_reference(config: Path, form: Any, tmp_path: Path) -> None:
    """Both conventions of packed weights, and master weights; as its users load them, without code of ours, and in several files."""
    import check_export
    import make_parity
    import numpy as np
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from bitnet_rust import BitNetModel

    packed = form != "bfloat16"
    if not packed and "online" not in config.parent.name:
        pytest.skip("a packed checkpoint has no master weights")
    with BitNetModel.from_pretrained(config.parent, trainable=not packed) as model:
        layout = {"linear_class": form} if packed else {"masters": form}
        model.save_pretrained(tmp_path / "export", format="hf", max_shard_size="100KB", **layout)
    assert (tmp_path / "export" / "model.safetensors.index.json").exists()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "export")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "export", dtype=torch.float32, attn_implementation="eager")
    theirs = torch.nn.Module.float(theirs).eval()
    assert theirs.config.quantization_config.linear_class == (form if packed else "autobitlinear")
    with np.load(config.parent / "golden_f32.npz") as golden:
        for i in range(4):
            ids, greedy = golden[f"input_ids_{i}"].ravel(), golden[f"greedy_{i}"].ravel()
            logits = make_parity.logits_of(theirs, ids)
            recorded = golden[f"logits_{i}"].reshape(logits.shape)
            assert np.abs(logits - recorded).max() <= check_export.GOLDEN_GATE
            assert (logits.argmax(-1) == recorded.argmax(-1)).all()
            text = theirs.generate(torch.from_numpy(ids)[None], max_new_tokens=64, do_sample=False)
            assert text[0].tolist() == greedy.tolist()
            with BitNetModel.from_pretrained(tmp_path / "export") as ours:
                assert ours.generate(ids, max_new_tokens=64, return_full_text=True) == greedy.tolist()
                assert ours.tokenizer.encode("To be, or not") == tokenizer.encode("To be, or not")


def test_the_folders_are_those_of_the_generator() -> None:
    import make_parity

    assert {p.parent.name for p in TESTDATA.glob("parity/*/config.json")} == {v.name for v in make_parity.VARIANTS}


@pytest.mark.parametrize(
    ("architecture", "unconverted"),
    [("BitnetForCausalLM", []), ("BitNetForCausalLM", ["down_proj"]), ("LlamaForCausalLM", ["model.layers.0.mlp"])],
)
def test_transformers_computes_the_same_from_a_model_made_here(
    architecture: str, unconverted: list[str], tmp_path: Path
) -> None:
    import check_export
    import make_parity
    import numpy as np

    from bitnet_rust import BitNetModel

    config = {
        "architecture": architecture,
        "vocab_size": 97,
        "hidden_size": 64,
        "intermediate_size": 88,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "quantization": {"modules_to_not_convert": unconverted},
    }
    ids = np.arange(3, 20)
    with BitNetModel.from_config(config) as model:
        model.save_pretrained(tmp_path / "export", format="hf")
        ours = model.forward(ids)
    theirs = make_parity.logits_of(make_parity.load(tmp_path / "export"), ids)
    assert np.abs(ours - theirs).max() <= check_export.GOLDEN_GATE * ours.std()


@pytest.mark.parametrize("masters", ["float32", "bfloat16"])
@pytest.mark.parametrize("architecture", ["BitNetForCausalLM", "LlamaForCausalLM"])
def test_transformers_computes_the_same_from_master_weights(architecture: str, masters: Any, tmp_path: Path) -> None:
    """A model trained here, as master weights that transformers makes ternary at every step."""
    import check_export
    import make_parity
    import numpy as np

    from bitnet_rust import BitNetModel, Trainer

    config = {
        "architecture": architecture,
        "vocab_size": 97,
        "hidden_size": 64,
        "intermediate_size": 88,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "quantization": {"modules_to_not_convert": ["down_proj"]},
    }
    ids = np.arange(3, 20)
    with BitNetModel.from_config(config, trainable=True) as model:
        Trainer(model, max_steps=10, batch_size=4, context_length=16).train(np.arange(400) ** 2 % 97)
        model.save_pretrained(tmp_path / "export", format="hf", masters=masters)
        trained = model.forward(ids)
    with BitNetModel.from_pretrained(tmp_path / "export", head_dtype="float32") as loaded:
        ours = loaded.forward(ids)
    if masters == "float32":
        assert np.array_equal(ours, trained)
    theirs = make_parity.logits_of(make_parity.load(tmp_path / "export"), ids)
    assert np.abs(ours - theirs).max() <= check_export.GOLDEN_GATE * ours.std()
    assert (ours.argmax(-1) == theirs.argmax(-1)).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_float_llama_of_transformers_is_a_start_for_training(dtype: str, tmp_path: Path) -> None:
    """Its weights are the masters, to the bit."""
    import numpy as np
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from bitnet_rust import BitNetModel, Trainer

    torch.manual_seed(1)
    shape = {"hidden_size": 64, "intermediate_size": 88, "num_hidden_layers": 2, "num_attention_heads": 4}
    llama = LlamaForCausalLM(LlamaConfig(vocab_size=97, num_key_value_heads=2, **shape)).to(getattr(torch, dtype))
    llama.save_pretrained(tmp_path)
    with BitNetModel.from_pretrained(tmp_path, trainable=True, quantize=True) as model:
        masters = {name: np.asarray(p.numpy()) for name, p in model.named_parameters()}
        theirs = {name: p.detach().float().numpy() for name, p in llama.named_parameters()}
        assert masters.keys() == theirs.keys()
        for name, values in theirs.items():
            assert np.array_equal(masters[name], values), name
        history = Trainer(model, max_steps=4, batch_size=4, context_length=16).train(np.arange(400) ** 2 % 97)
        assert history[-1]["loss"] < history[0]["loss"]

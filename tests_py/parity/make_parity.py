"""Make tests_go/testdata/parity: tiny checkpoints of every config variant, and what transformers computes from them.

    pip install torch "transformers==5.23.*" accelerate safetensors
    python tests_py/parity/make_parity.py [--out DIR] [NAME ...]

Each folder holds config.json, model*.safetensors and parity.npz with, for the prompts i = 0 and 1, `input_ids_i`
[T] int64, `logits_i` [T, vocab] float32 and `argmax_i` [T] int64. The files are written by hand, tensor by tensor, so
that nothing of the reference decides what is in them; the reference is what transformers computes in float32 after
from_pretrained of those very files. A load that leaves a tensor out, or one over, or of another shape, is an error here.

Quantization rounds, and a value on a rounding tie goes either way with the order of float sums. So that two right
implementations agree to float precision, nothing here lies near a tie: model seeds are tried until no weight, and prompts
until no activation, is within TIE of one. The prompts are also chosen for the gap between best and second logit. All of
it follows from the variants' names, so a second run writes the same files.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ["TORCHDYNAMO_DISABLE"] = "1"  # transformers compiles the quantizers; eager they are the same functions

import gpt2
import numpy as np
import torch
import transformers
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from transformers.integrations.bitnet import AutoBitLinear, BitLinear, pack_weights

OUT = Path(__file__).resolve().parents[2] / "tests_go" / "testdata" / "parity"

TIE = 1e-4  # least distance of an activation, in steps of its quantizer, from a rounding tie
WEIGHT_TIE = 1e-5  # the same for master weights
GAP = 0.04  # least gap between best and second logit, in standard deviations of the logits
LENGTHS, LONG = (12, 5), (24, 12)  # of the prompts


@dataclass(frozen=True)
class Variant:
    """A checkpoint: what its config says and what its files hold."""

    name: str
    arch: str  # "BitNet", "Llama" or "GPT2"
    config: dict[str, Any]  # keys beyond SIZES; a None is written as null
    quantization: dict[str, Any]  # empty for a GPT-2 of floats
    packed: bool = True  # ternary codes, or master weights
    dtype: torch.dtype = torch.bfloat16  # of the float tensors
    floats: Callable[[str], bool] = lambda name: False  # the projections that stay float
    head: str = "tied"  # "tied", "untied", or "stored": the config ties, the file has another head all the same
    codes: bool = False  # unpacked: the ternary codes as floats beside a weight_scale
    shard: int = 0  # bytes of a shard, 0 for one file
    lengths: tuple[int, int] = LENGTHS
    swaps: dict[str, str] = field(default_factory=dict)  # config keys under another name
    without: tuple[str, ...] = ()  # config keys that are not there
    embed: float = 0.2  # standard deviation of the embedding
    prefix: str = "transformer."  # of a GPT-2's names


SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 72,
    "intermediate_size": 88,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 2e-3,  # large enough to be seen in the logits
    "bos_token_id": 1,
    "eos_token_id": 2,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "dtype": "bfloat16",
}
SMALL = {"hidden_size": 48, "intermediate_size": 52}  # for float32 master weights
MASTERS = {"hidden_size": 64, "intermediate_size": 88}

AUTO = {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline"}
ONLINE = AUTO | {"quantization_mode": "online"}
BIT = {"quant_method": "bitnet", "linear_class": "bitlinear", "quantization_mode": "offline"}
PLAIN = {"quant_method": "bitnet"}  # what says nothing is bitlinear, offline
NORMS = {"use_rms_norm": True, "rms_norm_eps": 1e-3}
BIASES = {"attention_bias": True, "mlp_bias": True}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
DEFAULTED = ("hidden_act", "max_position_embeddings", "rms_norm_eps", "rope_parameters")


def skipped(*parts: str) -> Callable[[str], bool]:
    """The projections whose name holds one of the parts."""
    return lambda name: any(part in name for part in parts)


VARIANTS = [
    # Linear classes and modes. bitlinear has one form, packed, whatever the mode says.
    Variant("bitnet_autobitlinear_offline", "BitNet", {}, AUTO),
    Variant("bitnet_autobitlinear_online", "BitNet", MASTERS, ONLINE, packed=False),
    Variant("bitnet_bitlinear_offline", "BitNet", {}, BIT),
    Variant(
        "bitnet_bitlinear_online", "BitNet", {"head_dim": 18}, BIT | {"quantization_mode": "online"}, head="untied"
    ),
    Variant("llama_autobitlinear_offline", "Llama", {}, AUTO, head="untied"),
    Variant("llama_autobitlinear_online", "Llama", MASTERS, ONLINE, packed=False),
    Variant("llama_autobitlinear_codes", "Llama", SMALL, AUTO, packed=False, codes=True),
    # A norm in each linear; biases, which one class scales and the other does not; both at once.
    Variant("bitnet_autobitlinear_norms", "BitNet", {}, AUTO | NORMS),
    Variant("bitnet_bitlinear_norms", "BitNet", {}, BIT | NORMS),
    Variant("bitnet_autobitlinear_bias", "BitNet", {"attention_bias": True}, AUTO),
    Variant("bitnet_bitlinear_bias", "BitNet", {"attention_bias": True}, BIT),
    Variant("bitnet_online_norms_bias", "BitNet", SMALL | {"attention_bias": True}, ONLINE | NORMS, packed=False),
    Variant("llama_autobitlinear_bias", "Llama", BIASES, AUTO),
    Variant("llama_bitlinear_bias", "Llama", BIASES, BIT),
    Variant("llama_bitlinear_norms_bias", "Llama", BIASES, BIT | NORMS),
    # Positions. Head dims 24 and 32 have frequencies in all three ranges of llama3.
    Variant(
        "llama_rope_llama3",
        "Llama",
        {
            "hidden_size": 96,
            "rope_parameters": LLAMA3 | {"rope_theta": 1000.0, "original_max_position_embeddings": 64},
        },
        PLAIN,
        lengths=LONG,
    ),
    Variant(
        "llama_rope_llama3_context",  # no original_max_position_embeddings: the context is it
        "Llama",
        {"hidden_size": 96, "rope_scaling": LLAMA3, "rope_theta": 500.0},
        PLAIN,
        without=("rope_parameters",),
        lengths=LONG,
    ),
    Variant(
        "llama_rope_linear",
        "Llama",
        {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}},
        PLAIN,
        lengths=LONG,
    ),
    Variant(
        "bitnet_rope_linear",  # in the old spelling
        "BitNet",
        {"rope_scaling": {"type": "linear", "factor": 2.5}, "rope_theta": 700.0},
        AUTO,
        without=("rope_parameters",),
        lengths=LONG,
    ),
    Variant(
        "llama_rope_both",  # rope_scaling replaces rope_parameters whole
        "Llama",
        {
            "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0},
            "rope_scaling": {"rope_type": "default"},
            "rope_theta": 300.0,
        },
        PLAIN,
        lengths=LONG,
    ),
    # Shapes.
    Variant("llama_head_dim", "Llama", {"head_dim": 32}, PLAIN, head="untied"),
    Variant(
        "llama_all_heads",
        "Llama",
        {"num_key_value_heads": None, "head_dim": None, "vocab_size": 128},
        PLAIN,
        head="untied",
    ),
    Variant(
        "llama_one_kv_head",
        "Llama",
        {"num_key_value_heads": 1, "num_attention_heads": 6, "hidden_act": "swish"},
        PLAIN,
    ),
    # The other activations of the gate.
    Variant("bitnet_gelu", "BitNet", {"hidden_act": "gelu"}, AUTO),
    Variant("llama_gelu_tanh", "Llama", {"hidden_act": "gelu_pytorch_tanh"}, PLAIN),
    Variant("llama_gelu_new", "Llama", {"hidden_act": "gelu_new"}, PLAIN),
    Variant("bitnet_relu", "BitNet", {"hidden_act": "relu"}, AUTO),
    # Tables.
    Variant("llama_head_stored", "Llama", {}, PLAIN, head="stored"),
    # Projections that stay float: by layer, by suffix, by regular expression. "model.layers.0.mlp.gate" names none.
    Variant(
        "llama_unconverted",
        "Llama",
        SMALL | {"attention_bias": True},
        BIT
        | {"modules_to_not_convert": ["lm_head", "model.layers.1.self_attn", "down_proj", "model.layers.0.mlp.gate"]},
        floats=skipped("layers.1.self_attn.", "down_proj"),
        head="untied",
    ),
    Variant(
        "bitnet_unconverted",
        "BitNet",
        SMALL,
        AUTO | NORMS | {"modules_to_not_convert": ["lm_head", r"model\.layers\.\d\.self_attn\.[qk]_proj", "up_proj"]},
        floats=skipped("q_proj", "k_proj", "up_proj"),
    ),
    # Spellings, defaults, files, precisions. Small embeddings show which eps the class has.
    Variant("bitnet_defaults", "BitNet", {}, AUTO, without=DEFAULTED, embed=0.003, lengths=LONG),
    Variant(
        "llama_defaults", "Llama", {}, PLAIN, without=(*DEFAULTED, "num_key_value_heads"), embed=0.001, lengths=LONG
    ),
    Variant(
        "bitnet_old_spelling",
        "BitNet",
        {
            "rope_parameters": None,
            "rope_theta": 2000.0,
            "num_key_value_heads": None,
            "eos_token_id": [2, 5],
            "pad_token_id": 0,
        },
        AUTO,
        swaps={"dtype": "torch_dtype"},
    ),
    Variant("llama_shards", "Llama", {}, PLAIN, head="untied", shard=12_000),
    Variant(
        "bitnet_online_float16", "BitNet", MASTERS | {"dtype": "float16"}, ONLINE, packed=False, dtype=torch.float16
    ),
    Variant("bitnet_online_float32", "BitNet", SMALL | {"dtype": "float32"}, ONLINE, packed=False, dtype=torch.float32),
    Variant("llama_packed_float32", "Llama", {"dtype": "float32"}, BIT, dtype=torch.float32, head="untied"),
    # GPT-2: LayerNorm, learned positions, fused q, k and v, no gate. The ternary one is transformers' model with its own ternary layers.
    Variant("gpt2_float32", "GPT2", {}, {}, dtype=torch.float32, lengths=LONG),
    Variant("gpt2_bare_bfloat16", "GPT2", {"activation_function": "gelu", "n_inner": 72}, {}, prefix="", head="untied"),
    Variant(
        "gpt2_ternary", "GPT2", {"n_embd": 36, "n_head": 3, "n_inner": 88}, ONLINE, packed=False, dtype=torch.float32
    ),
]


def config_of(v: Variant) -> dict[str, Any]:
    """The text of config.json."""
    if v.arch == "GPT2":
        config = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"} | gpt2.SIZES | v.config
        config |= {"quantization_config": v.quantization} if v.quantization else {}
        return config if v.head == "tied" else config | {"tie_word_embeddings": False}
    kind = {"BitNet": ("bitnet", "relu2"), "Llama": ("llama", "silu")}[v.arch]
    config = {"architectures": [v.arch + "ForCausalLM"], "model_type": kind[0], "hidden_act": kind[1]}
    config |= SIZES | v.config | {"tie_word_embeddings": v.head != "untied", "quantization_config": v.quantization}
    return {v.swaps.get(key, key): value for key, value in config.items() if key not in v.without}


def projections(c: dict[str, Any]) -> Iterator[tuple[str, int, int, bool]]:
    """Name, rows, columns and bias of every linear layer."""
    d, f, heads = c["hidden_size"], c["intermediate_size"], c["num_attention_heads"]
    dim = c.get("head_dim") or d // heads
    q, kv = heads * dim, (c.get("num_key_value_heads") or heads) * dim
    for i in range(c["num_hidden_layers"]):
        for name, rows, cols in [("q", q, d), ("k", kv, d), ("v", kv, d), ("o", d, q)]:
            yield f"model.layers.{i}.self_attn.{name}_proj", rows, cols, c.get("attention_bias", False)
        for name, rows, cols in [("gate", f, d), ("up", f, d), ("down", d, f)]:
            yield f"model.layers.{i}.mlp.{name}_proj", rows, cols, c.get("mlp_bias", False)


def norms(c: dict[str, Any], arch: str) -> Iterator[tuple[str, int]]:
    """Name and width of every norm of the model itself."""
    d = c["hidden_size"]
    for i in range(c["num_hidden_layers"]):
        yield f"model.layers.{i}.input_layernorm", d
        yield f"model.layers.{i}.post_attention_layernorm", d
        if arch == "BitNet":
            yield f"model.layers.{i}.self_attn.attn_sub_norm", d
            yield f"model.layers.{i}.mlp.ffn_sub_norm", c["intermediate_size"]
    yield "model.norm", d


class OnATie(Exception):
    """A weight lies too near to a rounding tie: another seed will do better."""


def tensors_of(v: Variant, seed: int) -> dict[str, torch.Tensor]:
    """The tensors of the checkpoint."""
    c, r = config_of(v), torch.Generator().manual_seed(zlib.crc32(v.name.encode()) + seed)
    out: dict[str, torch.Tensor] = {}

    def normal(std: float, *shape: int) -> torch.Tensor:
        return (torch.randn(*shape, generator=r) * std).to(v.dtype)

    def near_one(width: int) -> torch.Tensor:
        return (0.5 + torch.rand(width, generator=r)).to(v.dtype)

    if v.arch == "GPT2":
        out |= gpt2.tensors(c, v.prefix, normal, near_one)
        for name, tensor in out.items():
            parts = tensor.float().chunk(3 if ".c_attn." in name else 1, -1)
            steps = [(part.abs() / part.abs().mean() - 0.5).abs().min() for part in parts]
            if v.quantization and ".c_" in name and name.endswith(".weight") and min(steps) < WEIGHT_TIE:
                raise OnATie
        if v.head != "tied":
            out["lm_head.weight"] = normal(0.2, c["vocab_size"], c["n_embd"])
        return out
    out["model.embed_tokens.weight"] = normal(v.embed, c["vocab_size"], c["hidden_size"])
    for name, rows, cols, bias in projections(c):
        out |= linear(v, name, normal(0.15, rows, cols))
        if bias:
            out[name + ".bias"] = normal(1, rows)
        if v.quantization.get("use_rms_norm") and not v.floats(name):
            out[name + ".rms_norm.weight"] = near_one(cols)
    for name, width in norms(c, v.arch):
        out[name + ".weight"] = near_one(width)
    if v.head != "tied":
        out["lm_head.weight"] = normal(0.2, c["vocab_size"], c["hidden_size"])
    return out


def linear(v: Variant, name: str, master: torch.Tensor) -> dict[str, torch.Tensor]:
    """The tensors of one linear layer, without bias and norm."""
    if v.floats(name):
        return {name + ".weight": master}
    steps = master.float() / master.float().abs().mean()
    if not v.packed and not v.codes:
        if (steps.abs() - 0.5).abs().min() < WEIGHT_TIE:
            raise OnATie
        return {name + ".weight": master}
    codes, scale = steps.round().clamp(-1, 1), master.float().abs().mean()
    if v.quantization.get("linear_class", "bitlinear") == "bitlinear":
        scale = 1 / scale
    weight = codes.to(v.dtype) if v.codes else pack_weights(codes.clone())
    return {name + ".weight": weight, name + ".weight_scale": scale.to(v.dtype).reshape(1)}


def write(v: Variant, folder: Path, seed: int) -> None:
    """The checkpoint as files."""
    tensors = tensors_of(v, seed)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config_of(v), indent=1) + "\n")
    if not v.shard:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    split = split_torch_state_dict_into_shards(tensors, max_shard_size=v.shard)
    for file, names in split.filename_to_tensors.items():
        save_file({name: tensors[name] for name in names}, folder / file, metadata={"format": "pt"})
    index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")


def load(folder: Path) -> Any:
    """The model that transformers makes of a folder, in float32; an error if it does not use each tensor as it is."""
    config = json.loads((folder / "config.json").read_text())
    arch = config["architectures"][0]
    ternary = arch == "GPT2LMHeadModel" and config.pop("quantization_config", None)
    own = transformers.GPT2Config(**config) if ternary else None  # transformers' quantizer passes over Conv1D
    model, info = getattr(transformers, arch).from_pretrained(
        folder, config=own, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    wrong = {what: names for what, names in info.items() if names}
    if wrong:
        raise ValueError(f"{folder}: {wrong}")
    if ternary:
        gpt2.ternarize(model)
    # Beside packed autobitlinear layers it keeps the files' precision, and its own float() refuses to widen that.
    return torch.nn.Module.float(model).eval()


class TieWatch:
    """Least distance of any quantizer's input from a rounding tie, over the forward passes it watches."""

    def __init__(self, model: Any) -> None:
        self.least = 0.5
        for module in model.modules():
            if isinstance(module, AutoBitLinear | BitLinear):
                module.register_forward_pre_hook(self.look)

    def look(self, module: Any, args: tuple[torch.Tensor]) -> None:
        x = args[0] if module.rms_norm is None else module.rms_norm(args[0])
        steps = x * (127 / x.abs().amax(-1, keepdim=True).clamp(min=1e-5))
        self.least = min(self.least, ((steps - steps.floor()) - 0.5).abs().min().item())


@torch.no_grad()
def logits_of(model: Any, ids: np.ndarray) -> np.ndarray:
    """Logits [T, vocab] float32."""
    return model(input_ids=torch.from_numpy(ids)[None]).logits[0].float().numpy()


def vectors_of(v: Variant, model: Any) -> tuple[dict[str, np.ndarray], float, float]:
    """parity.npz, the least gap in standard deviations and the least distance from a tie."""
    watch, r = TieWatch(model), np.random.default_rng(zlib.crc32(v.name.encode()))
    out: dict[str, np.ndarray] = {}
    gaps, ties = [], []
    for i, length in enumerate(v.lengths):
        wanted = GAP * min(1, LENGTHS[0] / length)  # more positions have a smaller least gap
        for _ in range(4000):
            ids = r.integers(3, SIZES["vocab_size"], length)
            watch.least = 0.5
            logits = logits_of(model, ids)
            best = np.sort(logits, -1)
            gap = float((best[:, -1] - best[:, -2]).min() / logits.std())
            if watch.least >= TIE and gap >= wanted:
                break
        else:
            raise ValueError(f"{v.name}: no prompt of length {length} keeps off the ties")
        out |= {f"input_ids_{i}": ids.astype(np.int64), f"logits_{i}": logits, f"argmax_{i}": logits.argmax(-1)}
        gaps.append(gap)
        ties.append(watch.least)
    return out, min(gaps), min(ties)


def make(v: Variant, out: Path) -> None:
    """One folder."""
    with tempfile.TemporaryDirectory() as tmp:
        for seed in range(1000):
            folder = Path(tmp) / str(seed)
            try:
                write(v, folder, seed)
                break
            except OnATie:
                continue
        vectors, gap, tie = vectors_of(v, load(folder))
        np.savez_compressed(folder / "parity.npz", **vectors)
        shutil.rmtree(out / v.name, ignore_errors=True)
        shutil.copytree(folder, out / v.name)
    size = sum(f.stat().st_size for f in (out / v.name).iterdir())
    std = np.concatenate([vectors["logits_0"], vectors["logits_1"]]).std()
    print(
        f"{v.name:32} {size / 1000:6.1f} kB  seed {seed}  std {std:.3f}  gap {gap:.3f} std  tie {tie:.1e}", flush=True
    )


def quiet() -> None:
    """One thread, and no messages but errors."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the parity folders.")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("names", nargs="*", help="variants (default: all)")
    args = parser.parse_args()
    if unknown := set(args.names) - {v.name for v in VARIANTS}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    quiet()
    for v in VARIANTS:
        if not args.names or v.name in args.names:
            make(v, args.out)


if __name__ == "__main__":
    main()

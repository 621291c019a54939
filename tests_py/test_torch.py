"""bitnet_rust.torch beside PyTorch, with `make test-full`: the same integers, gradients, states and memory on both sides."""

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import bitnet_rust.torch as bt  # noqa: E402
from bitnet_rust import ArgumentError, BitNetModel, DeviceError, FormatError, ShapeError, Tensor, Trainer, optim  # noqa: E402
from bitnet_rust.nn import functional as F  # noqa: E402
from conftest import GOLDEN, TINY  # noqa: E402

pytestmark = pytest.mark.full

FOLDERS = ["bitnet_offline_packed", "bitnet_online_bf16", "llama_bitlinear_packed"]
IDS = torch.randint(3, 500, (2, 24), generator=torch.Generator().manual_seed(0))


# --- tensors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int8", "uint8", "int32", "int64", "bool"])
def test_tensors_share_memory_both_ways(dtype: str) -> None:
    theirs = torch.arange(12).reshape(3, 4).to(getattr(torch, dtype))
    ours = bt.tensor(theirs.T[1:])
    assert (ours.dtype, ours.shape) == (dtype, (3, 3))
    theirs[0, 1], ours[2, 2] = 1, 0
    assert torch.equal(bt.share(ours), theirs.T[1:])
    assert bt.share(ours).data_ptr() == theirs.T[1:].data_ptr()
    assert torch.equal(torch.from_dlpack(Tensor(ours)), theirs.T[1:])


def test_what_cannot_be_shared_says_why() -> None:
    with pytest.raises(DeviceError, match="meta"):
        bt.tensor(torch.empty(2, device="meta"))
    with pytest.raises(TypeError, match="no tensor dtype"):
        bt.tensor(torch.zeros(2, dtype=torch.float64))


# --- layers ----------------------------------------------------------------------------------------------------------


def reference(layer: Any, x: Any) -> Any:
    """The layer in torch's own operations."""
    return layer._in_torch(x) if layer.bias is None else layer._in_torch(x) + layer.bias


@pytest.mark.parametrize("ste", ["identity", "clipped", "soft"])
@pytest.mark.parametrize("bias", [False, True])
def test_bit_linear_is_its_formula_forward_and_backward(ste: Any, bias: bool) -> None:
    torch.manual_seed(1)
    layer = bt.BitLinear(96, 40, bias, ste=ste)
    x = torch.randn(3, 5, 96, requires_grad=True)
    gradient = torch.randn(3, 5, 40)
    leaves = [x, *layer.parameters()]
    found = torch.autograd.grad(layer(x), leaves, gradient)
    wanted = torch.autograd.grad(reference(layer, x), leaves, gradient)
    torch.testing.assert_close(layer(x), reference(layer, x), rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=2e-4 * float(theirs.abs().max()))


def test_bit_linear_is_the_core_s_layer_in_both_modes() -> None:
    torch.manual_seed(2)
    layer = bt.BitLinear(64, 32, bias=False)
    x = torch.randn(7, 64)
    want = F.bit_linear(Tensor(x.numpy()), Tensor(layer.weight.detach().numpy())).numpy()
    assert np.array_equal(layer(x).detach().numpy(), want)
    with torch.no_grad():
        assert np.array_equal(layer.eval()(x).numpy(), want)


@pytest.mark.parametrize("case", ["a", "b", "c"])
def test_bit_linear_reproduces_the_golden_cases(case: str) -> None:
    golden = np.load(GOLDEN / "linear_cases.npz")
    weight, x, gradient = (torch.from_numpy(golden[f"{case}_{name}"]).float() for name in ("W", "X", "G"))
    layer = bt.BitLinear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight = nn.Parameter(weight)
    y = layer(x.requires_grad_())
    y.backward(gradient)
    np.testing.assert_allclose(y.detach().numpy(), golden[f"{case}_y_auto_online"], rtol=1e-5, atol=1e-6)
    for found, name in ((x.grad, "dX"), (layer.weight.grad, "dW")):
        want = golden[f"{case}_{name}"]
        np.testing.assert_allclose(found.numpy(), want, rtol=1e-4, atol=1e-4 * np.abs(want).max())


@pytest.mark.parametrize("change", ["optimizer", "copy_", "load_state_dict", "assignment", "data and eval()"])
def test_evaluation_sees_every_change_of_the_weight(change: str) -> None:
    torch.manual_seed(3)
    layer = bt.BitLinear(16, 8).eval()
    x = torch.randn(4, 16)
    with torch.no_grad():
        before = layer(x)
        assert torch.equal(layer(x), before)
    new = -layer.weight.detach()
    if change == "optimizer":
        opt = torch.optim.SGD([layer.weight], lr=2.0)
        layer.weight.grad = layer.weight.detach().clone()
        opt.step()
    elif change == "copy_":
        with torch.no_grad():
            layer.weight.copy_(new)
    elif change == "load_state_dict":
        layer.load_state_dict({"weight": new, "bias": layer.bias})
    elif change == "assignment":
        layer.weight = nn.Parameter(new)
    else:
        layer.weight.data.neg_()
        layer.eval()
    with torch.no_grad():
        torch.testing.assert_close(layer(x) - layer.bias, -(before - layer.bias))


@pytest.mark.parametrize("kept", [False, True])
def test_evaluation_has_the_gradients_of_training(kept: bool) -> None:
    """Of the weight too, whether a pass without gradients has kept its quantized form before or not."""
    torch.manual_seed(3)
    layer, x = bt.BitLinear(16, 8), torch.randn(4, 16, requires_grad=True)
    leaves = [x, *layer.parameters()]
    trained = torch.autograd.grad(layer(x).square().sum(), leaves)
    layer.eval()
    if kept:
        with torch.no_grad():
            layer(x)
    for found, wanted in zip(torch.autograd.grad(layer(x).square().sum(), leaves), trained, strict=True):
        assert torch.equal(found, wanted)
    layer.weight.requires_grad_(False)
    assert torch.equal(torch.autograd.grad(layer(x).square().sum(), [x])[0], trained[0])


def test_layers_are_modules_like_any_other() -> None:
    torch.manual_seed(4)
    layer = bt.BitLinear(16, 8, norm_eps=1e-6).eval()
    x = torch.randn(2, 16)
    y = layer(x)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x), y)
    assert set(layer.state_dict()) == {"weight", "bias", "rms_norm.weight"}
    half = copy.deepcopy(layer).bfloat16()
    assert half(x.bfloat16()).dtype == torch.bfloat16
    torch.testing.assert_close(half(x.bfloat16()).float(), y, rtol=0.1, atol=0.1)
    with torch.inference_mode():
        assert torch.equal(layer(x), y)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).shape == y.shape
    assert layer(torch.empty(0, 16)).shape == (0, 8)
    assert layer.to("meta")(torch.empty(3, 16, device="meta")).shape == (3, 8)
    assert "ste='identity'" in repr(layer)
    with pytest.raises(ArgumentError, match="ste"):
        bt.BitLinear(2, 2, ste="none")


def test_a_value_that_is_changed_before_its_backward_pass_is_an_error() -> None:
    layer = bt.BitLinear(8, 4)
    y = layer(torch.randn(2, 8)).sum()
    with torch.no_grad():
        layer.weight.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_a_graph_is_walked_twice_and_checkpoints_compute_again() -> None:
    from torch.utils.checkpoint import checkpoint

    torch.manual_seed(5)
    layer, x = bt.BitLinear(16, 16), torch.randn(4, 16, requires_grad=True)
    y = layer(x).square().sum()
    first = torch.autograd.grad(y, [x, layer.weight], retain_graph=True)
    second = torch.autograd.grad(y, [x, layer.weight])
    third = torch.autograd.grad(checkpoint(layer, x, use_reentrant=False).square().sum(), [x, layer.weight])
    for a, b, c in zip(first, second, third, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


class Perceptron(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(32, 16)
        self.hidden = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 16))
        self.again = self.hidden[0]
        self.lm_head = nn.Linear(16, 32, bias=False)

    def forward(self, ids: Any) -> Any:
        return self.lm_head(self.hidden(self.table(ids)))


def test_replace_linear_keeps_parameters_and_leaves_the_head() -> None:
    module = Perceptron()
    parameters = list(module.parameters())
    assert bt.replace_linear(module) is module
    assert all(a is b for a, b in zip(module.parameters(), parameters, strict=True))
    assert isinstance(module.hidden[0], bt.BitLinear)
    assert module.again is module.hidden[0]
    assert type(module.lm_head) is nn.Linear

    chosen = bt.replace_linear(Perceptron(), lambda path, layer: layer.out_features == 16, ste="clipped")
    assert [type(part).__name__ for part in chosen.hidden] == ["Linear", "ReLU", "BitLinear"]
    assert isinstance(bt.replace_linear(nn.Linear(3, 2)), bt.BitLinear)
    with pytest.raises(ArgumentError, match="has no torch"):
        bt.replace_linear(nn.ReLU())


def test_a_replaced_module_learns() -> None:
    torch.manual_seed(6)
    module = bt.replace_linear(Perceptron())
    opt = torch.optim.AdamW(module.parameters(), lr=1e-2)
    ids = torch.arange(32)
    for _ in range(60):
        loss = nn.functional.cross_entropy(module(ids), (ids * 7 + 3) % 32)
        opt.zero_grad()
        loss.backward()
        opt.step()
    assert loss.item() < 1.0


# --- models ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trainable", [False, True])
@pytest.mark.parametrize("folder", FOLDERS)
def test_a_model_in_torch_has_the_model_s_bits_and_comes_back(folder: str, trainable: bool) -> None:
    model = BitNetModel.from_pretrained(GOLDEN / folder, trainable=trainable)
    want = model.forward(IDS)
    module = bt.to_torch(model)
    with torch.no_grad():
        assert np.array_equal(module(IDS).logits.numpy(), want)
    back = bt.from_torch(nn.ModuleDict({"module": module}))  # as torch.nn.parallel wraps it
    assert np.array_equal(back.forward(IDS), want)
    golden = np.load(GOLDEN / folder / "golden_f32.npz")
    prompt = golden["input_ids_0"].ravel()
    assert (
        back.generate(prompt, max_new_tokens=64, ignore_eos=True) == golden["greedy_0"].ravel()[len(prompt) :].tolist()
    )
    if trainable:
        assert [name for name, _ in module.named_parameters()] == [name for name, _ in model.named_parameters()]


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_module_in_float64_is_rounded_to_float32(folder: str) -> None:
    model = BitNetModel.from_pretrained(GOLDEN / folder, trainable=True)
    module = bt.to_torch(model).double()
    assert np.array_equal(bt.from_torch(module).forward(IDS), model.forward(IDS))
    norm = module.get_parameter("model.norm.weight")
    with torch.no_grad():
        norm[3] = 1e300
    with pytest.raises(FormatError, match=r"model\.norm\.weight.*Inf"):
        bt.from_torch(module)


SHAPE = {
    "vocab_size": 500,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "bitnet": {},
    "biases and a norm for each layer": {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": True,
        "mlp_bias": True,
        "tie_word_embeddings": False,
        "quantization_config": {"quant_method": "bitnet", "use_rms_norm": True},
    },
    "float layers and llama3 positions": {
        "architectures": ["LlamaForCausalLM"],
        "hidden_act": "gelu_new",
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
        "quantization_config": {"quant_method": "bitnet", "modules_to_not_convert": ["layers.0.mlp.up_proj", "o_proj"]},
    },
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_losses_and_gradients_are_those_of_the_model(variant: str) -> None:
    model = BitNetModel.from_config({"model_type": "bitnet", **SHAPE, **VARIANTS[variant]}, trainable=True)
    module = bt.to_torch(model).train()
    loss = module(IDS, labels=IDS).loss
    loss.backward()
    ours = model.loss(IDS)
    ours.backward()
    assert loss.item() == pytest.approx(float(ours), rel=1e-6)
    theirs = {name: p.grad.numpy() for name, p in module.named_parameters()}
    for name, p in model.named_parameters():
        np.testing.assert_allclose(
            theirs[name], p.grad.numpy(), rtol=0, atol=2e-3 * np.abs(p.grad.numpy()).max(), err_msg=name
        )
    assert np.array_equal(bt.from_torch(module).forward(IDS), model.forward(IDS))


def test_padding_at_the_end_does_not_matter() -> None:
    module = bt.to_torch(BitNetModel.from_pretrained(TINY))
    mask = torch.ones_like(IDS)
    mask[1, 10:] = 0
    with torch.no_grad():
        padded, alone = module(IDS, mask).logits, module(IDS[1:, :10]).logits
    assert torch.equal(padded[1, :10], alone[0])
    with pytest.raises(ArgumentError, match="padding at the end"):
        module(IDS, mask.flip(1))
    with pytest.raises(ArgumentError, match="max_position_embeddings"):
        module(torch.zeros(1, module.config.max_position_embeddings + 1, dtype=torch.long))
    with pytest.raises(ShapeError, match="batch, length"):
        module(IDS[0])


def test_a_module_that_torch_trains_comes_back_better_and_can_be_saved(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    model = BitNetModel.from_config({"model_type": "bitnet", **SHAPE}, seed=7, trainable=True)
    module = bt.to_torch(model).train()
    opt = torch.optim.AdamW(module.parameters(), lr=3e-3)
    for _ in range(8):
        loss = module(IDS, labels=IDS).loss
        opt.zero_grad()
        loss.backward()
        opt.step()
    trained = bt.from_torch(module, trainable=True)
    assert float(trained.loss(IDS)) < float(model.loss(IDS)) - 0.5
    with torch.no_grad():
        assert np.array_equal(module.eval()(IDS).logits.numpy(), trained.forward(IDS))

    safetensors.save_file(module.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(module.config.to_json())
    assert np.array_equal(BitNetModel.from_pretrained(tmp_path).forward(IDS), trained.forward(IDS))

    Trainer(trained, max_steps=2, batch_size=2, context_length=23).train(
        torch.utils.data.TensorDataset(IDS[:, :-1], IDS[:, 1:])
    )
    again = bt.to_torch(BitNetModel.from_config({"model_type": "bitnet", **SHAPE}, seed=8))
    again.load_state_dict(bt.to_torch(trained).state_dict())
    with torch.no_grad():
        assert np.array_equal(again(IDS).logits.numpy(), trained.forward(IDS))


class Rows(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, i: int) -> dict[str, Any]:
        row = torch.arange(i, i + 17) % 50
        return {"input_ids": row, "labels": row}


def test_the_trainer_takes_torch_s_datasets_and_loaders() -> None:
    losses = []
    for data in (
        Rows(),
        torch.utils.data.DataLoader(Rows(), batch_size=4),
        [Rows()[i]["input_ids"].tolist() for i in range(8)],
    ):
        model = BitNetModel.from_config({"model_type": "bitnet", **SHAPE}, trainable=True)
        history = Trainer(model, max_steps=3, batch_size=4, context_length=16, order="sequential").train(data)
        losses.append([record["loss"] for record in history])
    assert losses[0] == losses[1] == losses[2]


# --- other modules ---------------------------------------------------------------------------------------------------


def hugging_face(family: str, **more: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(9)
    module = getattr(transformers, f"{family}ForCausalLM")(
        getattr(transformers, f"{family}Config")(**SHAPE | more)
    ).eval()
    with torch.no_grad():
        for p in module.parameters():
            if p.ndim == 1:  # biases and norms that are not zeros and ones
                p.add_(0.1 * torch.randn_like(p))
    return module


@pytest.mark.parametrize(
    ("family", "more"),
    [
        ("Llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
        (
            "Llama",
            {"rope_parameters": VARIANTS["float layers and llama3 positions"]["rope_scaling"] | {"rope_theta": 5e3}},
        ),
        ("Qwen2", {}),
        ("Mistral", {"sliding_window": None, "hidden_act": "gelu"}),
    ],
)
def test_float_models_of_transformers_stay_what_they_are_or_become_ternary(family: str, more: dict[str, Any]) -> None:
    module = hugging_face(family, **more)
    with torch.no_grad():
        want = module(IDS).logits.numpy()
    np.testing.assert_allclose(bt.from_torch(module).forward(IDS), want, rtol=0, atol=1e-5)
    ternary = bt.from_torch(module, ternary="all")
    assert ternary.config.quantization_config["modules_to_not_convert"] is None

    bt.replace_linear(module, lambda path, _: "proj" in path)
    with torch.no_grad():
        replaced = module(IDS).logits.numpy()
    np.testing.assert_allclose(ternary.forward(IDS), replaced, rtol=0, atol=0.15)
    assert np.array_equal(bt.from_torch(module).forward(IDS), ternary.forward(IDS))
    np.testing.assert_allclose(bt.from_torch(module, ternary="none").forward(IDS), want, rtol=0, atol=1e-5)
    mixed = bt.from_torch(module, ternary=lambda name, _: ".mlp." in name)
    assert set(mixed.config.quantization_config["modules_to_not_convert"]) == {
        f"self_attn.{name}_proj" for name in "qkvo"
    }


@pytest.mark.parametrize("folder", FOLDERS)
def test_quantized_models_of_transformers_are_those_of_the_checkpoint(folder: str) -> None:
    transformers = pytest.importorskip("transformers")
    module = transformers.AutoModelForCausalLM.from_pretrained(GOLDEN / folder)
    model = bt.from_torch(module)
    assert np.array_equal(model.forward(IDS), BitNetModel.from_pretrained(GOLDEN / folder).forward(IDS))


class Decoder(nn.Module):
    """A Llama that nobody wrote a config for, inside something else."""

    def __init__(self, norm: Any = nn.RMSNorm) -> None:
        super().__init__()
        self.embed_tokens, self.norm = nn.Embedding(40, 16), norm(16, eps=1e-4)
        layer = nn.Module()
        layer.input_layernorm, layer.post_attention_layernorm = norm(16, eps=1e-4), norm(16, eps=1e-4)
        layer.self_attn, layer.mlp = nn.Module(), nn.Module()
        for name, rows in (("q", 16), ("k", 8), ("v", 8), ("o", 16)):
            setattr(layer.self_attn, f"{name}_proj", nn.Linear(16, rows, bias=False))
        layer.mlp.gate_proj, layer.mlp.up_proj = nn.Linear(16, 24, bias=False), nn.Linear(16, 24, bias=False)
        layer.mlp.down_proj = nn.Linear(24, 16, bias=False)
        self.layers = nn.ModuleList([layer])


def test_a_module_without_a_config_needs_only_what_its_weights_do_not_show() -> None:
    wrapped = nn.ModuleDict({"module": nn.ModuleDict({"decoder": Decoder()})})
    with pytest.raises(ArgumentError, match="has no config"):
        bt.from_torch(wrapped)
    model = bt.from_torch(wrapped, config={"num_attention_heads": 4, "num_key_value_heads": 2, "rope_theta": 1e4})
    config = model.config
    assert (config.vocab_size, config.hidden_size, config.intermediate_size, config.num_hidden_layers) == (
        40,
        16,
        24,
        1,
    )
    assert config.rms_norm_eps == pytest.approx(1e-4)
    assert model.forward([1, 2, 3]).shape == (3, 40)


def llama(path: str, part: Any) -> Any:
    module = Decoder()
    module.set_submodule(path, part)
    return module


@pytest.mark.parametrize(
    ("make", "config", "message"),
    [
        (
            lambda: llama("layers.0.input_layernorm", nn.RMSNorm(16, eps=1e-5)),
            {"num_attention_heads": 4},
            r"model\.norm has eps = 0\.0001: expected 1e-05, that of model\.layers\.0\.input_layernorm|"
            r"model\.layers\.0\.input_layernorm has eps = 1e-05: expected 0\.0001, that of model\.norm",
        ),
        (
            Decoder,
            {"num_attention_heads": 4, "rms_norm_eps": 1e-6},
            "has eps = 0.0001: expected 1e-06, the config's rms_norm_eps",
        ),
        (
            lambda: llama("layers.0.mlp.act_fn", nn.GELU()),
            {"num_attention_heads": 4, "hidden_act": "silu"},
            r"mlp\.act_fn is a GELU: expected the module of 'silu', the config's hidden_act",
        ),
        (lambda: nn.Linear(3, 3), None, "expected the layout of Llama or BitNet"),
        (lambda: Decoder(nn.LayerNorm), {"num_attention_heads": 4}, "is a LayerNorm: expected RMSNorm"),
        (Decoder, {"num_attention_heads": 4, "model_type": "gemma"}, "model_type = 'gemma'"),
        (Decoder, {"num_attention_heads": 4, "sliding_window": 8, "max_position_embeddings": 64}, "sliding_window = 8"),
        (lambda: hugging_face("Qwen3"), None, "model_type = 'qwen3'"),
        (Decoder, {"num_attention_heads": 3}, "num_attention_heads"),
    ],
)
def test_what_no_model_can_be_made_of_is_refused_by_name(make: Any, config: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bt.from_torch(make(), config=config)


# --- optimizers ------------------------------------------------------------------------------------------------------

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "AdamW": {"lr": 3e-3, "weight_decay": 0.1},
    "Adam": {"lr": 2e-3, "amsgrad": True, "betas": (0.8, 0.95)},
    "SGD": {"lr": 0.05, "momentum": 0.9, "nesterov": True},
}


def _run(model: BitNetModel, opt: Any, steps: range) -> None:
    for step in steps:
        opt.zero_grad()
        model.loss(IDS.roll(step, 1)).backward()
        opt.step()


def _run_in_torch(module: Any, opt: Any, steps: range) -> None:
    for step in steps:
        opt.zero_grad()
        module(IDS.roll(step, 1), labels=IDS.roll(step, 1)).loss.backward()
        opt.step()


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("named", [False, True])
def test_a_run_that_changes_sides_is_the_run_that_does_not(kind: str, named: bool) -> None:
    hyper = OPTIMIZERS[kind]

    def ours(model: BitNetModel) -> Any:
        return getattr(optim, kind)(list(model.named_parameters() if named else model.parameters()), **hyper)

    def theirs(module: Any) -> Any:
        listed = list(module.named_parameters() if named else module.parameters())
        return getattr(torch.optim, kind)(listed[::-1] if named else listed, **hyper)

    def fresh() -> BitNetModel:
        return BitNetModel.from_config({"model_type": "bitnet", **SHAPE}, seed=3, trainable=True)

    whole = fresh()
    _run(whole, ours(whole), range(6))

    here = fresh()
    opt = ours(here)
    _run(here, opt, range(2))
    module = bt.to_torch(here).train()
    other = theirs(module)
    bt.transfer_optimizer(opt, other)
    assert other.param_groups[0]["lr"] == hyper["lr"]
    _run_in_torch(module, other, range(2, 4))
    back = bt.from_torch(module, trainable=True)
    last = ours(back)
    bt.transfer_optimizer(other, last)
    _run(back, last, range(4, 6))

    assert float(back.loss(IDS)) == pytest.approx(float(whole.loss(IDS)), abs=2e-3)
    moved = dict(back.named_parameters())
    start = dict(fresh().named_parameters())
    for name, p in whole.named_parameters():
        went = np.abs(p.detach().numpy() - start[name].detach().numpy()).max()
        # Between the sides activations on a rounding tie may fall either way, which the rest of the run sees.
        assert np.abs(moved[name].detach().numpy() - p.detach().numpy()).mean() <= 0.05 * went, name


def test_one_step_after_a_transfer_is_exact() -> None:
    values, gradient = np.linspace(-1, 1, 64, dtype=np.float32), np.linspace(1, -2, 64, dtype=np.float32)
    for kind, hyper in OPTIMIZERS.items():
        p = Tensor(values, requires_grad=True)
        opt = getattr(optim, kind)([p], **hyper)
        for _ in range(3):
            p.grad = gradient
            opt.step()
        q = nn.Parameter(torch.from_numpy(p.detach().numpy()))
        twin = getattr(torch.optim, kind)([q], **hyper)
        bt.transfer_optimizer(opt, twin)
        p.grad, q.grad = gradient, torch.from_numpy(gradient.copy())
        opt.step()
        twin.step()
        np.testing.assert_allclose(q.detach().numpy(), p.detach().numpy(), rtol=3e-6, atol=1e-7)


def test_optimizers_that_are_no_pair_are_refused() -> None:
    p, q = Tensor([1.0], requires_grad=True), nn.Parameter(torch.ones(1))
    with pytest.raises(ArgumentError, match="AdamW"):
        bt.transfer_optimizer(optim.AdamW([p]), torch.optim.SGD([q], lr=0.1))
    with pytest.raises(ArgumentError, match=r"of torch\.optim"):
        bt.transfer_optimizer(optim.AdamW([p]), optim.AdamW([p]))
    with pytest.raises(ArgumentError, match="expected as many"):
        bt.transfer_optimizer(optim.AdamW([p]), torch.optim.AdamW([q, nn.Parameter(torch.ones(1))]))
    with pytest.raises(ArgumentError, match="shape"):
        bt.transfer_optimizer(optim.AdamW([p]), torch.optim.AdamW([nn.Parameter(torch.ones(2))]))
    with pytest.raises(ArgumentError, match="same names"):
        bt.transfer_optimizer(optim.AdamW([("a", p)]), torch.optim.AdamW([("b", q)]))


def test_float_layers_and_norms_are_public_and_compute_what_those_of_torch_do() -> None:
    x = torch.randn(3, 64)
    linear, layer_norm, rms_norm = bt.Linear(64, 8), bt.LayerNorm(64), bt.RMSNorm(64)
    torch.testing.assert_close(linear(x), nn.functional.linear(x, linear.weight, linear.bias), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer_norm(x), nn.functional.layer_norm(x, (64,)), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(rms_norm(x), nn.functional.rms_norm(x, (64,), eps=1e-5), rtol=1e-5, atol=1e-5)
    assert {"BitLinear", "LayerNorm", "Linear", "RMSNorm"} <= set(bt.__all__)

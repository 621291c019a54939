"""GPT-2 between PyTorch and BitNetModel, with `make test-full`: transformers' class, and a module as nanoGPT has it."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import bitnet_rust.torch as bt  # noqa: E402
from bitnet_rust import ArgumentError, BitNetModel, ConfigError  # noqa: E402

pytestmark = pytest.mark.full

IDS = torch.randint(3, 90, (2, 24), generator=torch.Generator().manual_seed(0))


# --- a module in the layout of nanoGPT ---------------------------------------------------------------------------------


@dataclass
class Config:
    vocab_size: int = 97
    block_size: int = 40
    n_layer: int = 2
    n_head: int = 4
    n_embd: int = 32
    dropout: float = 0.0
    bias: bool = True


class LayerNorm(nn.Module):
    """A LayerNorm that may have no bias, and whose eps nobody can ask for."""

    def __init__(self, dim: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(1 + 0.2 * torch.randn(dim))
        self.bias = nn.Parameter(0.2 * torch.randn(dim)) if bias else None

    def forward(self, x: Any) -> Any:
        return nn.functional.layer_norm(x, self.weight.shape, self.weight, self.bias, 1e-5)


class Attention(nn.Module):
    def __init__(self, c: Config) -> None:
        super().__init__()
        self.n_head = c.n_head
        self.c_attn = nn.Linear(c.n_embd, 3 * c.n_embd, bias=c.bias)
        self.c_proj = nn.Linear(c.n_embd, c.n_embd, bias=c.bias)
        self.register_buffer("bias", torch.tril(torch.ones(c.block_size, c.block_size)))

    def forward(self, x: Any) -> Any:
        heads = (part.unflatten(-1, (self.n_head, -1)).transpose(1, 2) for part in self.c_attn(x).chunk(3, -1))
        q, k, v = heads
        scores = q @ k.mT / math.sqrt(q.shape[-1])
        scores = scores.masked_fill(self.bias[: x.shape[1], : x.shape[1]] == 0, float("-inf"))
        return self.c_proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, c: Config, activation: Any) -> None:
        super().__init__()
        self.c_fc = nn.Linear(c.n_embd, 4 * c.n_embd, bias=c.bias)
        self.gelu = activation
        self.c_proj = nn.Linear(4 * c.n_embd, c.n_embd, bias=c.bias)

    def forward(self, x: Any) -> Any:
        return self.c_proj(self.gelu(self.c_fc(x)))


class Block(nn.Module):
    def __init__(self, c: Config, activation: Any) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = LayerNorm(c.n_embd, c.bias), LayerNorm(c.n_embd, c.bias)
        self.attn, self.mlp = Attention(c), FeedForward(c, activation)

    def forward(self, x: Any) -> Any:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    def __init__(self, c: Config, activation: Any = None) -> None:
        super().__init__()
        self.config = c
        parts = {
            "wte": nn.Embedding(c.vocab_size, c.n_embd),
            "wpe": nn.Embedding(c.block_size, c.n_embd),
            "h": nn.ModuleList(Block(c, activation or nn.GELU()) for _ in range(c.n_layer)),
            "ln_f": LayerNorm(c.n_embd, c.bias),
        }
        self.transformer = nn.ModuleDict(parts)
        self.lm_head = nn.Linear(c.n_embd, c.vocab_size, bias=False)
        self.transformer.wte.weight = self.lm_head.weight

    def forward(self, ids: Any) -> Any:
        t = self.transformer
        x = t.wte(ids) + t.wpe(torch.arange(ids.shape[1]))
        for block in t.h:
            x = block(x)
        return self.lm_head(t.ln_f(x))


class Square(nn.Module):
    def forward(self, x: Any) -> Any:
        return x * x


def nano(bias: bool = True, activation: Any = None, **more: Any) -> Any:
    torch.manual_seed(5)
    return GPT(Config(bias=bias, **more), activation).eval()


def logits_of(module: Any) -> Any:
    with torch.no_grad():
        out = module(IDS)
    return getattr(out, "logits", out).numpy()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", [nn.GELU(), nn.GELU("tanh"), nn.ReLU()])
def test_a_module_of_nanogpt_computes_the_same_here(bias: bool, activation: Any) -> None:
    module = nano(bias, activation)
    model = bt.from_torch(module)
    assert model.config.architectures == ["GPT2LMHeadModel"]
    assert model.config.tie_word_embeddings
    np.testing.assert_allclose(model.forward(IDS), logits_of(module), rtol=0, atol=2e-5)
    wrapped = bt.from_torch(nn.ModuleDict({"module": module}), config={"n_head": 4})
    assert np.array_equal(wrapped.forward(IDS), model.forward(IDS))


def test_a_small_vocabulary_has_not_the_default_ids_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    module = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=64, n_embd=32, n_layer=1, n_head=2)).eval()
    with bt.from_torch(module) as model:
        assert model.config.eos_token_id is None
        with torch.no_grad():
            want = module(torch.tensor([[1, 2, 3]])).logits[0].numpy()
        np.testing.assert_allclose(model.forward([1, 2, 3]), want, rtol=0, atol=2e-5)


def test_a_head_of_its_own_and_bfloat16_stay() -> None:
    module = nano().bfloat16()
    module.lm_head.weight = nn.Parameter(torch.randn(97, 32).bfloat16())
    model = bt.from_torch(module)
    assert not model.config.tie_word_embeddings
    assert model.config.dtype == "bfloat16"
    np.testing.assert_allclose(model.forward(IDS), logits_of(module.float()), rtol=0, atol=2e-5)


def conv1d(linear: Any) -> Any:
    """What transformers calls a Conv1D, with the parameters of a Linear."""

    class Conv1D(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(linear.weight.detach().T.clone()), linear.bias

        def forward(self, x: Any) -> Any:
            return x @ self.weight + self.bias

    return Conv1D()


@pytest.mark.parametrize("path", ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"])
@pytest.mark.parametrize("most", ["Linear", "Conv1D"])
def test_each_layer_says_how_its_matrix_lies(path: str, most: str) -> None:
    module = nano()
    want = logits_of(module)
    for block in module.transformer.h:
        for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
            if (name == path) == (most == "Linear"):
                block.set_submodule(name, conv1d(block.get_submodule(name)))
    np.testing.assert_allclose(logits_of(module), want, rtol=0, atol=1e-5)
    np.testing.assert_allclose(bt.from_torch(module).forward(IDS), want, rtol=0, atol=2e-5)


def test_a_ternary_linear_among_conv1ds_is_ternary_alone() -> None:
    module = nano()
    for block in module.transformer.h:
        block.attn.c_attn = bt.BitLinear.from_linear(block.attn.c_attn)
        for name in ("attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
            block.set_submodule(name, conv1d(block.get_submodule(name)))
    model = bt.from_torch(module)
    assert model.config.quantization_config["modules_to_not_convert"] == [
        "self_attn.o_proj",
        "mlp.up_proj",
        "mlp.down_proj",
    ]
    np.testing.assert_allclose(model.forward(IDS), logits_of(module), rtol=0, atol=2e-4)


def test_norms_without_weights_and_with_an_eps_of_their_own() -> None:
    module = nano()
    for norm, eps in (("ln_1", 1e-2), ("ln_2", 1e-2)):
        for block in module.transformer.h:
            setattr(block, norm, nn.LayerNorm(32, eps, elementwise_affine=False))
    module.transformer.ln_f = nn.LayerNorm(32, 1e-2)
    np.testing.assert_allclose(bt.from_torch(module).forward(IDS), logits_of(module), rtol=0, atol=2e-5)
    module.transformer.h[1].ln_2 = nn.LayerNorm(32)
    with pytest.raises(
        ArgumentError,
        match=r"layers\.1\.post_attention_layernorm has eps = 1e-05: expected 0\.01, that of model\.layers\.0\.input_layernorm",
    ):
        bt.from_torch(module)


# --- rules of what is ternary -------------------------------------------------------------------------------------------


def test_rules_say_which_layers_are_ternary() -> None:
    module = nano()
    plain = bt.from_torch(module)
    everything = bt.from_torch(module, ternary="all")
    assert everything.config.quantization_config["modules_to_not_convert"] is None
    assert "quantization_config" not in plain.config
    mixed = bt.from_torch(module, ternary=lambda name, part: ".mlp." in name and isinstance(part, nn.Linear))
    assert mixed.config.quantization_config["modules_to_not_convert"] == [f"self_attn.{name}_proj" for name in "qkvo"]
    assert len({m.forward(IDS).tobytes() for m in (plain, everything, mixed)}) == 3


@pytest.mark.parametrize("bias", [True, False])
def test_ternary_layers_of_a_module_keep_their_codes(bias: bool) -> None:
    module = bt.replace_linear(nano(bias), lambda path, _: "lm_head" not in path)
    model = bt.from_torch(module)
    assert model.config.quantization_config["modules_to_not_convert"] is None
    np.testing.assert_allclose(model.forward(IDS), logits_of(module), rtol=0, atol=2e-4)
    masters = bt.from_torch(module, trainable=True)  # q, k and v by means of their own
    weights = {name: p.detach().numpy() for name, p in masters.named_parameters()}
    whole = module.transformer.h[0].attn.c_attn.weight.detach().numpy()
    assert np.array_equal(weights["model.layers.0.self_attn.k_proj.weight"], whole[32:64])
    assert not np.array_equal(masters.forward(IDS), model.forward(IDS))


# --- and back -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ternary", ["none", "all"])
def test_a_gpt2_in_torch_has_the_model_s_bits_and_comes_back(ternary: Any) -> None:
    model = bt.from_torch(nano(), ternary=ternary, trainable=True)
    module = bt.to_torch(model)
    assert [name for name, _ in module.named_parameters()] == [name for name, _ in model.named_parameters()]
    assert np.array_equal(logits_of(module), model.forward(IDS))
    assert np.array_equal(bt.from_torch(module, trainable=True).forward(IDS), model.forward(IDS))


@pytest.mark.parametrize("ternary", ["none", "all"])
def test_both_sides_have_the_same_gradients(ternary: Any) -> None:
    model = bt.from_torch(nano(), ternary=ternary, trainable=True)
    module = bt.to_torch(model).train()
    loss = model.loss(IDS)
    loss.backward()
    theirs = module(IDS, labels=IDS).loss
    theirs.backward()
    assert float(theirs.detach()) == pytest.approx(float(loss), rel=1e-5)
    ours = dict(model.named_parameters())
    for name, p in module.named_parameters():
        want = p.grad.numpy()
        np.testing.assert_allclose(ours[name].grad.numpy(), want, rtol=1e-3, atol=1e-3 * np.abs(want).max() + 1e-7)


def test_training_in_torch_lowers_the_loss_of_the_model() -> None:
    model = bt.from_torch(nano(), ternary="all", trainable=True)
    module = bt.to_torch(model).train()
    opt = torch.optim.AdamW(module.parameters(), lr=1e-2)
    losses = []
    for _ in range(20):
        loss = module(IDS, labels=IDS).loss
        opt.zero_grad()
        loss.backward()
        opt.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 1
    trained = bt.from_torch(module.eval(), trainable=True)
    assert float(trained.loss(IDS)) < losses[0] - 1


# --- transformers -------------------------------------------------------------------------------------------------------


def hugging_face(**more: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 97, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 40, "initializer_range": 0.2}
    tokens = {"bos_token_id": 1, "eos_token_id": 2}
    torch.manual_seed(6)
    module = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes | tokens | more)).eval()
    for p in module.parameters():
        if p.ndim == 1:
            p.data += 0.2 * torch.randn_like(p)
    return module


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"activation_function": "gelu", "n_inner": 72, "tie_word_embeddings": False},
        {"activation_function": "relu", "layer_norm_epsilon": 1e-3, "reorder_and_upcast_attn": True},
    ],
)
def test_transformers_and_the_model_agree_in_both_directions(more: dict[str, Any], tmp_path: Path) -> None:
    module = hugging_face(**more)
    model = bt.from_torch(module)
    np.testing.assert_allclose(model.forward(IDS), logits_of(module), rtol=0, atol=2e-5)
    module.save_pretrained(tmp_path / "theirs")
    assert np.array_equal(BitNetModel.from_pretrained(tmp_path / "theirs").forward(IDS), model.forward(IDS))
    model.save_pretrained(tmp_path / "ours", format="hf")
    again = type(module).from_pretrained(tmp_path / "ours")
    assert np.array_equal(logits_of(again), logits_of(module))


def test_a_ternary_gpt2_is_exported_as_its_masters(tmp_path: Path) -> None:
    module = hugging_face()
    model = bt.from_torch(module, ternary="all", trainable=True)
    model.save_pretrained(tmp_path, format="hf", masters="float32")
    assert np.array_equal(BitNetModel.from_pretrained(tmp_path).forward(IDS), model.forward(IDS))
    again = type(module).from_pretrained(tmp_path)  # which has no ternary layers, and computes with the masters
    assert np.array_equal(logits_of(again), logits_of(module))


@pytest.mark.parametrize(
    ("make", "config", "error", "message"),
    [
        (
            lambda: hugging_face(scale_attn_by_inverse_layer_idx=True),
            None,
            ConfigError,
            "scale_attn_by_inverse_layer_idx = true",
        ),
        (lambda: hugging_face(scale_attn_weights=False), None, ConfigError, "scale_attn_weights = false"),
        (lambda: hugging_face(add_cross_attention=True), None, ArgumentError, "without cross attention"),
        (lambda: hugging_face(activation_function="tanh"), None, ConfigError, 'activation_function = "tanh"'),
        (lambda: nano(activation=nn.Mish()), None, ArgumentError, r"mlp\.gelu is a Mish: expected one of relu2"),
        (lambda: nano(activation=Square()), None, ArgumentError, "does not say which activation"),
        (nano, {"model_type": "gpt_bigcode", "n_head": 4}, ArgumentError, "model_type = 'gpt_bigcode'"),
        (nano, {"n_head": 5}, ConfigError, "hidden_size = 32: must be a multiple of num_attention_heads = 5"),
        (nano, {"n_head": 4, "n_layer": 3}, ConfigError, "n_layer = 3"),
        (nano, {"n_positions": 40}, ConfigError, "n_head: missing"),
        (nano, 4, ConfigError, "config is of type int"),
    ],
)
def test_what_only_looks_like_a_gpt2_is_refused_by_name(make: Any, config: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        bt.from_torch(make(), config=config)


def changed(module: Any, path: str, part: Any) -> Any:
    module.set_submodule(path, part)
    return module


class T5LayerNorm(nn.Module):  # an RMSNorm, whatever it is called
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.variance_epsilon = nn.Parameter(torch.ones(32)), 1e-5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: changed(hugging_face(), "transformer.h.1.ln_1", nn.LayerNorm(32, 1e-3)),
            r"layers\.1\.input_layernorm has eps = 0\.001: expected 1e-05, the config's layer_norm_epsilon",
        ),
        (
            lambda: changed(hugging_face(), "transformer.h.1.mlp.act", nn.ReLU()),
            r"layers\.1\.mlp\.act is a ReLU: expected the module of 'gelu_new', the config's activation_function",
        ),
        (
            lambda: changed(nano(), "transformer.h.1.mlp.gelu", nn.GELU("tanh")),
            r"layers\.1\.mlp\.gelu is a GELU: expected the module of 'gelu', that of model\.layers\.0\.mlp\.gelu",
        ),
        (
            lambda: changed(nano(), "transformer.ln_f", T5LayerNorm()),
            r"model\.norm is a T5LayerNorm: expected LayerNorm",
        ),
    ],
)
def test_what_modules_compute_is_what_the_config_says(make: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        bt.from_torch(make())


def test_replace_linear_says_that_a_conv1d_stays() -> None:
    module = hugging_face()
    for root in (module, nn.ModuleDict({"lm": module, "score": nn.Linear(32, 2)})):
        with pytest.raises(ArgumentError, match=r"transformer\.h\.0\.attn\.c_attn is a Conv1D, .*ternary=\"all\""):
            bt.replace_linear(root)
    taken = bt.replace_linear(nn.ModuleDict({"lm": module, "score": nn.Linear(32, 2)}), lambda path, _: path == "score")
    assert isinstance(taken["score"], bt.BitLinear)


def test_other_norms_and_other_shapes_are_refused_by_name() -> None:
    module = nano()
    module.transformer.ln_f = nn.RMSNorm(32)
    with pytest.raises(ArgumentError, match=r"model\.norm is a RMSNorm: expected LayerNorm"):
        bt.from_torch(module)
    module = nano()
    module.transformer.h[0].attn.c_attn = nn.Linear(32, 48)  # one head of keys and values
    with pytest.raises(
        ArgumentError, match=r"c_attn.weight has shape \(48, 32\): expected queries, keys and values of equal size"
    ):
        bt.from_torch(module)

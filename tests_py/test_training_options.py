"""Options of a training step from Python: each does what it says, repeats, is checked, and leaves evaluation alone."""

from typing import Any

import numpy as np
import pytest

from bitnet_rust import ArgumentError, BitNetModel, Tensor, Tokenizer, Trainer, nn

TEXT = "To be, or not to be, that is the question.\n" * 40
SHAPE = {
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
RUN: dict[str, Any] = {"max_steps": 6, "batch_size": 4, "context_length": 32, "learning_rate": 3e-3, "seed": 1}


def fresh(**fields: Any) -> BitNetModel:
    model = BitNetModel.from_config(SHAPE | fields, trainable=True)
    model.tokenizer = Tokenizer.bytes()
    return model


def losses(options: dict[str, Any], **fields: Any) -> list[float]:
    with fresh(**fields) as model:
        return [r["loss"] for r in Trainer(model, **RUN | options).train(TEXT)]


PLAIN = losses({})
OPTIONS: list[dict[str, Any]] = [
    {"dropout": 0.2},
    {"attention_dropout": 0.2},
    {"ste": "clipped", "ste_clip": 1.0},
    {"ste": "soft", "ste_temperature": 0.8, "ste_temperature_end": 0.3, "ste_temperature_steps": 5},
    {"ste": "learned_scale"},
    {"quantization_schedule": "cosine", "quantization_end": 4},
    {"quantization_schedule": "linear", "quantization_start": 1, "quantization_end": 3},
    {"quantization_schedule": "step", "quantization_start": 2},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_an_option_changes_the_run_and_repeats(options: dict[str, Any]) -> None:
    run = losses(options)
    assert run == losses(options)
    assert run != PLAIN
    assert run == losses(options | {"gradient_checkpointing": True})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropout": 1.0}, r"dropout = 1: expected a number in \[0, 1\)"),
        ({"attention_dropout": -0.5}, "attention_dropout = -0.5: expected"),
        ({"ste": "sign"}, 'ste = "sign": expected "identity", "clipped", "soft" or "learned_scale"'),
        ({"ste_clip": 1.0}, "ste_clip = 1: expected none with ste"),
        ({"ste": "soft", "ste_temperature_end": 0.1}, "ste_temperature_steps"),
        ({"quantization_schedule": "warp"}, 'quantization_schedule = "warp": expected "linear"'),
        ({"quantization_schedule": "linear"}, "quantization_end = 0: expected more than quantization_start = 0"),
        ({"distillation_alpha": 0.5}, "distillation_alpha = 0.5: expected none without a teacher"),
    ],
)
def test_an_impossible_option_is_named(options: dict[str, Any], message: str) -> None:
    with fresh() as model, pytest.raises(ArgumentError, match=message):
        Trainer(model, **RUN | options).train(TEXT)


def test_evaluation_knows_no_options() -> None:
    with fresh() as model:
        plain = Trainer(model, **RUN).evaluate(TEXT)
        options = {"dropout": 0.5, "quantization_schedule": "step", "quantization_start": 100}
        assert Trainer(model, **RUN | options).evaluate(TEXT) == plain


def test_learned_scales_are_saved(tmp_path: Any) -> None:
    with fresh() as model:
        trainer = Trainer(model, **RUN | {"ste": "learned_scale"})
        trainer.train(TEXT)
        text = model.generate("To be", max_new_tokens=20)
        loss = trainer.evaluate(TEXT)["eval_loss"]
        model.save_pretrained(tmp_path / "packed", format="hf")
        with pytest.raises(ArgumentError, match="its scales were learned"):
            model.save_pretrained(tmp_path / "masters", format="hf", masters="float32")
        with pytest.raises(ArgumentError, match="this model has learned scales"):
            Trainer(model, **RUN).train(TEXT)
    with BitNetModel.from_pretrained(tmp_path / "packed") as saved:
        assert saved.generate("To be", max_new_tokens=20) == text
        assert np.isfinite(loss)


def test_a_student_follows_its_teacher() -> None:
    with fresh(hidden_size=96) as teacher, fresh() as student:
        Trainer(teacher, **RUN | {"max_steps": 30}).train(TEXT)
        run = RUN | {"max_steps": 30, "distillation_alpha": 1.0, "distillation_temperature": 1.0}
        history = Trainer(student, **run, teacher=teacher).train(TEXT)
        assert history[-1]["divergence"] < 0.7 * history[0]["divergence"]
    with fresh() as student, pytest.raises(ArgumentError, match="teacher"):
        Trainer(student, **RUN, teacher=student).train(TEXT)


def test_named_layers_stay_float() -> None:
    kept = {"quantization": {"modules_to_not_convert": ["model.layers.0", "down_proj"]}}
    assert losses({}, **kept) != PLAIN
    biased = losses({}, attention_bias=True, mlp_bias=True, architecture="LlamaForCausalLM")
    assert biased[-1] < biased[0]


@pytest.mark.parametrize("act", ["relu", "silu", "gelu", "gelu_new", "gelu_pytorch_tanh"])
def test_models_train_with_the_activations_of_transformers(act: str) -> None:
    run = losses({}, hidden_act=act)
    assert run[-1] < run[0]
    assert run != PLAIN


def test_attention_sees_all_of_a_sequence_and_nothing_of_the_padding() -> None:
    rng = np.random.default_rng(1)
    q, k, v = (rng.standard_normal((2, 7, heads, 6)).astype(np.float32) for heads in (4, 2, 2))
    lengths = [7, 3]
    tensors = [Tensor(x, requires_grad=True) for x in (q, k, v)]
    out = nn.functional.attention(tensors[0], tensors[1], tensors[2], lengths, causal=False)
    want = np.zeros_like(q)
    for b, n in enumerate(lengths):
        for h in range(4):
            scores = q[b, :n, h] @ k[b, :n, h // 2].T / np.sqrt(6)
            p = np.exp(scores - scores.max(-1, keepdims=True))
            want[b, :n, h] = p / p.sum(-1, keepdims=True) @ v[b, :n, h // 2]
    np.testing.assert_allclose(out.numpy(), want, atol=1e-5)
    out.sum().backward()
    for t in tensors:
        assert t.grad is not None
        assert np.all(t.grad.numpy()[1, 3:] == 0)


def test_estimators_of_a_single_layer() -> None:
    rng = np.random.default_rng(2)
    w = rng.standard_normal((8, 20)).astype(np.float32)
    x = Tensor(rng.standard_normal((5, 20)).astype(np.float32))

    def gradient(**options: Any) -> np.ndarray:
        weight = Tensor(w, requires_grad=True)
        nn.functional.bit_linear(x, weight, **options).sum().backward()
        assert weight.grad is not None
        return np.asarray(weight.grad.numpy())

    whole, clipped = gradient(), gradient(ste="clipped", clip=1.0)
    inside = np.abs(w) <= np.abs(w).mean()
    np.testing.assert_array_equal(clipped, np.where(inside, whole, 0))
    u, t = w / np.abs(w).mean(), 0.4
    slope = (1 / np.cosh((u - 0.5) / t) ** 2 + 1 / np.cosh((u + 0.5) / t) ** 2) / (2 * t)
    np.testing.assert_allclose(gradient(ste="soft", temperature=t), whole * slope, rtol=1e-4, atol=1e-4)
    with pytest.raises(ArgumentError, match="expected"):
        gradient(ste="round")
    with pytest.raises(ArgumentError, match="clip"):
        gradient(ste="clipped", clip=0.0)

"""Training loops written in Python: they have the numbers of Trainer, and of PyTorch."""

import gc
import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bitnet_rust
from bitnet_rust import ArgumentError, AutogradError, BitNetModel, ShapeError, Tensor, Trainer, nn, no_grad, optim
from conftest import REPO, SLOW

F = nn.functional

SHAPE = {"preset": "char", "vocab_size": 50, "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2}
LENGTH = 24
# One window of text: whatever the order of the data, each batch is this one.
WINDOW = np.random.default_rng(7).integers(0, 50, LENGTH + 1)


def fresh(**changes: Any) -> BitNetModel:
    return BitNetModel.from_config({**SHAPE, **changes}, seed=3, trainable=True)


def groups(model: BitNetModel) -> list[dict[str, Any]]:
    """Trainer's: no weight decay for vectors."""
    named = list(model.named_parameters())
    return [
        {"params": [(n, p) for n, p in named if p.ndim > 1], "weight_decay": 0.1},
        {"params": [(n, p) for n, p in named if p.ndim < 2], "weight_decay": 0.0},
    ]


def test_a_loop_of_ones_own_has_the_bits_of_trainer() -> None:
    steps = 12
    with fresh() as theirs, fresh() as ours:
        trainer = Trainer(
            theirs,
            max_steps=steps,
            batch_size=1,
            accumulation=2,
            context_length=LENGTH,
            learning_rate=3e-3,
            weight_decay=0.1,
            scheduler="cosine",
            warmup_steps=3,
            gradient_clip=1.0,
        )
        history = trainer.train(WINDOW)

        opt = optim.AdamW(groups(ours), lr=3e-3, weight_decay=0.1)
        schedule = optim.LRScheduler(opt, "cosine", total_steps=steps, warmup_steps=3)
        ordered = [p for g in opt.param_groups for p in g["params"]]
        for record in history:
            opt.zero_grad()
            for _ in range(2):
                loss = ours.loss(WINDOW)
                (loss * 0.5).backward()
            norm = optim.clip_grad_norm_(ordered, 1.0)
            assert loss.item() == np.float32(record["loss"])
            assert norm == record["gradient_norm"]
            assert schedule.get_last_lr()[0] == record["learning_rate"]
            opt.step()
            schedule.step()
        assert (ours.forward(WINDOW) == theirs.forward(WINDOW)).all()
        assert ours.generate(WINDOW[:5], max_new_tokens=10) == theirs.generate(WINDOW[:5], max_new_tokens=10)


class Block(nn.Module):
    """A layer of BitNet b1.58 2B-4T, put together from parts."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(dim)
        self.self_attn = nn.MultiHeadAttention(dim, heads, sub_norm=True, rope_theta=10000.0)
        self.post_attention_layernorm = nn.RMSNorm(dim)
        self.mlp = nn.FeedForward(dim, hidden, sub_norm=True)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x))
        return x + self.mlp(self.post_attention_layernorm(x))


class Model(nn.Module):
    def __init__(self, vocab: int, dim: int, layers: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocab, dim)
        self.layers = nn.ModuleList(Block(dim, heads, hidden) for _ in range(layers))
        self.norm = nn.RMSNorm(dim)

    def forward(self, ids: Any) -> Tensor:
        x = self.embed_tokens(ids)
        for layer in self.layers:
            x = layer(x)
        return F.linear(self.norm(x), self.embed_tokens.weight)


def checkpoint_name(name: str) -> str:
    return "model." + name.replace("self_attn.sub_norm", "self_attn.attn_sub_norm").replace(
        "mlp.sub_norm", "mlp.ffn_sub_norm"
    )


STEPS = np.load(REPO / "tests_go" / "testdata" / "train" / "steps.npz")


def test_a_model_put_together_in_python_trains_as_pytorchs() -> None:
    """Twenty losses and the gradients of the first step against the values that tests_py/record/train_steps.py recorded."""
    weights = {key.removeprefix("weight/"): STEPS[key] for key in STEPS.files if key.startswith("weight/")}
    vocab, dim = weights["model.embed_tokens.weight"].shape
    hidden = weights["model.layers.0.mlp.gate_proj.weight"].shape[0]
    net = Model(vocab, dim, sum("mlp.gate_proj" in name for name in weights), 4, hidden)
    net.load_state_dict({name: weights[checkpoint_name(name)] for name, _ in net.named_parameters()})

    matrices = [p for p in net.parameters() if p.ndim > 1]
    vectors = [p for p in net.parameters() if p.ndim < 2]
    opt = optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}], betas=(0.9, 0.95)
    )
    for step, (ids, want) in enumerate(zip(STEPS["ids"], STEPS["losses"], strict=True)):
        for g in opt.param_groups:
            g["lr"] = 1e-3 * (step + 1) / 101
        loss = F.cross_entropy(net(ids[:, :-1]), ids[:, 1:])
        assert loss.item() == pytest.approx(float(want), rel=1e-3)
        opt.zero_grad()
        loss.backward()
        if step == 0:
            for name, p in net.named_parameters():
                theirs = STEPS["grad/" + checkpoint_name(name)]
                assert p.grad is not None
                assert np.linalg.norm(p.grad.numpy() - theirs) <= 1e-3 * np.linalg.norm(theirs), name
        norm = optim.clip_grad_norm_(net.parameters(), 1.0)
        assert norm == pytest.approx(float(STEPS["norms"][step]), rel=2e-2)
        opt.step()


def test_a_models_own_passes_have_pytorchs_losses_too() -> None:
    config = {
        "vocab_size": 61,
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "hidden_act": "relu2",
    }
    with BitNetModel.from_config(config, trainable=True) as model:
        for name, p in model.named_parameters():
            with no_grad():
                p[...] = STEPS[f"weight/{name}"]
        ids = STEPS["ids"][0]
        loss = model.loss(ids)
        assert loss.item() == pytest.approx(float(STEPS["losses"][0]), rel=1e-4)
        logits = model(ids[:, :-1])
        assert logits.shape == (4, 48, 61)
        own = F.cross_entropy(logits, ids[:, 1:])
        assert own.item() == pytest.approx(loss.item(), rel=1e-6)
        loss.backward()
        fused = {n: p.grad.numpy() for n, p in model.named_parameters() if p.grad is not None}
        for p in model.parameters():
            p.grad = None
        own.backward()
        for name, p in model.named_parameters():
            theirs = STEPS[f"grad/{name}"]
            assert p.grad is not None
            for mine in (fused[name], p.grad.numpy()):
                assert np.linalg.norm(mine - theirs) <= 1e-3 * np.linalg.norm(theirs), name


# --- a model's passes ------------------------------------------------------------------------------------------------


def test_parameters_are_the_models_memory() -> None:
    with fresh() as model:
        named = dict(model.named_parameters())
        assert all(isinstance(p, nn.Parameter) and p.is_leaf and p.requires_grad for p in named.values())
        before = model.forward([1, 2, 3])
        with no_grad():
            named["model.norm.weight"][...] = 2.0
        assert np.allclose(model.forward([1, 2, 3]), 2 * before, rtol=1e-5)
        assert all(p.grad is None for p in model.parameters())


def test_a_saved_model_has_the_last_steps_weights(tmp_path: Path) -> None:
    with fresh() as model:
        opt = optim.SGD(model.parameters(), lr=0.5)
        for _ in range(3):
            opt.zero_grad()
            model.loss(WINDOW).backward()
            opt.step()
        model.save_pretrained(tmp_path / "m")
        with BitNetModel.from_pretrained(tmp_path / "m") as again:
            assert (again.forward(WINDOW) == model.forward(WINDOW)).all()


def test_gradients_reach_through_logits_with_ragged_rows() -> None:
    rows = [[1, 2, 3, 4, 5], [6, 7], [8, 9, 10]]
    with fresh() as model:
        logits = model(rows)
        assert logits.shape == (3, 5, 50)
        assert (logits.numpy() == model.forward(rows)).all()
        assert (model([1, 2, 3]).numpy() == model.forward([1, 2, 3])).all()
        targets = np.full((3, 5), -100)
        for i, row in enumerate(rows):
            targets[i, : len(row) - 1] = row[1:]
        F.cross_entropy(logits, targets).backward()
        apart = {n: p.grad.numpy() for n, p in model.named_parameters() if p.grad is not None}
        for p in model.parameters():
            p.grad = None
        model.loss(rows).backward()
        for name, p in model.named_parameters():
            assert p.grad is not None
            scale = np.abs(apart[name]).max()
            np.testing.assert_allclose(p.grad.numpy(), apart[name], atol=2e-4 * scale, err_msg=name)


def test_a_retained_pass_dropout_and_checkpointing_have_the_same_bits() -> None:
    with fresh() as model:
        parameters = list(model.parameters())

        def gradients(loss: Tensor, retain: bool = False) -> list[Any]:
            for p in parameters:
                p.grad = None
            loss.backward(retain_graph=retain)
            return [p.grad.numpy() for p in parameters if p.grad is not None]

        loss = model.loss(WINDOW, dropout=0.2, attention_dropout=0.1, seed=5)
        first = gradients(loss, True)
        for again in (
            gradients(loss),
            gradients(model.loss(WINDOW, dropout=0.2, attention_dropout=0.1, seed=5)),
            gradients(model.loss(WINDOW, dropout=0.2, attention_dropout=0.1, seed=5, gradient_checkpointing=True)),
        ):
            assert all((a == b).all() for a, b in zip(first, again, strict=True))
        other = gradients(model.loss(WINDOW, dropout=0.2, attention_dropout=0.1, seed=6))
        assert any((a != b).any() for a, b in zip(first, other, strict=True))
        with pytest.raises(AutogradError, match="retain_graph"):
            loss.backward()


def test_frozen_parameters_and_hooks() -> None:
    with fresh() as model:
        named = dict(model.named_parameters())
        named["model.norm.weight"].requires_grad = False
        seen: list[tuple[int, ...]] = []
        table = named["model.embed_tokens.weight"]
        table.register_hook(lambda g: seen.append(g.shape))
        doubled = named["model.layers.0.mlp.up_proj.weight"]
        doubled.register_hook(lambda g: g * 2.0)
        model.loss(WINDOW).backward()
        assert named["model.norm.weight"].grad is None
        assert seen == [table.shape]
        assert doubled.grad is not None
        twice = doubled.grad.numpy()
        with fresh() as plain:
            plain.loss(WINDOW).backward()
            grad = dict(plain.named_parameters())["model.layers.0.mlp.up_proj.weight"].grad
            assert grad is not None
            assert (twice == 2 * grad.numpy()).all()


def test_a_step_between_the_passes_is_found() -> None:
    with fresh() as model:
        opt = optim.SGD(model.parameters(), lr=0.1)
        stale = model.loss(WINDOW)
        model.loss(WINDOW).backward()
        opt.step()
        with pytest.raises(AutogradError, match="changed in place"):
            stale.backward()


def test_no_history_is_kept_without_need() -> None:
    with fresh() as model:
        with no_grad():
            assert not model.loss(WINDOW).requires_grad
        for p in model.parameters():
            p.requires_grad = False
        assert not model.loss(WINDOW).requires_grad
        assert not model(WINDOW).requires_grad


def test_threads_accumulate_into_one_model() -> None:
    with fresh() as model:
        windows = [np.roll(WINDOW, i) for i in range(4)]
        for w in windows:
            model.loss(w).backward()
        alone = {n: p.grad.numpy() for n, p in model.named_parameters() if p.grad is not None}
        for p in model.parameters():
            p.grad = None
        failures: list[BaseException] = []

        def work(window: Any) -> None:
            try:
                model.loss(window).backward()
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(w,)) for w in windows]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert not failures
        for name, p in model.named_parameters():
            assert p.grad is not None
            np.testing.assert_allclose(p.grad.numpy(), alone[name], atol=1e-5 * np.abs(alone[name]).max(), rtol=1e-4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: m.loss([[1, 50]]), ArgumentError, r"ids\[0\] = 1: |= 50: expected 0 <= id < vocab_size = 50"),
        (lambda m: m.loss([1]), ArgumentError, "at least two"),
        (lambda m: m.loss([1, 2], [1]), ShapeError, "expected those of tokens"),
        (lambda m: m.loss([1, 2], [-100, -100]), ArgumentError, "every target is ignored"),
        (lambda m: m.loss([1, 2], dropout=1.0), ArgumentError, "dropout = 1"),
        (lambda m: m.loss([1, 2], ste="learned_scale"), ArgumentError, "outside of a Trainer"),
        (lambda m: m(list(range(50)) * 100), ArgumentError, "max_position_embeddings"),
    ],
)
def test_arguments_of_passes_are_checked(call: Any, error: type[Exception], message: str) -> None:
    with fresh() as model, pytest.raises(error, match=message):
        call(model)


def test_models_without_master_weights_say_so(tiny: BitNetModel) -> None:
    assert isinstance(tiny([1, 2]), np.ndarray)
    for call in (lambda: tiny.loss([1, 2]), lambda: list(tiny.parameters())):
        with pytest.raises(ArgumentError, match="trainable=True"):
            call()
    with pytest.raises(ArgumentError, match="not trainable"):
        tiny([1, 2], dropout=0.1)


def test_parameters_outlive_a_closed_model() -> None:
    model = fresh()
    loss = model.loss(WINDOW)
    kept = list(model.parameters())
    model.loss(WINDOW).backward()
    values, gradient = kept[0].numpy(), kept[0].grad
    model.close()
    with pytest.raises(ArgumentError, match="closed"):
        loss.backward()
    with pytest.raises(ArgumentError, match="closed"):
        model.loss(WINDOW)
    bitnet_rust.trim_memory()
    assert (kept[0].numpy() == values).all()
    assert gradient is not None
    assert np.isfinite(gradient.numpy()).all()
    (kept[0] * 2.0).sum().backward()


@pytest.mark.parametrize("cycles", [15, pytest.param(200, marks=pytest.mark.full)])
def test_models_are_made_trained_and_freed(cycles: int) -> None:
    def cycle() -> None:
        with fresh(hidden_size=192, intermediate_size=768) as model:
            opt = optim.AdamW(model.parameters(), lr=1e-3)
            model.loss(WINDOW).backward()
            opt.step()

    for _ in range(5):
        cycle()
    gc.collect()
    before = bitnet_rust.memory_stats()["in_use"]
    for _ in range(cycles):
        cycle()
    gc.collect()
    with fresh() as model:  # its end looks for memory that nobody uses
        model.loss(WINDOW)
    assert bitnet_rust.memory_stats()["in_use"] <= before + (4 << 20)


def test_a_callback_of_trainer_may_run_passes_of_its_own() -> None:
    losses: list[list[float]] = []
    for passes in (False, True):
        with fresh() as model:

            def look(record: Any, model: BitNetModel = model, passes: bool = passes) -> None:
                if passes:
                    model.loss(WINDOW).backward()  # Trainer begins each update without gradients

            trainer = Trainer(model, max_steps=4, batch_size=1, context_length=LENGTH, callbacks=[look])
            losses.append([r["loss"] for r in trainer.train(WINDOW)])
            assert model.loss(WINDOW).item() < losses[-1][0]
    assert losses[0] == losses[1]


def test_a_signal_handler_within_a_pass_cannot_start_another() -> None:
    x = Tensor(np.ones((256, 256), np.float32), requires_grad=True)
    told: list[BaseException] = []

    def handler(*_: object) -> None:
        try:
            (x * 2.0).sum().backward()
        except ArgumentError as error:
            told.append(error)

    previous = signal.signal(signal.SIGUSR1, handler)
    try:
        with BitNetModel.from_config({**SLOW, "hidden_size": 256, "num_hidden_layers": 2}, trainable=True) as model:
            while not told:  # the signal comes now within a call and now between two
                timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
                timer.start()
                model.loss(np.arange(512)).backward()
                timer.join()
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert "signal handler" in str(told[0])


def test_ctrl_c_ends_a_pass() -> None:
    with BitNetModel.from_config(
        {**SLOW, "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 2}, trainable=True
    ) as model:
        ids = np.arange(2048) % 4096
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))

        def work() -> None:
            timer.start()  # not before: the signal would end the tests, should it come outside
            for _ in range(100):
                model.loss(ids).backward()

        with pytest.raises(KeyboardInterrupt):
            work()
        timer.join()
        assert not (model.forward([1, 2, 3]) == 0).all()

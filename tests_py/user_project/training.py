"""Trains a model with Trainer, and another in a loop of its own."""

from pathlib import Path
from typing import Any

from bitnet_rust import (
    BitNetConfig,
    BitNetModel,
    Callback,
    History,
    Tensor,
    TokenFile,
    Tokenizer,
    Trainer,
    TrainingConfig,
    autograd,
    chat_example,
    nn,
    no_grad,
    optim,
)

TEXT = "To be, or not to be, that is the question.\n" * 40


class Stopper(Callback):
    def on_step(self, trainer: Trainer, record: dict[str, Any]) -> None:
        if record["step"] == 3:
            trainer.stop()


def model_for(tokenizer: Tokenizer) -> BitNetModel:
    config = BitNetConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
    )
    model = BitNetModel.from_config(config, trainable=True)
    model.tokenizer = tokenizer
    return model


def trained(directory: Path) -> History:
    tokenizer = Tokenizer.characters(TEXT)
    tokens: TokenFile = TokenFile.write(directory / "text.tokens", [tokenizer.encode(TEXT)], vocab_size=len(tokenizer))
    config = TrainingConfig(max_steps=5, batch_size=2, context_length=16, learning_rate=1e-3)
    with model_for(tokenizer) as model:
        history = Trainer(model, config, callbacks=[Stopper()]).train(tokens)
        assert len(history) == 3
        return history


def own_loop() -> list[float]:
    nn.manual_seed(0)
    network = nn.Sequential(nn.BitLinear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    optimizer: optim.Optimizer = optim.AdamW(network.parameters(), lr=1e-2)
    x, y = Tensor([[0.1 * i for i in range(8)]]), Tensor([[1.0, 0.0, 0.0, 0.0]])
    losses: list[float] = []
    for _ in range(5):
        loss = (network(x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optim.clip_grad_norm_(list(network.parameters()), 1.0)
        optimizer.step()
        losses.append(float(loss.item()))
    with no_grad():
        assert not network(x).requires_grad
    assert autograd.gradcheck(lambda v: (v * v).sum(), [Tensor([0.5, -1.0], requires_grad=True)])
    return losses


def conversation(tokenizer: Tokenizer) -> int:
    record = {"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day"}]}
    return len(chat_example(record, tokenizer)["input_ids"])

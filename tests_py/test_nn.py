"""bitnet_rust.nn: modules, their parameters and state, layers."""

import copy
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitnet_rust import ArgumentError, ShapeError, Tensor, autograd, nn, optim

F = nn.functional


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.BitLinear(4, 8), nn.ReLU2(), nn.Dropout(0.5))
        self.heads = nn.ModuleList([nn.Linear(8, 2), nn.Linear(8, 3, bias=False)])
        self.scale = nn.Parameter([1.0])

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        h = self.body(x) * self.scale
        return tuple(head(h) for head in self.heads)


def test_parameters_have_paths_and_come_once() -> None:
    net = Net()
    assert [n for n, _ in net.named_parameters()] == [
        "scale",
        "body.0.weight",
        "heads.0.weight",
        "heads.0.bias",
        "heads.1.weight",
    ]
    assert [n for n, _ in net.named_modules()][:3] == ["", "body", "body.0"]
    assert net.num_parameters() == 1 + 32 + 16 + 2 + 24
    net.heads[1].weight = net.heads[0].weight
    assert len(list(net.parameters())) == 4
    assert "heads.1.weight" in net.state_dict()
    assert net.heads[0].bias is not None
    assert net.heads[1].bias is None
    assert [type(m).__name__ for m in net.body] == ["BitLinear", "ReLU2", "Dropout"]
    assert len(net.heads) == 2
    assert len(net.heads[:1]) == 1


def test_attributes_of_modules() -> None:
    net = Net()
    with pytest.raises(AttributeError, match="'Net' object has no attribute 'missing'"):
        _ = net.missing
    with pytest.raises(ArgumentError, match="expected a Parameter"):
        net.scale = 3.0
    del net.scale
    assert "scale" not in dict(net.named_parameters())
    net.extra = nn.Tanh()
    assert "extra" in dir(net)
    net.extra = None
    assert net.extra is None
    assert not any(n == "extra" for n, _ in net.named_modules())

    class Early(nn.Module):
        def __init__(self) -> None:
            self.layer = nn.Linear(1, 1)

    with pytest.raises(ArgumentError, match=r"super\(\).__init__"):
        Early()
    with pytest.raises(NotImplementedError, match="Module does not define forward"):
        nn.Module()(1)
    with pytest.raises(ArgumentError, match="expected a Module"):
        nn.Sequential(3)  # type: ignore[arg-type]


def test_state_goes_out_and_in(tmp_path: Path) -> None:
    nn.manual_seed(1)
    a, b = Net(), Net()
    assert not (a.scale.numpy() == b.body[0].weight.numpy()).all()
    np.savez(tmp_path / "net.npz", **a.state_dict())
    b.load_state_dict(np.load(tmp_path / "net.npz"))
    for (name, p), (_, q) in zip(a.named_parameters(), b.named_parameters(), strict=True):
        assert (p.numpy() == q.numpy()).all(), name
        assert q.is_leaf
        assert q.requires_grad
    before = {k: v.copy() for k, v in b.state_dict().items()}
    state = a.state_dict()
    wrong = {**state, "scale": np.zeros(2, np.float32)}
    with pytest.raises(ShapeError, match=r"scale: found shape \(2,\), expected \(1,\)"):
        b.load_state_dict(wrong)
    del state["scale"]
    state["other"] = np.zeros(1)
    with pytest.raises(ArgumentError, match=r"missing \['scale'\], unknown \['other'\]"):
        b.load_state_dict(state)
    assert all((v == before[k]).all() for k, v in b.state_dict().items()), "nothing has changed"
    b.load_state_dict(state, strict=False)


def test_modules_are_copied_and_pickled() -> None:
    net = Net()
    for made in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert all((made.state_dict()[k] == v).all() for k, v in net.state_dict().items())
        assert isinstance(made.scale, nn.Parameter)
        assert made.scale.is_leaf
        assert made.scale.requires_grad
        made.scale.detach()[...] = 5.0
        assert net.scale.item() == 1.0


def test_a_module_shows_its_parts() -> None:
    assert repr(nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.1))) == (
        "Sequential(\n  (0): Linear(2, 3, bias=True)\n  (1): Dropout(p=0.1)\n)"
    )


def test_train_eval_and_seeds_decide_over_dropout() -> None:
    layer, x = nn.Dropout(0.25), Tensor.ones((64, 64))
    nn.manual_seed(3)
    first, second = layer(x).numpy(), layer(x).numpy()
    assert (first != second).any()
    nn.manual_seed(3)
    assert (layer(x).numpy() == first).all()
    assert set(np.unique(first)) == {0.0, np.float32(1 / 0.75)}
    assert abs((first == 0).mean() - 0.25) < 0.03
    net = nn.Sequential(nn.Sequential(layer))
    assert net.eval()(x) is x
    assert not layer.training
    assert net.train().training
    assert layer.training
    x = Tensor.ones((64, 64)).requires_grad_()
    y = F.dropout(x, 0.25, seed=9)
    y.backward(np.ones((64, 64), np.float32))
    assert x.grad is not None
    assert (x.grad.numpy() == y.numpy()).all()


def test_seeds_make_equal_layers() -> None:
    made = []
    for _ in range(2):
        nn.manual_seed(5)
        made.append(nn.Linear(3, 4).state_dict())
    assert all((made[0][k] == made[1][k]).all() for k in made[0])
    bound = 3**-0.5
    assert np.abs(made[0]["weight"]).max() <= bound


def test_gradients_are_forgotten_and_frozen_by_module() -> None:
    net = Net().eval()
    sum((y.sum() for y in net(Tensor.ones((2, 4)))), Tensor([0.0])).backward()
    assert all(p.grad is not None for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())
    net.heads.requires_grad_(False)
    net(Tensor.ones((2, 4)))[0].sum().backward()
    assert net.heads[0].weight.grad is None
    assert net.scale.grad is not None


def test_embedding_of_ids_in_any_form() -> None:
    layer = nn.Embedding(5, 3)
    w = layer.weight.numpy()
    for ids in ([1, 4], np.array([1, 4]), Tensor([1, 4])):
        assert (layer(ids).numpy() == w[[1, 4]]).all()
    layer([[1, 1], [0, 1]]).sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.numpy()[:, 0].tolist() == [1.0, 3.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: nn.LayerNorm(5), (2, 5)),
        (lambda: nn.RMSNorm(5, eps=0.1), (2, 5)),
        (lambda: nn.MultiHeadAttention(8, 4, 2, ternary=False, bias=True), (2, 3, 8)),
        (lambda: nn.MultiHeadAttention(6, 2, rope_theta=None, sub_norm=True, ternary=False), (1, 3, 6)),
        (lambda: nn.FeedForward(4, 6, "silu", sub_norm=True, eps=0.1, ternary=False), (2, 4)),
        (lambda: nn.Sequential(nn.Linear(3, 4), nn.GELU("tanh"), nn.SiLU(), nn.Sigmoid(), nn.Tanh()), (2, 3)),
    ],
)
def test_gradients_of_layers(layer: Any, shape: tuple[int, ...]) -> None:
    nn.manual_seed(2)
    made = layer()
    x = Tensor(np.random.default_rng(0).normal(size=shape), dtype="float32", requires_grad=True)
    parameters = list(made.parameters())
    assert autograd.gradcheck(lambda t, *_: made(t), [x, *parameters], atol=3e-3)


def test_ternary_blocks_train() -> None:
    nn.manual_seed(0)
    net = nn.Sequential(
        nn.RMSNorm(16), nn.MultiHeadAttention(16, 4, 2, sub_norm=True), nn.FeedForward(16, 32, sub_norm=True)
    )
    x = Tensor(np.random.default_rng(0).normal(size=(2, 6, 16)), dtype="float32")
    goal = x.cumsum(1)
    opt = optim.AdamW(net.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        loss = F.mse_loss(net(x), goal)
        opt.zero_grad()
        loss.backward()
        opt.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert net[1](x, lengths=[6, 2]).numpy()[1, 2:].any() == False  # noqa: E712


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Linear(0, 3), "in_features = 0: expected a positive integer"),
        (lambda: nn.MultiHeadAttention(8, 3, 2), "num_heads = 3, num_kv_heads = 2"),
        (lambda: nn.MultiHeadAttention(8, 3), "dim = 8: expected a multiple"),
        (lambda: nn.MultiHeadAttention(6, 2), "head_dim = 3: expected an even number"),
        (lambda: nn.FeedForward(4, 8, "swish"), "activation = 'swish'"),  # type: ignore[arg-type]
        (lambda: nn.Dropout(1.0), "p = 1.0: expected 0 <= p < 1"),
        (lambda: nn.GELU("erf")(Tensor([1.0])), "approximate = 'erf'"),  # type: ignore[arg-type]
    ],
)
def test_arguments_of_layers_are_checked(make: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make()


def test_state_is_what_safetensors_writes() -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    net = Net()
    again = Net()
    again.load_state_dict(safetensors.load(safetensors.save(net.state_dict())))
    assert (again.body[0].weight.numpy() == net.body[0].weight.numpy()).all()
    assert io.BytesIO(safetensors.save(net.state_dict())).getbuffer().nbytes > 4 * net.num_parameters()

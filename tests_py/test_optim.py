"""bitnet_rust.optim: steps, states and scaling are those of torch.optim, as tests_py/record/optim.py recorded them."""

import json
from typing import Any

import numpy as np
import pytest

from bitnet_rust import ArgumentError, AutogradError, DTypeError, Tensor, TrainingError, nn, no_grad, optim
from conftest import REPO

DATA = REPO / "tests_go" / "testdata" / "optim"
RUNS = np.load(DATA / "optimizers.npz")
SHAPES = [tuple(s) for s in json.loads(RUNS["shapes"].tobytes())]
CASES = [key.split("/")[0] for key in RUNS.files if key.endswith("/case")]
CLASSES: dict[str, Any] = {"SGD": optim.SGD, "Adam": optim.Adam, "AdamW": optim.AdamW}


def parts(flat: "np.ndarray[Any, Any]") -> "list[np.ndarray[Any, Any]]":
    ends = np.cumsum([int(np.prod(s)) for s in SHAPES])
    return [p.reshape(s) for p, s in zip(np.split(flat, ends[:-1]), SHAPES, strict=True)]


def setup(case: str, start: "np.ndarray[Any, Any]") -> tuple[dict[str, Any], list[nn.Parameter], optim.Optimizer]:
    described = json.loads(RUNS[f"{case}/case"].tobytes())
    params = [nn.Parameter(p) for p in parts(start)]
    groups: Any = params
    if "second" in described:
        groups = [{"params": [params[0], params[2]]}, {"params": [params[1]], **described["second"]}]
    return described, params, CLASSES[described["class"]](groups, **described["hyper"])


def run(
    described: dict[str, Any],
    params: list[nn.Parameter],
    opt: optim.Optimizer,
    first: int,
    last: int,
    check: bool,
    case: str,
) -> None:
    kept = RUNS["steps"].tolist()
    for step in range(first, last + 1):
        for i, (p, g) in enumerate(zip(params, parts(RUNS["gradients"][step - 1]), strict=True)):
            absent = "missing" in described and i == described["missing"][0] and step % described["missing"][1] == 0
            p.grad = None if absent else g
        opt.step()
        if check and step in kept:
            want = parts(RUNS[f"{case}/params"][kept.index(step)])
            for p, w in zip(params, want, strict=True):
                np.testing.assert_allclose(p.numpy(), w, rtol=1e-6, atol=1e-6 * np.sqrt(np.mean(w**2)))


@pytest.mark.parametrize("case", CASES)
def test_a_hundred_steps_are_those_of_torch(case: str) -> None:
    described, params, opt = setup(case, RUNS["start"])
    run(described, params, opt, 1, 100, True, case)


@pytest.mark.parametrize("case", CASES)
def test_a_state_of_torch_continues_here(case: str) -> None:
    """torch's parameters and state after 50 steps, then 50 steps of ours."""
    kept = RUNS["steps"].tolist()
    described, params, opt = setup(case, RUNS[f"{case}/params"][kept.index(50)])
    state = json.loads(RUNS[f"{case}/50/json"].tobytes())
    for key in RUNS.files:
        if key.startswith(f"{case}/50/state."):
            _, index, name = key.split("/")[2].split(".")
            state["state"][index][name] = RUNS[key]
    opt.load_state_dict(state)
    run(described, params, opt, 51, 100, True, case)

    # Our state then has the structure of torch's, and its numbers.
    theirs = json.loads(RUNS[f"{case}/100/json"].tobytes())
    ours = opt.state_dict()
    assert [g["params"] for g in ours["param_groups"]] == [g["params"] for g in theirs["param_groups"]]
    for key, value in theirs["param_groups"][0].items():
        if key in ("lr", "betas", "momentum", "weight_decay", "eps", "amsgrad", "nesterov", "dampening", "maximize"):
            found = ours["param_groups"][0][key]
            assert (list(found) if isinstance(found, tuple) else found) == value, key
    for index, entry in theirs["state"].items():
        mine = ours["state"][int(index)]
        if "step" in entry:
            assert mine["step"] == entry["step"]
        for key in RUNS.files:
            if key.startswith(f"{case}/100/state.{index}."):
                want = RUNS[key]
                np.testing.assert_allclose(
                    mine[key.rsplit(".", 1)[1]], want, rtol=1e-5, atol=1e-6 * np.sqrt(np.mean(want**2))
                )


@pytest.mark.full
@pytest.mark.parametrize("case", CASES)
def test_a_state_of_ours_continues_in_torch(case: str) -> None:
    torch = pytest.importorskip("torch")
    described, params, opt = setup(case, RUNS["start"])
    run(described, params, opt, 1, 50, False, case)
    twins = [torch.nn.Parameter(torch.from_numpy(p.numpy())) for p in params]
    groups: Any = twins
    if "second" in described:
        groups = [{"params": [twins[0], twins[2]]}, {"params": [twins[1]], **described["second"]}]
    theirs = getattr(torch.optim, described["class"])(groups, **described["hyper"])
    theirs.load_state_dict(optim.to_torch(opt.state_dict()))
    for step in range(51, 101):
        for i, (p, g) in enumerate(zip(twins, parts(RUNS["gradients"][step - 1]), strict=True)):
            absent = "missing" in described and i == described["missing"][0] and step % described["missing"][1] == 0
            p.grad = None if absent else torch.from_numpy(g.copy())
        theirs.step()
    for p, w in zip(twins, parts(RUNS[f"{case}/params"][-1]), strict=True):
        np.testing.assert_allclose(p.detach().numpy(), w, rtol=1e-6, atol=1e-6 * np.sqrt(np.mean(w**2)))
    opt.load_state_dict(theirs.state_dict())  # torch's own tensors


def test_a_step_is_a_change_that_old_graphs_notice() -> None:
    w = nn.Parameter([1.0, 2.0])
    opt = optim.SGD([w], lr=0.5)
    stale = w.square().sum()
    w.grad = [1.0, 1.0]
    opt.step()
    assert w.tolist() == [0.5, 1.5]
    with pytest.raises(AutogradError, match="changed in place"):
        stale.backward()
    opt.zero_grad()
    opt.step()
    assert w.tolist() == [0.5, 1.5]
    assert w.grad is None


def test_hyperparameters_of_groups_change_between_steps() -> None:
    a, b = nn.Parameter([1.0]), nn.Parameter([1.0])
    opt = optim.SGD([{"params": [a]}, {"params": b, "lr": 0.0}], lr=1.0)
    a.grad, b.grad = [0.25], [0.25]
    opt.step()
    assert (a.item(), b.item()) == (0.75, 1.0)
    opt.param_groups[1]["lr"] = 2.0
    opt.step()
    assert (a.item(), b.item()) == (0.5, 0.5)
    opt.param_groups[1]["lr"] = -1.0
    with pytest.raises(ArgumentError, match=r"groups\[1\].lr = -1"):
        opt.step()
    assert (a.item(), b.item()) == (0.5, 0.5)


def test_a_group_is_added_and_the_others_keep_their_state() -> None:
    a, b = nn.Parameter([1.0]), nn.Parameter([1.0])
    opt = optim.Adam([a], lr=0.1)
    a.grad = [1.0]
    opt.step()
    opt.add_param_group({"params": [b], "lr": 0.5})
    assert opt.state_dict()["state"][0]["step"] == 1.0
    b.grad = [1.0]
    opt.step()
    state = opt.state_dict()["state"]
    assert (state[0]["step"], state[1]["step"]) == (2.0, 1.0)
    assert b.item() == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: optim.SGD([]), "params is empty"),
        (lambda p: optim.SGD(p), "expected a list"),
        (lambda p: optim.SGD([3]), "expected a Tensor"),
        (lambda p: optim.SGD([p, p]), "already"),
        (lambda p: optim.SGD([p], lr=-1.0), "lr = -1"),
        (lambda p: optim.SGD([p], nesterov=True), "nesterov"),
        (lambda p: optim.Adam([p], betas=(0.9, 1.0)), r"betas\[1\] = 1"),
        (lambda p: optim.Adam([p], betas=(0.9, 0.99, 0.999)), "betas = .*: expected two numbers"),
        (lambda p: optim.Adam([p], lr="fast"), "lr = 'fast': expected a number"),
        (lambda p: optim.Adam([{"params": []}]), "Adam: a group has no parameters"),
        (lambda p: optim.Adam([p], lr=float("nan")), "lr = nan"),
        (lambda p: optim.Adam([{"params": [p], "beta": 1}]), r"unknown hyperparameters \['beta'\]"),
        (lambda p: optim.Adam([{"lr": 1}]), 'expected a group, a dictionary with "params"'),
        (lambda p: optim.Adam([p]).load_state_dict({}), "torch.optim's state_dict"),
        (lambda p: optim.Adam([p]).load_state_dict({"state": {}, "param_groups": []}), "param_groups"),
        (lambda p: optim.Adam([p]).load_state_dict(optim.SGD([p]).state_dict()), "algorithm"),
        (lambda p: optim.LRScheduler(optim.SGD([p]), "cosines"), "name"),
        (lambda p: optim.LRScheduler(optim.SGD([p]), "cosine", gamma=1), "gamma"),
        (lambda p: optim.clip_grad_norm_([], 0.0) or optim.clip_grad_norm_(_graded(p), -1.0), "max_norm"),
        (lambda p: optim.GradScaler(backoff_factor=2.0).step(optim.SGD([_graded(p)])), "backoff_factor"),
        (lambda p: optim.GradScaler().update(), "before step"),
    ],
)
def test_arguments_are_checked(make: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make(nn.Parameter([1.0, 2.0]))


def _graded(p: nn.Parameter) -> nn.Parameter:
    p.grad = [3.0, 4.0]
    return p


def test_only_contiguous_float32_leaves_are_optimized() -> None:
    with pytest.raises(AutogradError, match="only leaves"):
        optim.SGD([Tensor([1.0])])
    with pytest.raises(DTypeError, match="contiguous float32"):
        optim.SGD([Tensor([1.0], dtype="float16", requires_grad=True)])


def test_clipping_is_that_of_torch() -> None:
    data = np.load(DATA / "clipping.npz")
    for case in ("above", "below"):
        params = [nn.Parameter(np.zeros(s, np.float32)) for s in SHAPES]
        for p, g in zip(params, parts(data[f"{case}/before"]), strict=True):
            p.grad = g
        assert optim.clip_grad_norm_(params, 1.0) == pytest.approx(data[f"{case}/norm"][0], rel=1e-6)
        for p, want in zip(params, parts(data[f"{case}/after"]), strict=True):
            assert p.grad is not None
            np.testing.assert_allclose(p.grad.numpy(), want, rtol=1e-6)
    for p, g in zip(params, parts(data["value/before"]), strict=True):
        p.grad = g
    optim.clip_grad_value_(params, 0.25)
    for p, want in zip(params, parts(data["value/after"]), strict=True):
        assert p.grad is not None
        assert (p.grad.numpy() == want).all()
    params[0].grad = np.full(SHAPES[0], np.inf, np.float32)
    with pytest.raises(TrainingError, match=r"is .*Inf at element 0"):
        optim.clip_grad_norm_(params, 1.0)


def test_a_scheduler_moves_the_groups_and_resumes() -> None:
    p = nn.Parameter([1.0])
    opt = optim.AdamW([p], lr=0.5)
    schedule = optim.LRScheduler(opt, "linear", total_steps=4)
    rates = []
    for _ in range(4):
        rates.append(schedule.get_last_lr()[0])
        schedule.step()
    assert rates == [0.5, 0.375, 0.25, 0.125]
    assert opt.param_groups[0]["lr"] == 0.0

    again = optim.AdamW([nn.Parameter([1.0])], lr=0.5)
    resumed = optim.LRScheduler(again, "linear", total_steps=4)
    schedule.load_state_dict({**schedule.state_dict(), "step": 2})
    again.load_state_dict(opt.state_dict())
    resumed.load_state_dict(schedule.state_dict())
    assert again.param_groups[0]["lr"] == 0.25
    with pytest.raises(ArgumentError, match="linear"):
        resumed.load_state_dict({"name": "cosine", "step": 1})

    opt = optim.SGD([nn.Parameter([1.0])], lr=1.0)
    plateau = optim.LRScheduler(opt, "plateau", patience=0, factor=0.5)
    for metric in (3.0, 2.0, 2.5):
        plateau.step(metric)
    assert plateau.get_last_lr() == [0.5]


def test_loss_scaling_is_that_of_torch() -> None:
    data = np.load(DATA / "scaler.npz")
    weight = nn.Parameter([1.0, -2.0])
    opt = optim.SGD([weight], lr=0.01)
    scaler = optim.GradScaler(**json.loads(data["config"].tobytes()))
    for bad, scale, want in zip(data["overflow"], data["scales"], data["weights"], strict=True):
        opt.zero_grad()
        scaler.scale((weight * weight).sum()).backward()
        if bad:
            assert weight.grad is not None
            weight.grad[1] = float("inf")
        assert scaler.step(opt) == (not bad)
        scaler.update()
        assert scaler.get_scale() == scale
        np.testing.assert_allclose(weight.numpy(), want, rtol=1e-6)
    assert scaler.state_dict() == json.loads(data["state"].tobytes())
    resumed = optim.GradScaler()
    resumed.load_state_dict(scaler.state_dict())
    assert resumed.get_scale() == scaler.get_scale()
    with pytest.raises(ArgumentError, match="serves one optimizer"):
        scaler.step(optim.SGD([nn.Parameter([1.0])]))


def test_unscaled_gradients_can_be_clipped() -> None:
    weight = nn.Parameter([3.0, 4.0])
    opt = optim.SGD([weight], lr=1.0)
    scaler = optim.GradScaler(init_scale=8.0)
    scaler.scale((weight * Tensor([3.0, 4.0])).sum()).backward()
    scaler.unscale_(opt)
    assert optim.clip_grad_norm_([weight], 1.0) == pytest.approx(5.0)
    scaler.step(opt)
    with pytest.raises(ArgumentError, match="Step after Step"):
        scaler.step(opt)
    np.testing.assert_allclose(weight.numpy(), [2.4, 3.2], rtol=1e-6)


def test_repr_has_the_groups() -> None:
    assert "group 0: 1 parameters, lr=0.001" in repr(optim.AdamW([nn.Parameter([1.0])]))
    with no_grad():
        assert optim.SGD(iter([("w", nn.Parameter([1.0]))])).param_groups[0]["param_names"] == ["w"]

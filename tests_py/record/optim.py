"""Records what PyTorch's optimizers, schedulers, clipping and GradScaler compute, for the tests of core/optim.

    python tests_py/record/optim.py [DIRECTORY]        (default: tests_go/testdata/optim)

needs torch and transformers. The files are committed: run it again only to add cases. Text is stored as uint8 arrays.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.optim import lr_scheduler as lrs

SHAPES = [(4, 5), (6,), (2, 3, 2)]
STEPS = 100
SAVE_AT = 50  # the state dict is recorded after this many steps
KEEP = [*range(1, 6), *range(10, STEPS + 1, 10)]  # parameters are recorded after these many steps

ADAM = {"lr": 1e-2}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"class": "SGD", "hyper": {"lr": 0.1}},
    "sgd_decay": {"class": "SGD", "hyper": {"lr": 0.05, "weight_decay": 0.1}},
    "sgd_momentum": {"class": "SGD", "hyper": {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}},
    "sgd_dampening": {"class": "SGD", "hyper": {"lr": 0.05, "momentum": 0.8, "dampening": 0.3}},
    "sgd_nesterov": {"class": "SGD", "hyper": {"lr": 0.02, "momentum": 0.9, "nesterov": True, "weight_decay": 0.05}},
    "sgd_maximize": {"class": "SGD", "hyper": {"lr": 0.05, "momentum": 0.5, "maximize": True}},
    "adam": {"class": "Adam", "hyper": ADAM},
    "adam_decay": {"class": "Adam", "hyper": ADAM | {"weight_decay": 0.1, "betas": [0.8, 0.95], "eps": 1e-6}},
    "adam_low_beta": {"class": "Adam", "hyper": ADAM | {"betas": [0.3, 0.9]}},
    "adam_amsgrad": {"class": "Adam", "hyper": ADAM | {"amsgrad": True, "weight_decay": 0.01}},
    "adamw": {"class": "AdamW", "hyper": ADAM},
    "adamw_bitnet": {"class": "AdamW", "hyper": {"lr": 1.5e-3, "betas": [0.9, 0.95], "weight_decay": 0.1}},
    "adamw_maximize": {"class": "AdamW", "hyper": ADAM | {"maximize": True, "amsgrad": True}},
    "adamw_groups": {
        "class": "AdamW",
        "hyper": ADAM,
        "second": {"lr": 3e-3, "weight_decay": 0.0, "betas": [0.7, 0.99]},
    },
    "adamw_missing": {
        "class": "AdamW",
        "hyper": ADAM,
        "missing": [1, 3],
    },  # tensor 1 has no gradient in every third step
    "sgd_missing": {"class": "SGD", "hyper": {"lr": 0.05, "momentum": 0.9}, "missing": [1, 3]},
}


def text(value: Any) -> np.ndarray:
    return np.frombuffer(json.dumps(value).encode(), dtype=np.uint8)


def flat(tensors: list[torch.Tensor]) -> np.ndarray:
    return np.concatenate([t.detach().numpy().ravel() for t in tensors])


def split(values: np.ndarray) -> list[torch.Tensor]:
    sizes = np.cumsum([int(np.prod(s)) for s in SHAPES])[:-1]
    return [
        torch.from_numpy(part.copy()).reshape(shape)
        for part, shape in zip(np.split(values, sizes), SHAPES, strict=True)
    ]


def inputs() -> tuple[np.ndarray, np.ndarray]:
    """Weights, and gradients of sizes from 1e-4 to 10 with some zeros."""
    rng = np.random.default_rng(4)
    size = sum(int(np.prod(s)) for s in SHAPES)
    gradients = rng.standard_normal((STEPS, size)) * np.logspace(-4, 1, size)
    gradients[rng.random((STEPS, size)) < 0.05] = 0
    return rng.standard_normal(size).astype(np.float32), gradients.astype(np.float32)


def record_optimizer(
    name: str, case: dict[str, Any], start: np.ndarray, gradients: np.ndarray
) -> dict[str, np.ndarray]:
    params = [torch.nn.Parameter(t) for t in split(start)]
    groups: list[dict[str, Any]] = [{"params": params}]
    if "second" in case:
        groups = [{"params": [params[0], params[2]]}, {"params": [params[1]]} | case["second"]]
    opt = getattr(torch.optim, case["class"])(groups, **case["hyper"])
    rows, out = [], {}
    for step in range(1, STEPS + 1):
        for i, (p, g) in enumerate(zip(params, split(gradients[step - 1]), strict=True)):
            absent = "missing" in case and i == case["missing"][0] and step % case["missing"][1] == 0
            p.grad = None if absent else g
        opt.step()
        if step in KEEP:
            rows.append(flat(params))
        if step in (SAVE_AT, STEPS):
            saved, state = opt.state_dict(), {}
            for i, entry in saved["state"].items():
                for key, value in entry.items():
                    if isinstance(value, torch.Tensor) and value.dim():
                        out[f"{name}/{step}/state.{i}.{key}"] = value.numpy().copy()
                state[i] = {
                    k: v.item() if isinstance(v, torch.Tensor) else v
                    for k, v in entry.items()
                    if getattr(v, "shape", ()) == ()
                }
            out[f"{name}/{step}/json"] = text({"state": state, "param_groups": saved["param_groups"]})
    return out | {f"{name}/params": np.stack(rows), f"{name}/case": text(case)}


def record_optimizers() -> dict[str, np.ndarray]:
    start, gradients = inputs()
    out = {"start": start, "gradients": gradients, "steps": np.array(KEEP, dtype=np.int32), "shapes": text(SHAPES)}
    for name, case in OPTIMIZERS.items():
        out |= record_optimizer(name, case, start, gradients)
    return out


def record_clipping() -> dict[str, np.ndarray]:
    _, gradients = inputs()
    out = {}
    for case, row in {"above": gradients[0], "below": gradients[1] * np.float32(1e-3)}.items():
        params = [torch.nn.Parameter(torch.zeros(s)) for s in SHAPES]
        for p, g in zip(params, split(row), strict=True):
            p.grad = g
        norm = torch.nn.utils.clip_grad_norm_(params, 1.0)
        out |= {
            f"{case}/before": row,
            f"{case}/norm": np.array([norm.item()]),
            f"{case}/after": flat([p.grad for p in params]),
        }
    for p, g in zip(params, split(gradients[2]), strict=True):
        p.grad = g
    torch.nn.utils.clip_grad_value_(params, 0.25)
    return out | {"value/before": gradients[2], "value/after": flat([p.grad for p in params])}


def record_scaler() -> dict[str, np.ndarray]:
    """One weight whose gradient overflows in some steps."""
    overflow = [False] * 5 + [True, True] + [False] * 9 + [True] + [False] * 23
    config = {"init_scale": 1024.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 4}
    scaler = torch.amp.GradScaler("cpu", **config)
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    opt = torch.optim.SGD([weight], lr=0.01)
    scales, weights = [], []
    for bad in overflow:
        opt.zero_grad()
        scaler.scale((weight * weight).sum()).backward()
        if bad:
            weight.grad[1] = float("inf")
        scaler.step(opt)
        scaler.update()
        scales.append(scaler.get_scale())
        weights.append(weight.detach().numpy().copy())
    return {
        "config": text(config),
        "overflow": np.array(overflow, dtype=np.uint8),
        "scales": np.array(scales),
        "weights": np.stack(weights),
        "state": text(scaler.state_dict()),
    }


def warmed(opt: torch.optim.Optimizer, warmup: int, then: Any) -> Any:
    """A linear warm-up before a scheduler that counts from its end."""
    rise = lrs.LambdaLR(opt, lambda step: step / warmup)
    return lrs.SequentialLR(opt, [rise, then], milestones=[warmup])


# Each schedule: our configuration, and how PyTorch or transformers says the same of a base learning rate of 0.02.
BASE = 0.02
SCHEDULES: dict[str, tuple[dict[str, Any], Any]] = {
    "constant": ({"name": "constant"}, lambda o: transformers.get_constant_schedule(o)),
    "constant_warmup": ({"name": "constant", "warmup_steps": 10}, lambda o: transformers.get_constant_schedule_with_warmup(o, 10)),
    "linear": ({"name": "linear", "warmup_steps": 10, "total_steps": 90}, lambda o: transformers.get_linear_schedule_with_warmup(o, 10, 90)),
    "cosine": ({"name": "cosine", "warmup_steps": 10, "total_steps": 100}, lambda o: transformers.get_cosine_schedule_with_warmup(o, 10, 100)),
    "cosine_min": (
        {"name": "cosine", "warmup_steps": 10, "total_steps": 100, "min_ratio": 0.1},
        lambda o: transformers.get_cosine_with_min_lr_schedule_with_warmup(o, 10, 100, min_lr_rate=0.1),
    ),
    "cosine_waves": (
        {"name": "cosine", "warmup_steps": 5, "total_steps": 100, "cycles": 2.5},
        lambda o: transformers.get_cosine_schedule_with_warmup(o, 5, 100, num_cycles=2.5),
    ),
    "cosine_annealing": (
        {"name": "cosine", "total_steps": 100, "min_ratio": 0.05},
        lambda o: lrs.CosineAnnealingLR(o, T_max=100, eta_min=0.05 * BASE),
    ),
    "polynomial": (
        {"name": "polynomial", "warmup_steps": 10, "total_steps": 90, "power": 2.0, "min_ratio": 0.01},
        lambda o: transformers.get_polynomial_decay_schedule_with_warmup(o, 10, 90, lr_end=0.01 * BASE, power=2.0),
    ),
    "polynomial_torch": ({"name": "polynomial", "total_steps": 90, "power": 1.5}, lambda o: lrs.PolynomialLR(o, total_iters=90, power=1.5)),
    "inverse_sqrt": ({"name": "inverse_sqrt", "warmup_steps": 10}, lambda o: transformers.get_inverse_sqrt_schedule(o, 10)),
    "inverse_sqrt_timescale": (
        {"name": "inverse_sqrt", "warmup_steps": 10, "timescale": 25},
        lambda o: transformers.get_inverse_sqrt_schedule(o, 10, timescale=25),
    ),
    "step": ({"name": "step", "step_size": 30, "gamma": 0.3}, lambda o: lrs.StepLR(o, 30, gamma=0.3)),
    "step_warmup": ({"name": "step", "step_size": 20, "warmup_steps": 10}, lambda o: warmed(o, 10, lrs.StepLR(o, 20))),
    "multi_step": ({"name": "multi_step", "milestones": [20, 25, 80], "gamma": 0.5}, lambda o: lrs.MultiStepLR(o, [20, 25, 80], gamma=0.5)),
    "exponential": ({"name": "exponential", "gamma": 0.97}, lambda o: lrs.ExponentialLR(o, 0.97)),
    "exponential_warmup": ({"name": "exponential", "gamma": 0.9, "warmup_steps": 8}, lambda o: warmed(o, 8, lrs.ExponentialLR(o, 0.9))),
    "one_cycle": (
        {"name": "one_cycle", "total_steps": 100, "cycle_momentum": True},
        lambda o: lrs.OneCycleLR(o, BASE, total_steps=100),
    ),
    "one_cycle_three_phase": (
        {
            "name": "one_cycle", "total_steps": 100, "three_phase": True, "decay": "linear", "peak_at": 0.25, "div_factor": 10.0,
            "final_div_factor": 100.0, "cycle_momentum": True, "base_momentum": 0.8, "max_momentum": 0.9,
        },
        lambda o: lrs.OneCycleLR(
            o, BASE, total_steps=100, three_phase=True, anneal_strategy="linear", pct_start=0.25, div_factor=10.0,
            final_div_factor=100.0, base_momentum=0.8, max_momentum=0.9,
        ),
    ),
    "wsd": (
        {"name": "wsd", "warmup_steps": 10, "total_steps": 90, "decay_steps": 30},
        lambda o: transformers.get_wsd_schedule(o, 10, 30, num_training_steps=90),
    ),
    "wsd_sqrt": (
        {"name": "wsd", "warmup_steps": 10, "warmup_start": 0.1, "total_steps": 90, "decay_steps": 30, "decay": "1-sqrt", "min_ratio": 0.1},
        lambda o: transformers.get_wsd_schedule(o, 10, 30, num_training_steps=90, decay_type="1-sqrt", min_lr_ratio=0.1),
    ),
    "wsd_linear": (
        {"name": "wsd", "total_steps": 90, "decay_steps": 90, "decay": "linear"},
        lambda o: transformers.get_wsd_schedule(o, 0, 90, num_training_steps=90, decay_type="linear"),
    ),
}  # fmt: skip

PLATEAUS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plateau": ({"factor": 0.5, "patience": 3}, {}),
    "plateau_max_abs": (
        {"factor": 0.3, "patience": 0, "mode": "max", "threshold_mode": "abs", "threshold": 0.05, "cooldown": 2},
        {},
    ),
    "plateau_floor": ({"factor": 0.1, "patience": 1, "threshold": 0.0}, {"min_ratio": 0.02}),
}


def record_schedules() -> dict[str, np.ndarray]:
    out = {}
    for name, (config, make) in SCHEDULES.items():
        opt = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=BASE, momentum=0.9)
        scheduler = make(opt)
        rates = []
        for step in range(100):
            rates.append([opt.param_groups[0]["lr"], opt.param_groups[0]["momentum"]])
            opt.step()
            if step < 99:
                scheduler.step()
        out |= {f"{name}/config": text(config), f"{name}/rates": np.array(rates)}
    metrics = np.random.default_rng(8).random(100) * 0.3 + np.concatenate([np.linspace(2, 1, 50), np.ones(50)])
    for name, (config, extra) in PLATEAUS.items():
        opt = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=BASE)
        scheduler = lrs.ReduceLROnPlateau(opt, eps=0.0, min_lr=extra.get("min_ratio", 0) * BASE, **config)
        rates = []
        for metric in metrics:
            scheduler.step(metric)
            rates.append(opt.param_groups[0]["lr"])
        out |= {f"{name}/config": text({"name": "plateau"} | config | extra), f"{name}/rates": np.array(rates)}
    return out | {"metrics": metrics, "base": np.array([BASE])}


def main() -> None:
    default = Path(__file__).parents[2] / "tests_go" / "testdata" / "optim"
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    recordings = {
        "optimizers": record_optimizers(),
        "clipping": record_clipping(),
        "scaler": record_scaler(),
        "schedules": record_schedules(),
    }
    for name, arrays in recordings.items():
        np.savez_compressed(folder / f"{name}.npz", **arrays)
        print(f"{name}.npz: {len(arrays)} arrays, {(folder / f'{name}.npz').stat().st_size} bytes")
    print(
        f"torch {torch.__version__}, transformers {transformers.__version__}, {torch.backends.cpu.get_cpu_capability()}"
    )


if __name__ == "__main__":
    main()

"""Optimizers, schedules, clipping and loss scaling with the arithmetic and the saved state of torch.optim.

>>> from bitnet_rust import nn, optim
>>> layer = nn.Linear(4, 2)
>>> opt = optim.AdamW(layer.parameters(), lr=1e-3, weight_decay=0.1)
>>> schedule = optim.LRScheduler(opt, "cosine", total_steps=1000, warmup_steps=100)

Updates run in the Go core, fused and on all threads.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from . import _bitnet
from .arrays import whole_number
from .errors import ArgumentError, missing_extra
from .tensor import Tensor

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "GradScaler",
    "LRScheduler",
    "Optimizer",
    "clip_grad_norm_",
    "clip_grad_value_",
    "to_torch",
]

Params: TypeAlias = "Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Iterable[Mapping[str, Any]]"

_Group: TypeAlias = dict[str, Any]


class Optimizer:
    """Base of `SGD`, `Adam` and `AdamW`.

    ``params`` are tensors that require a gradient, contiguous float32; or (name, tensor) pairs, as `named_parameters`
    gives; or groups, dictionaries with "params" and hyperparameters of their own. A tensor without a gradient is left alone
    by a step.

    defaults: the hyperparameters of groups that say nothing else.
    param_groups: the groups: dictionaries with "params" and all hyperparameters, which may be changed between steps.
    """

    _name = ""

    def __init__(self, params: Params, defaults: Mapping[str, Any]) -> None:
        self.defaults: dict[str, Any] = dict(defaults)
        self.param_groups: list[_Group] = [self._group(g) for g in _as_groups(params)]
        self._build()

    def _group(self, group: Mapping[str, Any]) -> _Group:
        unknown = sorted(group.keys() - self.defaults.keys() - {"params", "name", "param_names"})
        if unknown:
            raise ArgumentError(
                f"{type(self).__name__}: unknown hyperparameters {unknown}: expected {sorted(self.defaults)}"
            )
        params, names = [], []
        for i, p in enumerate([group["params"]] if isinstance(group["params"], Tensor) else group["params"]):
            name, tensor = p if isinstance(p, tuple) else ("", p)
            if not isinstance(tensor, Tensor):
                raise ArgumentError(f"params[{i}] is a {type(tensor).__name__}: expected a Tensor")
            params.append(tensor)
            names.append(str(name))
        if not params:
            raise ArgumentError(f"{type(self).__name__}: a group has no parameters")
        made = {
            **self.defaults,
            **{k: v for k, v in group.items() if k not in ("params", "param_names")},
            "params": params,
        }
        if any(names):
            made["param_names"] = names
        return made

    def _build(self) -> None:
        groups = [
            {
                "hyper": _hyper(g),
                "name": str(g.get("name", "")),
                "names": g.get("param_names") or [""] * len(g["params"]),
            }
            for g in self.param_groups
        ]
        params = {"optimizer": {"name": self._name, **_hyper(self.defaults)}, "groups": groups}
        operands = tuple(t._handle for g in self.param_groups for t in g["params"])
        self._object = _bitnet.object("optimizer", json.dumps(params), operands, ())
        self._known = json.dumps([g["hyper"] for g in groups])

    def _push(self) -> None:
        """Tells the core of changed hyperparameters."""
        text = json.dumps([_hyper(g) for g in self.param_groups])
        if text != self._known:
            self._object.call("set_groups", text, ())
            self._known = text

    def _pull(self) -> None:
        """Takes over hyperparameters that a schedule or a state changed."""
        for group, hyper in zip(self.param_groups, json.loads(self._object.call("groups", "", ())[0]), strict=True):
            for key in group.keys() & self.defaults.keys():
                value = hyper.get(
                    key, type(group[key])(0) if isinstance(group[key], bool | int | float) else group[key]
                )
                group[key] = tuple(value) if key == "betas" else value
        self._known = json.dumps([_hyper(g) for g in self.param_groups])

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Adds a group; the state of the others stays. A scheduler made before does not know it."""
        before = self.state_dict()
        self.param_groups.append(self._group(group))
        self._build()
        fresh = self.state_dict()
        self.load_state_dict(
            {"state": before["state"], "param_groups": [*before["param_groups"], fresh["param_groups"][-1]]}
        )

    def step(self) -> None:
        """Updates every parameter that has a gradient. Gradients that are not finite go into the weights: clip or scale."""
        self._push()
        self._object.call("step", "", ())

    def zero_grad(self) -> None:
        """Forgets the gradients of all parameters."""
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None

    def state_dict(self) -> dict[str, Any]:
        """{"state": {index: {"step": ..., name: array, ...}}, "param_groups": [...]} as torch.optim has it, with NumPy arrays
        for tensors; `to_torch` makes tensors of them."""
        self._push()
        text, handles = self._object.call("state", "", ())
        found = json.loads(text)
        state: dict[int, dict[str, Any]] = {int(i): dict(entry) for i, entry in found["state"]["state"].items()}
        for name, handle in zip(found["tensors"], handles, strict=True):
            _, index, key = name.split(".", 2)
            assert handle is not None
            state.setdefault(int(index), {})[key] = Tensor._of(handle).numpy()
        groups = [{**g, "betas": tuple(g["betas"])} if "betas" in g else g for g in found["state"]["param_groups"]]
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from a state of this class, or of the torch optimizer of the same name. Groups and parameters correspond
        by position. What does not fit raises ArgumentError, and then nothing has changed."""
        import numpy as np

        plain: dict[str, dict[str, Any]] = {}
        names: list[str] = []
        operands: list[Tensor] = []
        try:
            for index, entry in state["state"].items():
                kept = plain.setdefault(str(index), {})
                for key, value in entry.items():
                    if key == "step":
                        kept[key] = float(value)
                    elif value is not None:
                        names.append(f"state.{index}.{key}")
                        operands.append(Tensor(np.asarray(value), dtype="float32"))
            groups = [{k: _plain(v) for k, v in g.items()} for g in state["param_groups"]]
        except (KeyError, TypeError, AttributeError) as error:
            raise ArgumentError(
                f"state: expected torch.optim's state_dict, {{'state': ..., 'param_groups': ...}}: {error!r}"
            ) from error
        params = {"state": {"state": plain, "param_groups": groups}, "tensors": names}
        self._object.call("load_state", json.dumps(params), tuple(t._handle for t in operands))
        self._pull()

    def __repr__(self) -> str:
        lines = []
        for i, g in enumerate(self.param_groups):
            lines.append(
                f"  group {i}: {len(g['params'])} parameters, {', '.join(f'{k}={g[k]}' for k in self.defaults)}"
            )
        return f"{type(self).__name__}(\n" + "\n".join(lines) + "\n)"


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, Nesterov's included, and L2 weight decay, as torch.optim.SGD."""

    _name = "sgd"

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, "nesterov": nesterov, "maximize": maximize})


class Adam(Optimizer):
    """Adam (https://arxiv.org/abs/1412.6980) with L2 weight decay, as torch.optim.Adam."""

    _name = "adam"

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, "amsgrad": amsgrad, "maximize": maximize})


class AdamW(Adam):
    """Adam with decoupled weight decay (https://arxiv.org/abs/1711.05101), as torch.optim.AdamW."""

    _name = "adamw"

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)


class LRScheduler:
    """A schedule of the learning rate, and for some of the weight decay or the momentum.

    ``name`` is one of constant, linear, cosine, polynomial, inverse_sqrt, step, multi_step, exponential, one_cycle, wsd,
    two_stage (BitNet's recipe) and plateau; ``options`` are those of the schedule, such as total_steps, warmup_steps and
    min_ratio. Learning rates are relative to those that the groups have now. Call ``step`` after the optimizer's.

    optimizer: whose groups it changes.
    """

    def __init__(self, optimizer: Optimizer, name: str, **options: Any) -> None:
        optimizer._push()
        self.optimizer = optimizer
        self._object = _bitnet.object("scheduler", json.dumps({"name": name, **options}), (), (optimizer._object,))
        optimizer._pull()

    def step(self, metric: float | None = None) -> None:
        """Counts an update and sets the rates of the next; a metric is for "plateau", which listens to it."""
        self.optimizer._push()
        if metric is not None:
            self._object.call("observe", json.dumps(float(metric)), ())
        self._object.call("step", "", ())
        self.optimizer._pull()

    def get_last_lr(self) -> list[float]:
        """The current learning rate of each group."""
        return [float(g["lr"]) for g in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """The schedule's name and position."""
        state: dict[str, Any] = json.loads(self._object.call("state", "", ())[0])
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from a state; call it after the optimizer's. What does not fit raises ArgumentError."""
        self._object.call("load_state", json.dumps(dict(state)), ())
        self.optimizer._pull()


class GradScaler:
    """Loss scaling with overflow skip, as torch.amp.GradScaler, for one optimizer.

        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    ``mode="static"`` keeps the scale as it is."""

    def __init__(
        self,
        init_scale: float = 65536.0,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        mode: str = "dynamic",
    ) -> None:
        self._config = {
            "mode": mode,
            "init_scale": float(init_scale),
            "growth_factor": float(growth_factor),
            "backoff_factor": float(backoff_factor),
            "growth_interval": whole_number(growth_interval, "growth_interval"),
        }
        self._optimizer: Optimizer | None = None
        self._object: _bitnet.Object | None = None
        self._state: dict[str, Any] | None = None

    def _of(self, optimizer: Optimizer) -> _bitnet.Object:
        if self._object is None:
            self._object = _bitnet.object("scaler", json.dumps(self._config), (), (optimizer._object,))
            self._optimizer = optimizer
            if self._state is not None:
                self._object.call("load_state", json.dumps(self._state), ())
        elif self._optimizer is not optimizer:
            raise ArgumentError("a GradScaler serves one optimizer, and this is another")
        return self._object

    def get_scale(self) -> float:
        """The number that losses are multiplied by."""
        return float(self.state_dict()["scale"])

    def scale(self, loss: Tensor) -> Tensor:
        """The loss times the scale."""
        return loss * self.get_scale()

    def unscale_(self, optimizer: Optimizer) -> None:
        """Divides the gradients by the scale, to clip them before the step."""
        self._of(optimizer).call("unscale", "", ())

    def step(self, optimizer: Optimizer) -> bool:
        """The optimizer's step with unscaled gradients, unless one is not finite; whether it was made."""
        optimizer._push()
        return bool(json.loads(self._of(optimizer).call("step", "", ())[0]))

    def update(self) -> None:
        """Ends the step: the scale shrinks after an overflow and grows after growth_interval steps without one."""
        if self._object is None:
            raise ArgumentError("update before step")
        self._object.call("update", "", ())

    def state_dict(self) -> dict[str, Any]:
        """PyTorch's: scale, growth_factor, backoff_factor, growth_interval, _growth_tracker."""
        if self._object is not None:
            state: dict[str, Any] = json.loads(self._object.call("state", "", ())[0])
            return state
        kept = {k: v for k, v in self._config.items() if k not in ("mode", "init_scale")}
        return self._state or {"scale": self._config["init_scale"], **kept, "_growth_tracker": 0}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from a state of this class or of PyTorch's."""
        self._state = dict(state)
        if self._object is not None:
            self._object.call("load_state", json.dumps(self._state), ())


def optimizer_fields(optimizer: Optimizer, parameters: Iterable[tuple[str, Tensor]]) -> dict[str, Any]:
    """What a training run is told of an optimizer whose groups have parameters of a model."""
    optimizer._push()
    names = {id(tensor): name for name, tensor in parameters}
    groups = []
    for i, group in enumerate(optimizer.param_groups):
        for j, tensor in enumerate(group["params"]):
            if id(tensor) not in names:
                raise ArgumentError(
                    f"optimizer: param_groups[{i}]: params[{j}] is no parameter of the model: expected tensors of "
                    "model.parameters()"
                )
        listed = [names[id(tensor)] for tensor in group["params"]]
        groups.append({"name": str(group.get("name") or f"group{i}"), "hyper": _hyper(group), "params": listed})
    return {"optimizer": {"name": optimizer._name, **_hyper(optimizer.defaults)}, "groups": groups}


def clip_grad_norm_(parameters: Tensor | Iterable[Tensor], max_norm: float) -> float:
    """Scales the gradients of all parameters so that their Euclidean norm, taken as one vector, is at most max_norm, and
    returns the norm they had. A gradient that is not finite raises TrainingError, and nothing is changed."""
    return float(json.loads(_bitnet.function("clip_norm", json.dumps(float(max_norm)), _with_grad(parameters))[0]))


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Limits every element of every gradient to [-clip_value, clip_value]."""
    _bitnet.function("clip_value", json.dumps(float(clip_value)), _with_grad(parameters))


def to_torch(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state_dict of this module with torch tensors for arrays, for a torch optimizer's load_state_dict."""
    import numpy as np

    try:
        import torch
    except ImportError as missing:
        raise missing_extra("to_torch", "PyTorch", "torch") from missing

    def convert(value: Any) -> Any:
        return torch.from_numpy(value) if isinstance(value, np.ndarray) else value

    entries = {i: {k: convert(v) for k, v in entry.items()} for i, entry in state["state"].items()}
    return {"state": entries, "param_groups": [dict(g) for g in state["param_groups"]]}


def _with_grad(parameters: Tensor | Iterable[Tensor]) -> tuple[_bitnet.TensorHandle, ...]:
    listed = [parameters] if isinstance(parameters, Tensor) else parameters
    return tuple(p._handle for p in listed if p.grad is not None)


def _as_groups(params: Any) -> Sequence[Mapping[str, Any]]:
    if isinstance(params, Tensor):
        raise ArgumentError("params is one Tensor: expected a list of them, or groups")
    listed = list(params)
    if not listed:
        raise ArgumentError("params is empty: expected tensors, (name, tensor) pairs or groups")
    if isinstance(listed[0], Mapping):
        for i, group in enumerate(listed):
            if not isinstance(group, Mapping) or "params" not in group:
                raise ArgumentError(f'params[{i}]: expected a group, a dictionary with "params"')
        return listed
    return [{"params": listed}]


_NUMBERS = ("lr", "weight_decay", "momentum", "dampening", "eps")


def _hyper(group: Mapping[str, Any]) -> dict[str, Any]:
    """The hyperparameters that the core knows, as JSON has them."""
    hyper: dict[str, Any] = {}
    for key in _NUMBERS:
        if key in group:
            hyper[key] = _finite(key, group[key])
    for key in ("nesterov", "amsgrad", "maximize"):
        if key in group:
            hyper[key] = bool(group[key])
    if "betas" in group:
        hyper["betas"] = [_finite(f"betas[{i}]", b) for i, b in enumerate(group["betas"])]
        if len(hyper["betas"]) != 2:
            raise ArgumentError(f"betas = {group['betas']}: expected two numbers")
    return hyper


def _finite(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ArgumentError(f"{name} = {value!r}: expected a number") from None
    if not math.isfinite(number):
        raise ArgumentError(f"{name} = {number}: expected a finite number")
    return number


def _plain(value: Any) -> Any:
    """A value of a group as JSON has it; PyTorch may keep numbers as tensors."""
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return float(value)

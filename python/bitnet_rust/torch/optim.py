"""Optimizers of torch that go on with the state of ours, and the other way round."""

from collections.abc import Mapping
from typing import Any

import torch

from ..errors import ArgumentError
from ..optim import SGD, Adam, AdamW, Optimizer, to_torch

# Which optimizers have the same arithmetic and state.
_PAIRS: tuple[tuple[type[Optimizer], type[torch.optim.Optimizer]], ...] = (
    (AdamW, torch.optim.AdamW),
    (Adam, torch.optim.Adam),
    (SGD, torch.optim.SGD),
)


def transfer_optimizer(source: Any, target: Any) -> None:
    """Gives an optimizer the state and the hyperparameters of one of the other side: SGD, Adam or AdamW of `bitnet_rust.optim` and
    the class of the same name in torch.optim, in either direction. A run that goes on with target then is the run that source
    would have gone on with, up to the rounding of float32.

    Parameters correspond by name within groups of the same place where both optimizers were made of named parameters
    (``optim.AdamW(model.named_parameters())``), and else by their place. The parameters' values are for you to copy, see `to_torch` and
    `from_torch`. ArgumentError: the two are not a pair, or their groups differ; then nothing has changed.
    """
    kinds = [(ours, theirs) for ours, theirs in _PAIRS if _is(source, ours, theirs) and _is(target, ours, theirs)]
    if not kinds or isinstance(source, Optimizer) == isinstance(target, Optimizer):
        raise ArgumentError(
            f"transfer_optimizer({_called(source)}, {_called(target)}): expected SGD, Adam or AdamW of bitnet_rust.optim and "
            "the one of the same name of torch.optim"
        )
    state = _reordered(source.state_dict(), source, target)
    if isinstance(source, Optimizer):
        known = target.state_dict()["param_groups"]  # what torch alone has: foreach, fused and others
        groups = [dict(own) | dict(new) for own, new in zip(known, state["param_groups"], strict=True)]
        target.load_state_dict(to_torch(state) | {"param_groups": groups})
    else:
        target.load_state_dict(state)


def _is(optimizer: Any, ours: type, theirs: type) -> bool:
    return type(optimizer) in (ours, theirs)


def _called(optimizer: Any) -> str:
    return f"{type(optimizer).__module__}.{type(optimizer).__name__}"


def _reordered(state: Mapping[str, Any], source: Any, target: Any) -> dict[str, Any]:
    """The state with its parameters in the order of target."""
    sizes = [[len(g["params"]) for g in optimizer.param_groups] for optimizer in (source, target)]
    if sizes[0] != sizes[1]:
        raise ArgumentError(
            f"the groups of source have {sizes[0]} parameters, and those of target {sizes[1]}: expected as many"
        )
    entries: dict[int, Any] = {}
    groups: list[dict[str, Any]] = []
    for group, theirs, own in zip(state["param_groups"], source.param_groups, target.param_groups, strict=True):
        have, want = theirs.get("param_names"), own.get("param_names")
        numbers = list(group["params"])
        first = sum(len(g["params"]) for g in groups)
        if have and want:
            if set(have) != set(want):
                odd = sorted(set(have) ^ set(want))
                raise ArgumentError(f"parameters of one optimizer alone: {odd}: expected the same names in both")
            numbers = [numbers[have.index(name)] for name in want]
        places = list(range(first, first + len(numbers)))
        for place, number, mine, other in zip(
            places, numbers, own["params"], _ordered(theirs, have, want), strict=True
        ):
            if tuple(mine.shape) != tuple(other.shape):
                raise ArgumentError(
                    f"parameter {place} has shape {tuple(other.shape)} in source and {tuple(mine.shape)} in target: expected the same"
                )
            if number in state["state"]:
                entries[place] = state["state"][number]
        changed = {"params": places} | ({"param_names": list(want)} if want else {})
        groups.append({k: v for k, v in group.items() if k != "param_names"} | changed)
    return {"state": entries, "param_groups": groups}


def _ordered(group: Mapping[str, Any], have: Any, want: Any) -> list[Any]:
    params = list(group["params"])
    return [params[have.index(name)] for name in want] if have and want else params

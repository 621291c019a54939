"""Modules: what has parameters and parts."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self, overload

from ..autograd import no_grad
from ..errors import ArgumentError, ShapeError
from ..tensor import Tensor

if TYPE_CHECKING:
    import numpy as np


class Parameter(Tensor):
    """A leaf that an optimizer changes: as an attribute of a `Module` it is one of its parameters."""

    def __init__(self, data: Any, dtype: Any = None, requires_grad: bool = True) -> None:
        super().__init__(data, dtype, requires_grad)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), super().__reduce__()[1]


class Module:
    """Base of layers and models: a subclass sets parameters and modules as attributes, after ``super().__init__()``, and
    defines ``forward``.

    >>> from bitnet_rust import Tensor, nn
    >>> class Twice(nn.Module):
    ...     def __init__(self) -> None:
    ...         super().__init__()
    ...         self.layer = nn.Linear(3, 3)
    ...     def forward(self, x: Tensor) -> Tensor:
    ...         return self.layer(self.layer(x))
    >>> [name for name, _ in Twice().named_parameters()]
    ['layer.weight', 'layer.bias']

    training: whether it is in training mode, as ``train`` and ``eval`` set it.
    """

    training: bool
    _parameters: dict[str, Parameter | None]
    _modules: "dict[str, Module]"

    def __init__(self) -> None:
        object.__setattr__(self, "_parameters", {})
        object.__setattr__(self, "_modules", {})
        object.__setattr__(self, "training", True)

    def __setattr__(self, name: str, value: Any) -> None:
        if "_parameters" not in self.__dict__:
            if isinstance(value, Parameter | Module):
                raise ArgumentError(f"{type(self).__name__}.{name}: call super().__init__() before parts are set")
            object.__setattr__(self, name, value)
            return
        if isinstance(value, Parameter | Module):
            self.__dict__.pop(name, None)
            self._parameters.pop(name, None)
            self._modules.pop(name, None)
            if isinstance(value, Parameter):
                self._parameters[name] = value
            else:
                self._modules[name] = value
        elif name in self._parameters:
            if value is not None:
                raise ArgumentError(
                    f"{type(self).__name__}.{name}: expected a Parameter or None, found {type(value).__name__}"
                )
            self._parameters[name] = None
        else:
            self._modules.pop(name, None)
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        for table in ("_parameters", "_modules"):
            found = self.__dict__.get(table, {})
            if name in found:
                return found[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        for table in (self._parameters, self._modules):
            if name in table:
                del table[name]
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._parameters, *self._modules})

    def register_parameter(self, name: str, parameter: Parameter | None) -> None:
        """Sets a parameter that may be None, such as the bias of a layer without one."""
        if parameter is None:
            self._parameters[name] = None
        else:
            setattr(self, name, parameter)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; subclasses define it."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    # --- parts -------------------------------------------------------------------------------------------------------

    def children(self) -> "Iterator[Module]":
        """The modules that are attributes."""
        return iter(self._modules.values())

    def named_modules(self, prefix: str = "") -> "Iterator[tuple[str, Module]]":
        """This module, as "", and all below it, each once."""
        yield from self._walk(prefix, set())

    def _walk(self, prefix: str, seen: set[int]) -> "Iterator[tuple[str, Module]]":
        if id(self) in seen:
            return
        seen.add(id(self))
        yield prefix, self
        for name, part in self._modules.items():
            yield from part._walk(f"{prefix}.{name}" if prefix else name, seen)

    def modules(self) -> "Iterator[Module]":
        """This module and all below it."""
        return (m for _, m in self.named_modules())

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Every parameter with its path, such as "layers.0.weight"; one that is used twice comes once."""
        seen: set[int] = set()
        for prefix, module in self.named_modules():
            for name, p in module._parameters.items():
                if p is not None and id(p) not in seen:
                    seen.add(id(p))
                    yield (f"{prefix}.{name}" if prefix else name), p

    def parameters(self) -> Iterator[Parameter]:
        """Every parameter once."""
        return (p for _, p in self.named_parameters())

    def num_parameters(self) -> int:
        """The number of trainable numbers."""
        return sum(p.size for p in self.parameters())

    # --- state -------------------------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Self:
        """Sets training, which dropout looks at, here and below."""
        for m in self.modules():
            object.__setattr__(m, "training", bool(mode))
        return self

    def eval(self) -> Self:
        """train(False)."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Says of every parameter whether it gets a gradient."""
        for p in self.parameters():
            p.requires_grad_(requires_grad)
        return self

    def zero_grad(self) -> None:
        """Forgets the gradients of all parameters."""
        for p in self.parameters():
            p.grad = None

    def state_dict(self) -> "dict[str, np.ndarray[Any, Any]]":
        """Copies of the parameters by path, as NumPy arrays: what numpy.savez and safetensors.numpy write."""
        return {name: p.numpy() for name, p in self._all_named()}

    def _all_named(self) -> Iterator[tuple[str, Parameter]]:
        """As named_parameters, with every path of a shared parameter."""
        for prefix, module in self._paths(""):
            for name, p in module._parameters.items():
                if p is not None:
                    yield (f"{prefix}.{name}" if prefix else name), p

    def _paths(self, prefix: str) -> "Iterator[tuple[str, Module]]":
        yield prefix, self
        for name, part in self._modules.items():
            yield from part._paths(f"{prefix}.{name}" if prefix else name)

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Copies values from a state: of this class, of torch (CPU tensors do), of a file. What does not fit raises
        ArgumentError or ShapeError, and then nothing has changed; without strict, paths that only one side has are passed
        over."""
        import numpy as np

        if not isinstance(state, Mapping):
            raise ArgumentError(f"state is a {type(state).__name__}: expected arrays by path, as state_dict gives them")
        ours = dict(self._all_named())
        missing, unknown = sorted(ours.keys() - state.keys()), sorted(state.keys() - ours.keys())
        if strict and (missing or unknown):
            raise ArgumentError(f"state does not fit {type(self).__name__}: missing {missing}, unknown {unknown}")
        values = {name: np.asarray(state[name]) for name in ours if name in state}
        for name, value in values.items():
            if value.shape != ours[name].shape:
                raise ShapeError(f"{name}: found shape {value.shape}, expected {ours[name].shape}")
        with no_grad():
            for name, value in values.items():
                ours[name][...] = Tensor(value, dtype=ours[name].dtype)

    def extra_repr(self) -> str:
        """What ``repr()`` says of the module itself."""
        return ""

    def __repr__(self) -> str:
        lines = [f"({name}): {part!r}".replace("\n", "\n  ") for name, part in self._modules.items()]
        if not lines:
            return f"{type(self).__name__}({self.extra_repr()})"
        return f"{type(self).__name__}(\n  " + "\n  ".join(lines) + "\n)"


class Sequential(Module):
    """Modules one after the other: each gets what the one before returned."""

    def __init__(self, *modules: Module) -> None:
        super().__init__()
        for i, m in enumerate(modules):
            setattr(self, str(i), _checked(m))

    def forward(self, x: Any) -> Any:
        """The last module's result."""
        for m in self.children():
            x = m(x)
        return x

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    def __getitem__(self, i: int) -> Module:
        return list(self.children())[i]


class ModuleList(Module):
    """A list of modules whose parameters count; it has no forward."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        for m in modules:
            self.append(m)

    def append(self, module: Module) -> Self:
        """Adds a module at the end."""
        setattr(self, str(len(self._modules)), _checked(module))
        return self

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    @overload
    def __getitem__(self, i: int) -> Module: ...
    @overload
    def __getitem__(self, i: slice) -> "ModuleList": ...
    def __getitem__(self, i: int | slice) -> "Module | ModuleList":
        parts = list(self.children())
        return ModuleList(parts[i]) if isinstance(i, slice) else parts[i]


def _checked(module: Any) -> Module:
    if not isinstance(module, Module):
        raise ArgumentError(f"expected a Module, found {type(module).__name__}")
    return module

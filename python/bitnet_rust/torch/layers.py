"""The layers of BitNet models as modules of torch."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import nn

from ..errors import ArgumentError
from ..nn import functional as F
from ..tensor import Tensor
from .bridge import apply, in_core, tensor
from .gpt2 import is_conv1d

Estimator = Literal["identity", "clipped", "soft"]


class BitLinear(nn.Linear):
    """The ternary layer of BitNet b1.58 (https://arxiv.org/abs/2402.17764) in place of a torch.nn.Linear.

    ``weight`` [out_features, in_features] is a master weight of any float dtype. Every pass quantizes it to -1, 0, 1 times its mean
    magnitude, and the input to int8 by row; the kernels of the Go core multiply integers, the same as `BitNetModel` does.
    Gradients pass the quantizer of the input unchanged and that of the weight by the straight-through estimator ``ste``: unchanged
    ("identity"), only where |weight| is at most ``clip`` times the mean magnitude ("clipped"), or times the slope of a smooth
    ternary quantizer that ``temperature`` widens ("soft"). The result has the dtype of the input, and is computed in float32.

    In evaluation mode, where the weight gets no gradient (``torch.no_grad()``, or a frozen weight), its quantized form is kept while
    torch says that it has not changed, which ``weight.data`` hides: call ``train()`` or ``eval()`` after such a change. On another device than the CPU, and under torch.compile, torch's own operations compute the
    same formula. ``norm_eps`` gives the layer an RMSNorm of its own before the quantizer, ``rms_norm``, as Hugging Face's use_rms_norm.

    ste: the estimator.
    clip: of "clipped", in mean magnitudes, 1.5; may change between passes.
    temperature: of "soft", 0.5; may change between passes.
    rms_norm: the norm of the layer's own; None without ``norm_eps``.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        ste: Estimator = "identity",
        norm_eps: float | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, device, dtype)
        self._begin(ste, None if norm_eps is None else RMSNorm(in_features, norm_eps, device, dtype))

    def _begin(self, ste: Estimator, norm: "RMSNorm | None" = None) -> None:
        if ste not in ("identity", "clipped", "soft"):
            raise ArgumentError(f'ste = {ste!r}: expected "identity", "clipped" or "soft"')
        self.ste: Estimator = ste
        self.clip, self.temperature = 1.5, 0.5
        self.rms_norm = norm
        self._kept: tuple[Any, Tensor] | None = None  # the weight of evaluation, with what it was made of

    @classmethod
    def from_linear(cls, linear: nn.Linear, *, ste: Estimator = "identity") -> "BitLinear":
        """A layer with the parameters of another, which are shared: an optimizer that has them goes on with them."""
        layer = cls.__new__(cls)
        nn.Module.__init__(layer)
        layer.in_features, layer.out_features = linear.in_features, linear.out_features
        layer.weight, layer.bias = linear.weight, linear.bias
        layer._begin(ste)
        return layer.train(linear.training)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """input [..., in_features] to [..., out_features]."""
        x = input if self.rms_norm is None else self.rms_norm(input)
        y = self._in_core(x.float()) if in_core(x) else self._in_torch(x.float())
        if self.bias is not None:
            y = y + self.bias.float()
        return y.to(input.dtype)

    def _in_core(self, x: torch.Tensor) -> torch.Tensor:
        options: dict[str, Any] = {"ste": self.ste, "clip": self.clip, "temperature": self.temperature}
        learns = torch.is_grad_enabled() and self.weight.requires_grad  # its gradient goes to what apply hands over
        kept = None if self.training or learns else self._prepared()

        def run(x: Tensor, weight: Tensor) -> Tensor:
            return F.bit_linear(x, weight if kept is None else kept.detach(), **options)

        return apply(run, x, self.weight.float())

    def _prepared(self) -> Tensor | None:
        """A tensor over the weight that has its quantized form; None where nobody would learn of a change."""
        weight = self.weight
        if weight.is_inference():
            return None
        made_of = (weight.data_ptr(), weight._version, weight.dtype, weight.shape)
        if self._kept is None or self._kept[0] != made_of:
            self._kept = made_of, tensor(weight.float())
        return self._kept[1]

    def _in_torch(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight.float()
        with torch.no_grad():
            scale = weight.abs().mean().clamp_min(1e-5)
            ternary = (weight / scale).round().clamp(-1, 1) * scale
            steps = 127 / x.abs().amax(-1, keepdim=True).clamp_min(1e-5)
            rounded = (x * steps).round().clamp(-128, 127) / steps
            slope: Any = 1.0
            if self.ste == "clipped":
                slope = (weight.abs() <= self.clip * scale).float()
            elif self.ste == "soft":
                u = weight / scale
                halves = [torch.tanh((u + shift) / self.temperature) for shift in (-0.5, 0.5)]
                slope = sum(1 - t.square() for t in halves) / (2 * self.temperature)
        passed = weight * slope
        return nn.functional.linear(x + (rounded - x).detach(), passed + (ternary - passed).detach())

    def train(self, mode: bool = True) -> "BitLinear":
        """Training or evaluation; forgets the quantized weight that evaluation keeps."""
        self._kept = None
        super().train(mode)
        return self

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": None}

    def extra_repr(self) -> str:
        """Sizes and estimator."""
        return f"{super().extra_repr()}, ste={self.ste!r}"


class Linear(nn.Linear):
    """A layer that stays float, with the products that float layers of a `BitNetModel` have: equal to the bit."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """input [..., in_features] to [..., out_features]."""
        y = float_linear(input, self.weight)
        return y if self.bias is None else y + self.bias


def float_linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """x [..., in] times weight [out, in] transposed, by the core where it can."""
    if not in_core(x):
        return nn.functional.linear(x, weight)
    return apply(F.linear, x.float(), weight.float()).to(x.dtype)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last axis (https://arxiv.org/abs/1910.07467), computed by the core in
    float32.

    weight: [dim].
    eps: as given.
    """

    def __init__(self, dim: int, eps: float = 1e-5, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim, device=device, dtype=dtype))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., dim], the same shape."""
        if not in_core(x):
            return nn.functional.rms_norm(x.float(), self.weight.shape, self.weight.float(), self.eps).to(x.dtype)
        return apply(lambda x, w: F.rms_norm(x, w, self.eps), x.float(), self.weight.float()).to(x.dtype)

    def extra_repr(self) -> str:
        """Size and eps."""
        return f"{self.weight.shape[0]}, eps={self.eps}"


class LayerNorm(nn.LayerNorm):
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last axis (https://arxiv.org/abs/1607.06450), computed by the core as
    the models' norms are."""

    def __init__(self, dim: int, eps: float = 1e-5, device: Any = None, dtype: Any = None) -> None:
        super().__init__(dim, eps, device=device, dtype=dtype)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """input [..., dim], the same shape."""
        if not in_core(input):
            return super().forward(input)
        norm = apply(
            lambda x, w, b: F.layer_norm(x, w, b, self.eps), input.float(), self.weight.float(), self.bias.float()
        )
        return norm.to(input.dtype)


def replace_linear(
    module: nn.Module, filter: Callable[[str, nn.Linear], bool] | None = None, *, ste: Estimator = "identity"
) -> nn.Module:
    """Makes every torch.nn.Linear below module a `BitLinear` over the same parameters, in place, and returns the module, or what
    replaces it if it is a Linear itself.

    filter: says of a layer, by its path and itself, whether it is replaced. By default all are but the output head, whose path ends in
        "lm_head" or "embed_out", or whose weight is also that of an Embedding. Layers that are of a subclass of Linear stay as they are.
    ste: the straight-through estimator, see `BitLinear`.

    A module that was trained in floats has to be trained again before it is good for anything. ArgumentError: nothing was replaced, or, without a
    filter, something would stay: a Conv1D, as transformers' GPT-2 has.
    """
    tables = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}

    def wanted(path: str, linear: nn.Linear) -> bool:
        if filter is not None:
            return filter(path, linear)
        return path.rpartition(".")[2] not in ("lm_head", "embed_out") and id(linear.weight) not in tables

    chosen = {path: part for path, part in module.named_modules() if type(part) is nn.Linear and wanted(path, part)}
    turned = next((path for path, part in module.named_modules() if is_conv1d(part)), None)
    if turned is not None and (filter is None or not chosen):
        raise ArgumentError(
            f"replace_linear: {turned} is a Conv1D, whose matrix is [in, out], and a BitLinear could not share it: put a torch.nn.Linear in the "
            'place of each, or make a BitNetModel with from_torch(module, ternary="all", trainable=True)'
        )
    if not chosen:
        raise ArgumentError(f"replace_linear: {type(module).__name__} has no torch.nn.Linear that the filter takes")
    made = {id(part): BitLinear.from_linear(part, ste=ste) for part in chosen.values()}
    if "" in chosen:
        return made[id(module)]
    for parent in list(module.modules()):
        for name, part in list(parent.named_children()):
            if id(part) in made:
                setattr(parent, name, made[id(part)])
    return module

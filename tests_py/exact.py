"""A model in float64, to tell ties from defects.

Activations become integers, and one that lies on a rounding tie may fall to either side: any two programs order their sums of float32 in
ways of their own. It moves by a whole step then, and logits by up to a tenth, which is more than many a defect does. So nothing is said
about how far programs are apart; what they compute has to be what is computed here, to the last digits of float32, with one side or the
other taken at ties and nowhere else.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from bitnet_rust import BitNetModel

BESIDE = 1e-4
"""How near to a half counts as a tie, in steps of integers that go to 127: a dozen units in the last place of the largest ones as float32,
whose inputs are sums with roundings of their own. The furthest in 300 prompts was 4e-5."""


class Tie(NamedTuple):
    """An activation that took the other side: of which token, before which layer (and others that read the same), and its size in steps.
    Those of one size go together: of the first token of a Llama, heads that share keys and values have equal outputs."""

    token: int
    layer: str
    size: float


class Exact:
    """Logits of a Llama or BitNet without biases, of its default positions.

    activations: what linear layers read. "int8": rows, as BitNet has them. "q8_k": blocks of 256, as llama.cpp has them for TQ1_0 and TQ2_0.
    A float type: rounded to it, as llama.cpp does for weights of that type.
    scale: the float type that the scales of weights are rounded to.
    """

    def __init__(self, model: BitNetModel, activations: Any = "int8", scale: Any = np.float32) -> None:
        self.config, self.activations = model.config, activations
        self.weights = {w.name: model.weight(w.name).numpy().astype(np.float64) for w in model.weights()}
        self.scales = {w.name: float(np.float32(w.scale).astype(scale)) for w in model.weights() if w.scale is not None}
        self.eps = float(np.float32(model.config.rms_norm_eps))
        dim = model.config.head_dim
        theta = model.config.rope_parameters["rope_theta"]
        self.frequencies = (1 / np.float32(theta) ** (np.arange(0, dim, 2, dtype=np.float32) / dim)).astype(np.float32)

    def explain(self, ids: Any, logits: Any, within: float) -> list[Tie]:
        """The ties at which these logits [T, V] took the other side; every one of them is within that of what is computed here. An
        AssertionError says which row no choice explains."""
        reached = 0

        def walk(token: int, cache: list[Any]) -> list[Tie] | None:
            nonlocal reached
            reached = max(reached, token)
            if token == len(ids):
                return []
            for ties, then in self._choices(int(ids[token]), cache, logits[token], within):
                if (rest := walk(token + 1, then)) is not None:
                    return [*ties, *rest]
            return None

        kv, dim = self.config.num_key_value_heads, self.config.head_dim
        found = walk(0, [(np.zeros((0, kv, dim)),) * 2 for _ in range(self.config.num_hidden_layers)])
        assert found is not None, f"no ties explain the logits of token {reached}"
        return found

    def _choices(
        self, token: int, cache: list[Any], logits: Any, within: float
    ) -> Iterator[tuple[list[Tie], list[Any]]]:
        """What may have been chosen at ties of a row, fewest first: those that give its logits, and keys and values with it."""
        waiting, seen = [frozenset[Tie]()], set()
        while waiting:
            turned = waiting.pop(0)
            row = _Row(self, cache, turned)
            if np.abs(row.logits(token) - logits).max() < within:
                yield [*turned], row.cache
            for tie in row.ties if len(turned) < 3 else ():
                more = turned | {tie}
                if more not in seen:
                    seen.add(more)
                    waiting.append(more)


class _Row:
    """A token's pass, behind those whose keys and values are there, with the ties in turned taken to the other side."""

    def __init__(self, exact: Exact, cache: list[Any], turned: frozenset[Tie]) -> None:
        self.exact, self.config, self.weights = exact, exact.config, exact.weights
        self.past, self.turned = cache, turned
        self.cache: list[Any] = []
        self.ties: list[Tie] = []

    def logits(self, token: int) -> Any:
        config, weights = self.config, self.weights
        heads, kv, dim = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        x = weights["model.embed_tokens.weight"][token]
        for layer, (keys, values) in enumerate(self.past):
            p = f"model.layers.{layer}"
            h = self._norm(x, f"{p}.input_layernorm")
            q, k, v = self._linear(h, *(f"{p}.self_attn.{name}_proj" for name in "qkv"))
            keys = np.concatenate([keys, self._turn(k.reshape(1, kv, dim))])
            values = np.concatenate([values, v.reshape(1, kv, dim)])
            self.cache.append((keys, values))
            scores = np.einsum("kgd,tkd->kgt", self._turn(q.reshape(kv, heads // kv, dim)), keys) / np.sqrt(dim)
            e = np.exp(scores - scores.max(-1, keepdims=True))
            h = np.einsum("kgt,tkd->kgd", e / e.sum(-1, keepdims=True), values).ravel()
            x = x + self._linear(self._norm(h, f"{p}.self_attn.attn_sub_norm"), f"{p}.self_attn.o_proj")[0]
            h = self._norm(x, f"{p}.post_attention_layernorm")
            gate, up = self._linear(h, f"{p}.mlp.gate_proj", f"{p}.mlp.up_proj")
            gate = np.maximum(gate, 0) ** 2 if config.hidden_act == "relu2" else gate / (1 + np.exp(-gate))
            x = x + self._linear(self._norm(gate * up, f"{p}.mlp.ffn_sub_norm"), f"{p}.mlp.down_proj")[0]
        return weights.get("lm_head.weight", weights["model.embed_tokens.weight"]) @ self._norm(x, "model.norm")

    def _norm(self, x: Any, name: str) -> Any:
        """The norm of that name, if there is one."""
        weight = self.weights.get(f"{name}.weight")
        return x if weight is None else x / np.sqrt((x * x).mean() + self.exact.eps) * weight

    def _turn(self, x: Any) -> Any:
        """Rotary positions, of angles that are products of float32 as in transformers."""
        angles = (np.float32(len(self.past[0][0])) * self.exact.frequencies).astype(np.float64)
        low, high = np.split(x, 2, -1)
        cos, sin = np.cos(angles), np.sin(angles)
        return np.concatenate([low * cos - high * sin, high * cos + low * sin], -1)

    def _linear(self, x: Any, *names: str) -> list[Any]:
        """What layers make of x: sums of integers, block by block where x has blocks with steps of their own."""
        x, steps = self._rounded(x, names[0])
        outputs = []
        for name in names:
            codes = self.weights[f"{name}.weight"]
            sums = codes.reshape(len(codes), *x.shape).swapaxes(0, 1) @ x[..., None]  # [blocks, out, 1]
            outputs.append((sums[..., 0] / steps[:, None]).sum(0) * self.exact.scales[f"{name}.weight"])
        return outputs

    def _rounded(self, x: Any, layers: str) -> tuple[Any, Any]:
        """x [blocks, n] and what it was multiplied by, [blocks]."""
        if self.exact.activations == "int8":
            x = x[None]
            steps = 127 / np.maximum(np.abs(x).max(-1), 1e-5)
        elif self.exact.activations == "q8_k":
            x = x.reshape(-1, 256)
            steps = -127 / np.take_along_axis(x, np.abs(x).argmax(-1, keepdims=True), -1)[:, 0]
        else:
            return x[None].astype(self.exact.activations).astype(np.float64), np.ones(1)
        values = x * steps[:, None]
        rounded = np.clip(np.round(values), -128, 127)
        for at in zip(*np.nonzero(np.abs(values - np.floor(values) - 0.5) < BESIDE), strict=True):
            tie = Tie(len(self.past[0][0]), layers, abs(float(values[at])))
            self.ties.append(tie)
            if tie in self.turned:
                rounded[at] = np.floor(values[at]) + np.ceil(values[at]) - rounded[at]
        return rounded, steps

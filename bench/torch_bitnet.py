"""A BitNet b1.58 character model in PyTorch: the peer that training is compared with.

Pre-norm blocks with sub-norms before the output projections, rotary positions, a gate with squared ReLU and a tied
embedding, as in BitNet b1.58 2B-4T. ``BitLinear`` quantizes in float32 with straight-through gradients; ``nn.Linear``
in its place gives the float model of the same shape. Nothing here imports bitnet_rust.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class Shape:
    layers: int
    heads: int
    hidden: int
    intermediate: int
    context: int
    batch: int


# A: 10.7 million parameters, the char model of nanoGPT. B: 0.86 million, its small sibling for laptops.
SHAPES = {"A": Shape(6, 6, 384, 1024, 256, 16), "B": Shape(4, 4, 128, 384, 64, 12)}


class BitLinear(nn.Linear):
    """Absmean ternary weights, absmax int8 activations for each token, straight-through gradients."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", enabled=False):
            w, x = self.weight, x.float()
            scale = 1.0 / w.abs().mean().clamp(min=1e-5)
            wq = w + ((w * scale).round().clamp(-1, 1) / scale - w).detach()
            s = 127.0 / x.abs().amax(dim=-1, keepdim=True).clamp(min=1e-5)
            xq = x + ((x * s).round().clamp(-128, 127) / s - x).detach()
        return F.linear(xq, wq)


class RMSNorm(nn.Module):
    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        f = x.float()
        return (f * torch.rsqrt(f.pow(2).mean(-1, keepdim=True) + self.eps)).to(x.dtype) * self.weight


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-b, a), dim=-1) * sin


class Block(nn.Module):
    def __init__(self, shape: Shape, linear: type[nn.Linear]) -> None:
        super().__init__()
        d, f = shape.hidden, shape.intermediate
        self.heads = shape.heads
        self.input_norm, self.post_norm = RMSNorm(d), RMSNorm(d)
        self.attn_sub_norm, self.ffn_sub_norm = RMSNorm(d), RMSNorm(f)
        self.q, self.k, self.v, self.o = (linear(d, d, bias=False) for _ in range(4))
        self.gate, self.up = linear(d, f, bias=False), linear(d, f, bias=False)
        self.down = linear(f, d, bias=False)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        b, t, d = x.shape
        y = self.input_norm(x)
        q, k, v = (p(y).view(b, t, self.heads, -1).transpose(1, 2) for p in (self.q, self.k, self.v))
        q, k = rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(self.attn_sub_norm(y.transpose(1, 2).reshape(b, t, d)))
        y = self.post_norm(x)
        return x + self.down(self.ffn_sub_norm(F.relu(self.gate(y)).square() * self.up(y)))


class Model(nn.Module):
    """The loss of a batch: forward(ids [b, t], targets [b, t]) is the mean cross-entropy in nats."""

    def __init__(self, shape: Shape, vocab: int, ternary: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab, shape.hidden)
        self.blocks = nn.ModuleList(Block(shape, BitLinear if ternary else nn.Linear) for _ in range(shape.layers))
        self.norm = RMSNorm(shape.hidden)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                residual = name.endswith(("o.weight", "down.weight"))
                nn.init.normal_(p, 0.0, 0.02 / math.sqrt(2 * shape.layers) if residual else 0.02)
        dim = shape.hidden // shape.heads
        frequency = 1.0 / (10000.0 ** (torch.arange(0, dim, 2).float() / dim))
        angle = torch.outer(torch.arange(shape.context).float(), frequency)
        angle = torch.cat((angle, angle), -1)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def forward(self, ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        x = self.embedding(ids)
        t = ids.shape[1]
        for block in self.blocks:
            x = block(x, self.cos[:t], self.sin[:t])
        logits = F.linear(self.norm(x), self.embedding.weight)
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


class Run:
    """Training as both sides do it: AdamW, decay on matrices, warm-up and cosine to a tenth, gradients clipped to norm 1."""

    WEIGHT_DECAY, BETAS, EPS, CLIP, WARMUP, MIN_RATIO = 0.1, (0.9, 0.95), 1e-8, 1.0, 100, 0.1

    def __init__(
        self, shape: Shape, data: torch.Tensor, vocab: int, *, ternary: bool, steps: int, seed: int,
        learning_rate: float = 1e-3, compiled: bool = False, bf16: bool = False,
    ) -> None:  # fmt: skip
        torch.manual_seed(seed)
        self.shape, self.data, self.steps, self.learning_rate, self.bf16 = shape, data, steps, learning_rate, bf16
        self.order = torch.Generator().manual_seed(seed)
        self.model = Model(shape, vocab, ternary)
        matrices = [p for p in self.model.parameters() if p.dim() >= 2]
        vectors = [p for p in self.model.parameters() if p.dim() < 2]
        groups = [{"params": matrices, "weight_decay": self.WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=learning_rate, betas=self.BETAS, eps=self.EPS)
        self.forward = torch.compile(self.model) if compiled else self.model

    def rate(self, step: int) -> float:
        if step < self.WARMUP:
            return self.learning_rate * (step + 1) / (self.WARMUP + 1)
        done = min(1.0, (step - self.WARMUP) / max(1, self.steps - self.WARMUP))
        low = self.MIN_RATIO * self.learning_rate
        return low + 0.5 * (self.learning_rate - low) * (1 + math.cos(math.pi * done))

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        t = self.shape.context
        at = torch.randint(len(self.data) - t, (self.shape.batch,), generator=self.order)
        return torch.stack([self.data[i : i + t] for i in at]), torch.stack([self.data[i + 1 : i + 1 + t] for i in at])

    def step(self, step: int) -> float:
        """One update; the loss before it."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(step)
        ids, targets = self.batch()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bf16):
            loss = self.forward(ids, targets)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.CLIP)
        self.optimizer.step()
        return loss.item()

    @torch.no_grad()
    def evaluate(self, data: torch.Tensor) -> float:
        """The mean loss over all windows of data, one behind the other."""
        t = self.shape.context
        windows = (len(data) - 1) // t
        ids, targets = data[: windows * t].view(windows, t), data[1 : windows * t + 1].view(windows, t)
        self.model.eval()
        total = sum(
            self.model(ids[i : i + 64], targets[i : i + 64]).item() * len(ids[i : i + 64])
            for i in range(0, windows, 64)
        )
        self.model.train()
        return total / windows


def characters(text: str) -> tuple[torch.Tensor, int]:
    """The ids of a text's characters in sorted order, and how many different ones there are."""
    table = {c: i for i, c in enumerate(sorted(set(text)))}
    return torch.tensor([table[c] for c in text], dtype=torch.int64), len(table)

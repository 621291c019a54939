"""Records twenty training steps of a small BitNet in PyTorch, for the trainer's tests.

Run by hand where torch is installed: ``python tests_py/record/train_steps.py tests_go/testdata/train/steps.npz``.

The model is that of BitNet b1.58 2B-4T (pre-norm, sub-norms, rotary positions, squared-ReLU gate, tied embedding) with
absmean ternary weights, absmax int8 activations and straight-through gradients, all in float32. The file holds the
initial weights under their checkpoint names, the token batches, the loss of every step and the gradients of the first;
the optimizer is AdamW without weight decay on vectors and with a linear warm-up, gradients clipped to norm 1.
"""

import sys

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

LAYERS, HEADS, HIDDEN, FFN, VOCAB, LENGTH, BATCH, STEPS = 2, 4, 64, 160, 61, 48, 4, 20
LEARNING_RATE, WARMUP, WEIGHT_DECAY = 1e-3, 100, 0.1


class BitLinear(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        m = self.weight.abs().mean().clamp(min=1e-5)
        w = self.weight + ((self.weight / m).round().clamp(-1, 1) * m - self.weight).detach()
        s = 127.0 / x.abs().amax(dim=-1, keepdim=True).clamp(min=1e-5)
        q = x + ((x * s).round().clamp(-128, 127) / s - x).detach()
        return F.linear(q, w)


class RMSNorm(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (BitLinear(HIDDEN, HIDDEN, bias=False) for _ in range(4))
        self.attn_sub_norm = RMSNorm(HIDDEN)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        b, t, _ = x.shape
        q, k, v = (p(x).view(b, t, HEADS, -1).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))

        def turn(y: torch.Tensor) -> torch.Tensor:
            lo, hi = y.chunk(2, dim=-1)
            return y * cos + torch.cat((-hi, lo), dim=-1) * sin

        y = F.scaled_dot_product_attention(turn(q), turn(k), v, is_causal=True)
        return self.o_proj(self.attn_sub_norm(y.transpose(1, 2).reshape(b, t, HIDDEN)))


class FeedForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = BitLinear(HIDDEN, FFN, bias=False), BitLinear(HIDDEN, FFN, bias=False)
        self.down_proj = BitLinear(FFN, HIDDEN, bias=False)
        self.ffn_sub_norm = RMSNorm(FFN)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.ffn_sub_norm(F.relu(self.gate_proj(x)).square() * self.up_proj(x)))


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = RMSNorm(HIDDEN), RMSNorm(HIDDEN)
        self.self_attn, self.mlp = Attention(), FeedForward()

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(VOCAB, HIDDEN)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = RMSNorm(HIDDEN)
        for p in self.parameters():
            if p.dim() == 2:
                nn.init.normal_(p, 0.0, 0.02)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        half = torch.arange(0, HIDDEN // HEADS, 2).float() / (HIDDEN // HEADS)
        angle = torch.outer(torch.arange(ids.shape[1]).float(), 1.0 / 10000.0**half)
        angle = torch.cat((angle, angle), -1)
        x = self.embed_tokens(ids)
        for layer in self.layers:
            x = layer(x, angle.cos(), angle.sin())
        return F.linear(self.norm(x), self.embed_tokens.weight)


def main(path: str) -> None:
    torch.manual_seed(1)
    torch.set_num_threads(1)
    model = Model()
    names = {f"model.{n}": p for n, p in model.named_parameters()}
    out = {f"weight/{n}": p.detach().numpy().copy() for n, p in names.items()}
    # Tokens with something to learn: each mostly follows from the one before.
    rng = np.random.default_rng(1)
    follow = rng.permutation(VOCAB)
    ids = np.empty((STEPS, BATCH, LENGTH + 1), np.int64)
    ids[:, :, 0] = rng.integers(VOCAB, size=(STEPS, BATCH))
    for t in range(LENGTH):
        noise = rng.random((STEPS, BATCH)) < 0.2
        ids[:, :, t + 1] = np.where(noise, rng.integers(VOCAB, size=(STEPS, BATCH)), follow[ids[:, :, t]])
    matrices = [p for p in names.values() if p.dim() == 2]
    vectors = [p for p in names.values() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.95), eps=1e-8)
    losses, norms = [], []
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (step + 1) / (WARMUP + 1)
        batch = torch.from_numpy(ids[step])
        loss = F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            out |= {f"grad/{n}": p.grad.numpy().copy() for n, p in names.items()}
        norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), 1.0)))
        optimizer.step()
        losses.append(loss.item())
    out |= {"ids": ids, "losses": np.array(losses), "norms": np.array(norms)}
    np.savez_compressed(path, **out)
    print("losses", " ".join(f"{v:.4f}" for v in losses))


if __name__ == "__main__":
    main(sys.argv[1])

"""Records the loss of distillation and its gradients in PyTorch, for the tests of the head's chunked loss.

    python tests_py/record/distill.py [FILE]        (default: tests_go/testdata/train/distill.npz)

needs torch. Hinton et al. 2015: (1 - alpha) * cross-entropy + alpha * T^2 * KL(teacher_T || student_T), summed over the
positions that count; the student's logits are a linear map of its normalized hidden states, as a language model's head.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
import torch.nn.functional as F

ROWS, DIM, TEACHER_DIM, VOCAB, IGNORE = 300, 24, 40, 77, -100  # more rows than a chunk of the loss has
ALPHA, TEMPERATURE, SCALE = 0.3, 2.5, 0.01


def norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * weight


def main(path: str) -> None:
    torch.manual_seed(5)
    torch.set_num_threads(1)
    x, weight, head = torch.randn(ROWS, DIM), 1 + 0.1 * torch.randn(DIM), torch.randn(VOCAB, DIM) * 0.3
    t, t_weight, t_head = (
        torch.randn(ROWS, TEACHER_DIM),
        1 + 0.1 * torch.randn(TEACHER_DIM),
        torch.randn(VOCAB, TEACHER_DIM) * 0.3,
    )
    targets = torch.randint(VOCAB, (ROWS,))
    targets[::7] = IGNORE
    out = {"x": x, "weight": weight, "head": head, "t": t, "t_weight": t_weight, "t_head": t_head, "targets": targets}
    out = {k: v.numpy().copy() for k, v in out.items()}

    leaves = [v.clone().requires_grad_() for v in (x, weight, head)]
    z = F.linear(norm(leaves[0], leaves[1]), leaves[2])
    q = F.linear(norm(t, t_weight), t_head)
    counts = targets != IGNORE
    nats = F.cross_entropy(z, targets, ignore_index=IGNORE, reduction="none")
    kl = (
        F.kl_div(
            F.log_softmax(z / TEMPERATURE, -1), F.log_softmax(q / TEMPERATURE, -1), log_target=True, reduction="none"
        ).sum(-1)
        * counts
    )
    loss = (1 - ALPHA) * nats.sum() + ALPHA * TEMPERATURE**2 * kl.sum()
    (SCALE * loss).backward()
    out |= {"nats": nats.detach().numpy(), "kl": kl.detach().numpy()}
    out |= {f"d_{k}": v.grad.numpy() for k, v in zip(("x", "weight", "head"), leaves, strict=True)}
    out |= {"alpha": np.float32(ALPHA), "temperature": np.float32(TEMPERATURE), "scale": np.float32(SCALE)}
    np.savez_compressed(path, **out)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "tests_go/testdata/train/distill.npz")

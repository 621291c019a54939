"""Records what PyTorch's two ONNX exporters make of a small Llama, and the logits of the model that was exported.

Needs torch, transformers, onnx and onnxscript. Writes tests_go/testdata/onnx/:

- torchscript.onnx: torch.onnx.export(dynamo=False), as Optimum's exports are made: weights of linears are onnx::MatMul_123 there
- dynamo.onnx: dynamo=True, the default of today: they are val_123, and a node's metadata says which module it is of. Its head is tied
- logits.npz: input_ids [8], and logits [8, 40] of each model

What names the machine is taken out: where in which file a node came from.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
import torch
from transformers import LlamaConfig, LlamaForCausalLM

FOLDER = Path(__file__).resolve().parents[2] / "tests_go" / "testdata" / "onnx"
INPUTS = ("input_ids", "attention_mask", "position_ids")


def llama(tied: bool) -> LlamaForCausalLM:
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        attention_bias=True,
        rms_norm_eps=1e-5,
        tie_word_embeddings=tied,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
        attn_implementation="eager",
    )
    model = LlamaForCausalLM(config).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
        elif "bias" in name:
            torch.nn.init.normal_(parameter, std=0.1)
        else:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


class Prompt(torch.nn.Module):
    """The model without a cache."""

    def __init__(self, model: LlamaForCausalLM) -> None:
        super().__init__()
        self.model, self.lm_head = model.model, model.lm_head

    def forward(self, input_ids, attention_mask, position_ids):
        hidden = self.model(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, use_cache=False
        )
        return self.lm_head(hidden.last_hidden_state)


def export(model: LlamaForCausalLM, ids: torch.Tensor, path: Path, dynamo: bool) -> None:
    if dynamo:
        sizes = {"dynamic_shapes": ({0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")},) * len(INPUTS)}
    else:
        sizes = {"dynamic_axes": {name: {0: "batch", 1: "sequence"} for name in INPUTS}}
    torch.onnx.export(
        Prompt(model),
        (ids[None], torch.ones_like(ids)[None], torch.arange(len(ids))[None]),
        path,
        input_names=list(INPUTS),
        output_names=["logits"],
        dynamo=dynamo,
        opset_version=18,
        external_data=False,
        **sizes,
    )
    exported = onnx.load(path)
    del exported.graph.value_info[:]
    for node in exported.graph.node:
        node.doc_string = ""
        kept = [entry for entry in node.metadata_props if entry.key == "pkg.torch.onnx.name_scopes"]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    for value in (*exported.graph.input, *exported.graph.output, exported.graph):
        del value.metadata_props[:]
    onnx.save(exported, path)


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    ids = torch.tensor([3, 1, 39, 7, 7, 22, 0, 15])
    recorded = {"input_ids": ids.numpy()}
    for name, dynamo in (("torchscript", False), ("dynamo", True)):
        model = llama(tied=dynamo)
        export(model, ids, FOLDER / f"{name}.onnx", dynamo)
        with torch.no_grad():
            recorded[name] = model(ids[None]).logits[0].numpy()
    np.savez(FOLDER / "logits.npz", **recorded)


if __name__ == "__main__":
    sys.exit(main())

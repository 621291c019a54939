"""The passes of a trainable model as operations with a history, for training loops of one's own."""

import json
from array import array
from collections.abc import Sequence
from typing import Any, TypedDict

from . import _bitnet
from .arrays import batch_ids, is_batch, token_ids
from .autograd import _recording
from .errors import ArgumentError, ShapeError
from .tensor import Tensor


class PassOptions(TypedDict, total=False):
    """What a forward pass of training may do beyond inference; names and defaults are the Trainer's.

    dropout: share of the elements of the embedding's output and of each residual branch that is dropped.
    attention_dropout: share of the attention probabilities that is dropped.
    seed: of dropout.
    step: number of the update, from 0: another one drops other elements.
    gradient_checkpointing: compute activations again in the backward pass instead of keeping them.
    ste: how gradients pass the quantizer: "identity", "clipped", "soft" or "learned_scale".
    ste_clip: of "clipped", in scales from zero; 0 is 1.5.
    ste_temperature: of "soft"; 0 is 0.5.
    """

    dropout: float
    attention_dropout: float
    seed: int
    step: int
    gradient_checkpointing: bool
    ste: str
    ste_clip: float
    ste_temperature: float


class ModelGraph:
    """One model's parameters and passes.

    parameters: the master weights by their names in a checkpoint.
    """

    def __init__(self, model: _bitnet.Model) -> None:
        from .nn.module import Parameter

        self.parameters: dict[str, Parameter] = {}
        self._object = _bitnet.object("model_grad", "", (), (model,))
        names, handles = self._object.call("parameters", "", ())
        for name, handle in zip(json.loads(names), handles, strict=True):
            assert handle is not None
            self.parameters[name] = Parameter._of(handle)

    def logits(self, tokens: Any, lengths: Any, options: PassOptions) -> Tensor:
        """[T, V] for one sequence, [B, T, V] for a batch; zero beyond a row's length."""
        single = not is_batch(tokens)
        rows = _rows(tokens, lengths)
        flat = self._pass("logits", rows, [], options)
        longest = max(map(len, rows))
        if not single and hasattr(tokens, "shape"):
            longest = int(tokens.shape[1])
        if all(len(row) == longest for row in rows):
            return flat if single else flat.reshape(len(rows), longest, -1)
        out, at = [], 0
        for row in rows:
            part = flat[at : at + len(row)]
            at += len(row)
            padding = Tensor.zeros((longest - len(row), flat.shape[-1]))
            out.append(Tensor.concat([part, padding]) if len(row) < longest else part)
        return out[0] if single else Tensor.stack(out)

    def loss(self, tokens: Any, targets: Any, lengths: Any, options: PassOptions) -> Tensor:
        """The mean cross-entropy in nats."""
        rows = _rows(tokens, lengths)
        if targets is None:
            if min(map(len, rows)) < 2:
                raise ArgumentError("tokens: expected at least two in each row, or targets")
            return self._pass("loss", [row[:-1] for row in rows], [row[1:] for row in rows], options)
        wanted = _rows(targets, lengths)
        if [len(row) for row in wanted] != [len(row) for row in rows]:
            raise ShapeError(
                f"targets: found rows of {[len(row) for row in wanted]}, expected those of tokens, {[len(row) for row in rows]}"
            )
        return self._pass("loss", rows, wanted, options)

    def _pass(
        self, method: str, rows: "Sequence[array[int]]", targets: "Sequence[array[int]]", options: PassOptions
    ) -> Tensor:
        params = {**options, "lengths": [len(row) for row in rows], "record": _recording.get()}
        operands = (_flat(rows), _flat(targets)) if targets else (_flat(rows),)
        handle = self._object.call(method, json.dumps(params), operands)[1][0]
        assert handle is not None
        return Tensor._of(handle)


def _rows(tokens: Any, lengths: Any) -> "Sequence[array[int]]":
    if not is_batch(tokens):
        rows: Sequence[array[int]] = [token_ids(tokens)]
        return rows if lengths is None else [rows[0][: token_ids(lengths)[0]]]
    return batch_ids(tokens, lengths)


def _flat(rows: "Sequence[array[int]]") -> _bitnet.TensorHandle:
    ids = array("i")
    for row in rows:
        ids.extend(row)
    return _bitnet.tensor(json.dumps({"dtype": "int32", "shape": [len(ids)]}), ids)

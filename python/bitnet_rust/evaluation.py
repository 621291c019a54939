"""How well a model predicts a dataset, computed by the engine that generates text."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _bitnet
from .datasets import DataOptions, make_dataset
from .progress import Progress, progress_of
from .texts import documents
from .token_file import SUFFIXES
from .training_config import TrainingConfig

if TYPE_CHECKING:
    from .model import BitNetModel


def evaluate(
    model: "BitNetModel",
    data: Any,
    *,
    context_length: int | None = None,
    packing: bool | None = None,
    isolate_documents: bool = False,
    progress: Progress | bool | None = None,
) -> dict[str, Any]:
    """See BitNetModel.evaluate."""
    paths = data if isinstance(data, list) else [data]
    if all(isinstance(path, Path) and (path.suffix not in SUFFIXES or path.is_dir()) for path in paths):
        data = [text for path in paths for text in documents(path, "data")]
    length = TrainingConfig(context_length=context_length).length(model.config.max_position_embeddings)
    options = DataOptions(length, model.config.vocab_size, lambda: model.tokenizer, packing, isolate_documents)
    made = make_dataset(data, "data", options)
    with progress_of(progress, "evaluating", "count") as told:
        nats, targets, correct = _bitnet.evaluate(model._model, made, told)
    loss = nats / targets
    result = {
        "loss": loss,
        "perplexity": math.exp(min(loss, 700.0)),
        "accuracy": correct / targets,
        "tokens": targets,
        "context_length": length,
    }
    texts = [data] if isinstance(data, str) else data if isinstance(data, list) and isinstance(data[0], str) else None
    if texts is not None:
        bits = loss / math.log(2) * json.loads(made.info())["tokens"]
        result["bits_per_byte"] = bits / sum(len(text.encode()) for text in texts)
        result["bits_per_character"] = bits / sum(map(len, texts))
    return result

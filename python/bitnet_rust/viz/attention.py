"""Maps of attention."""

import math
from os import PathLike
from typing import TYPE_CHECKING, Any

from ..arrays import token_ids, whole_number
from ..errors import ArgumentError, TokenizerError
from .figures import finished, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..model import BitNetModel

_MOST_LABELS = 40
_MOST_TOKENS = 512


def attention_map(
    model: "BitNetModel",
    prompt: Any,
    *,
    layer: int = 0,
    head: int | None = None,
    path: str | PathLike[str] | None = None,
) -> "Figure":
    """Draws what each token of a prompt attends to in a layer: a row for each token, a column for each token before it.

    prompt: a text or token ids, at most 512 tokens.
    layer: its number, from 0.
    head: one head, from 0; None draws all, side by side.
    path: where to write the figure.
    """
    number = whole_number(layer, "layer", range(model.config.num_hidden_layers))
    heads = model.config.num_attention_heads
    chosen = list(range(heads)) if head is None else [whole_number(head, "head", range(heads))]
    ids = list(model._prompt_ids(prompt, "prompt", True))
    if len(ids) > _MOST_TOKENS:
        raise ArgumentError(f"prompt has {len(ids)} tokens: expected at most {_MOST_TOKENS}, whose map can be read")
    weights = model.attentions(ids, number)[0]
    columns = math.ceil(math.sqrt(len(chosen)))
    rows = math.ceil(len(chosen) / columns)
    edge = 6 if len(chosen) == 1 else 2.6
    figure = new_figure(min(16, edge * columns + 1), min(16, edge * rows + 0.5))
    places: Any = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes in places.flat[len(chosen) :]:
        axes.set_axis_off()
    for axes, one in zip(places.flat, chosen, strict=False):
        shown = axes.imshow(weights[one], cmap="magma", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(f"head {one}", fontsize=9)
        for axis in (axes.xaxis, axes.yaxis):
            axis.get_major_locator().set_params(integer=True)
        if len(chosen) == 1 and len(ids) <= _MOST_LABELS:
            texts = _labels(model, ids)
            axes.set_xticks(range(len(ids)), texts, rotation=90, fontsize=7)
            axes.set_yticks(range(len(ids)), texts, fontsize=7)
    figure.colorbar(shown, ax=places.ravel().tolist(), label="weight", shrink=0.8)
    figure.suptitle(f"attention of layer {number}", fontsize=10)
    return finished(figure, path)


def _labels(model: "BitNetModel", ids: list[int]) -> list[str]:
    """The tokens as text; matplotlib reads $ as mathematics."""
    try:
        decode = model.tokenizer.decode
    except TokenizerError:
        return [str(one) for one in token_ids(ids)]
    texts = (decode([one]).replace("\n", "\\n") for one in ids)
    return [text.replace("$", r"\$") if text.strip() else repr(text) for text in texts]

"""Log-probabilities in the two forms that OpenAI's API has."""

from collections.abc import Sequence
from typing import Any

from ..generation import Piece
from .service import Service

Top = Sequence[tuple[tuple[int, float], ...]]


def chat_logprobs(
    service: Service, ids: Sequence[int], logprobs: Sequence[float] | None, top: Top | None
) -> dict[str, Any] | None:
    """Those of chat completions: a list of tokens, each with its alternatives."""
    if logprobs is None or top is None:
        return None

    def entry(token: int, logprob: float) -> dict[str, Any]:
        text, spelled = service.spelling(token)
        return {"token": text, "logprob": _finite(logprob), "bytes": spelled}

    content = [
        entry(token, logprob) | {"top_logprobs": [entry(*other) for other in others]}
        for token, logprob, others in zip(ids, logprobs, top, strict=True)
    ]
    return {"content": content, "refusal": None}


class TextLogprobs:
    """Those of text completions, piece by piece: lists of tokens, numbers, alternatives, and where each token's text begins."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._offset = 0

    def take(self, ids: Sequence[int], logprobs: Sequence[float], top: Top) -> dict[str, Any]:
        """Those of the next tokens; offsets go on where the tokens before ended."""
        tokens = [self._service.spelling(token)[0] for token in ids]
        offsets = []
        for token in tokens:
            offsets.append(self._offset)
            self._offset += len(token)
        alternatives = [{self._service.spelling(token)[0]: _finite(p) for token, p in others} for others in top]
        return {
            "tokens": tokens,
            "token_logprobs": [_finite(logprob) for logprob in logprobs],
            "top_logprobs": alternatives,
            "text_offset": offsets,
        }


def columns(pieces: Sequence[Piece]) -> tuple[list[int], list[float], Top]:
    """The tokens of pieces, their log-probabilities and their alternatives."""
    return (
        [piece.token_id for piece in pieces],
        [piece.logprob or 0.0 for piece in pieces],
        [piece.top_logprobs for piece in pieces],
    )


def _finite(logprob: float) -> float:
    """JSON has no infinity; OpenAI's API has -9999.0 for what is as good as impossible."""
    return max(logprob, -9999.0)

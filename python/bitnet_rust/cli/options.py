"""Options that several commands have."""

from typing import Annotated, Any, Literal

import typer

from ..configuration import SETTINGS, Format, Level
from ..model_options import HeadDType as HeadDType
from ..model_options import KVDType as KVDType
from ..model_options import Offline as Offline
from ..model_options import Packing as Packing
from ..model_options import Resident as Resident
from ..model_options import Revision as Revision

Model = Annotated[str, typer.Option("--model", "-m", help="Model directory, registered name or hub id.")]
I2SLayout = Annotated[
    Literal["x86", "arm64", "row4"], typer.Option(help="How I2_S tensors lie in the GGUF file that is read.")
]
Quantize = Annotated[
    bool, typer.Option("--quantize", help="Take the float layers of a Llama or GPT-2 as masters of ternary ones.")
]
Verify = Annotated[
    Literal["background", "now", "never"],
    typer.Option(help="When the checksums of a native file are compared; now is before it runs."),
]
Threads = Annotated[int | None, typer.Option(help="Worker threads.", show_default="physical cores")]
AsJSON = Annotated[bool, typer.Option("--json", help="Print JSON.")]
MaxNewTokens = Annotated[
    int | None,
    typer.Option("--max-new-tokens", "-n", help="Most tokens to generate.", show_default="the model's, else 128"),
]
Temperature = Annotated[float | None, typer.Option(help="Sampling temperature; greedy without any sampling option.")]
TopK = Annotated[int | None, typer.Option(help="Sample among the k most probable tokens.")]
TopP = Annotated[float | None, typer.Option(help="Sample among the most probable tokens that together reach p.")]
MinP = Annotated[float | None, typer.Option(help="Sample among tokens at least p times as probable as the best.")]
TypicalP = Annotated[float | None, typer.Option(help="Locally typical sampling.")]
RepetitionPenalty = Annotated[float | None, typer.Option(help="Penalty on tokens of prompt and text; 1 is off.")]
PresencePenalty = Annotated[float | None, typer.Option(help="Subtracted once from generated tokens' logits.")]
FrequencyPenalty = Annotated[float | None, typer.Option(help="Subtracted for every time a token was generated.")]
Seed = Annotated[int | None, typer.Option(help="Seed of the sampling.")]
LogitBias = Annotated[
    list[str] | None,
    typer.Option(
        "--logit-bias", metavar="ID=NUMBER", help="Added to a token's logit, -inf bans it; may be given several times."
    ),
]
IgnoreEOS = Annotated[bool, typer.Option("--ignore-eos", help="Go on after the model's end token.")]
AssistantModel = Annotated[
    str | None,
    typer.Option("--assistant-model", help="Smaller model with the same tokens, that guesses: faster, same text."),
]
AssistantRevision = Annotated[
    str | None, typer.Option("--assistant-revision", help="Branch, tag or commit of a guessing model from the hub.")
]
NumAssistantTokens = Annotated[
    int | None,
    typer.Option("--num-assistant-tokens", help="Tokens it guesses at a time.", show_default="4", min=1, max=16),
]
PromptLookup = Annotated[
    int | None,
    typer.Option(
        "--prompt-lookup-num-tokens", help="Guess so many tokens where text repeats itself: faster, same text."
    ),
]
Stop = Annotated[
    list[str] | None, typer.Option(metavar="TEXT", help="Text that ends the generation; may be given several times.")
]
StopTokens = Annotated[
    list[int] | None,
    typer.Option(
        "--stop-token-ids", metavar="ID", help="Token that ends the generation too; may be given several times."
    ),
]

_HELP = {setting.name: setting.help for setting in SETTINGS}
Quiet = Annotated[bool, typer.Option("--quiet", help=_HELP["quiet"])]
Debug = Annotated[bool, typer.Option("--debug", help=_HELP["debug"])]
LogLevel = Annotated[
    Level | None,
    typer.Option("--log-level", help=_HELP["log_level"], show_default="warning; of serve, info", case_sensitive=False),
]
LogFormat = Annotated[
    Format | None,
    typer.Option(
        "--log-format",
        help=_HELP["log_format"],
        show_default="text; of serve, json where no terminal is",
        case_sensitive=False,
    ),
]
# Options of all commands, which are settings, with their defaults.
COMMON: dict[str, tuple[Any, Any]] = {
    "quiet": (Quiet, False),
    "debug": (Debug, False),
    "log_level": (LogLevel, None),
    "log_format": (LogFormat, None),
}

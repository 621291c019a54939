"""Options that several commands have."""

from typing import Annotated

import typer

from ..hub_options import Offline as Offline
from ..hub_options import Revision as Revision

Model = Annotated[str, typer.Option("--model", "-m", help="Model directory, registered name or hub id.")]
HeadDType = Annotated[str, typer.Option(help="Embedding and head as auto, exact, float32, bfloat16, int8 or int4.")]
KVDType = Annotated[str, typer.Option(help="Keys and values as float32, float16, bfloat16 or int8.")]
Packing = Annotated[str, typer.Option(help="Ternary weights as auto, 2bit or base3 (1.6 bits).")]
I2SLayout = Annotated[str, typer.Option(help="I2_S tensors of a GGUF file as x86, arm64 or row4.")]
Quantize = Annotated[
    bool, typer.Option("--quantize", help="Take the float layers of a Llama or GPT-2 as masters of ternary ones.")
]
Resident = Annotated[str, typer.Option(help="Weights of a native file: auto, map or copy.")]
Verify = Annotated[
    str, typer.Option(help="Compare the checksums of a native file: in the background, now (before it runs) or never.")
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
    int | None, typer.Option("--num-assistant-tokens", help="Tokens it guesses at a time.", show_default="4")
]
PromptLookup = Annotated[
    int | None,
    typer.Option(
        "--prompt-lookup-num-tokens", help="Guess so many tokens where text repeats itself: faster, same text."
    ),
]
Stop = Annotated[list[str] | None, typer.Option(help="Text that ends the generation; may be given several times.")]
StopTokens = Annotated[
    list[int] | None,
    typer.Option("--stop-token-ids", help="Token that ends the generation too; may be given several times."),
]

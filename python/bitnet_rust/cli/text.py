"""The commands that write and read text: generate, chat, perplexity, eval."""

import itertools
import sys
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ArgumentError, TokenizerError, without_orders
from ..files import check_place
from .options import (
    AsJSON,
    AssistantModel,
    AssistantRevision,
    FrequencyPenalty,
    HeadDType,
    I2SLayout,
    IgnoreEOS,
    KVDType,
    LogitBias,
    MaxNewTokens,
    MinP,
    Model,
    NumAssistantTokens,
    Offline,
    Packing,
    PresencePenalty,
    PromptLookup,
    Quantize,
    RepetitionPenalty,
    Resident,
    Revision,
    Seed,
    Stop,
    StopTokens,
    Temperature,
    Threads,
    TopK,
    TopP,
    TypicalP,
    Verify,
)
from .output import (
    check_assistant,
    fail,
    load_assistant,
    load_model,
    one_line,
    print_json,
    print_table,
    read_text,
    watched,
    working,
)

if TYPE_CHECKING:
    from ..generation import GenerationResult


def generate(
    prompt: Annotated[str, typer.Argument(help="Text to continue; - reads it from stdin.")],
    model: Model = "bitnet-shakespeare",
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    typical_p: TypicalP = None,
    repetition_penalty: RepetitionPenalty = None,
    presence_penalty: PresencePenalty = None,
    frequency_penalty: FrequencyPenalty = None,
    logit_bias: LogitBias = None,
    seed: Seed = None,
    stop: Stop = None,
    stop_token_ids: StopTokens = None,
    ignore_eos: IgnoreEOS = False,
    prompt_lookup_num_tokens: PromptLookup = None,
    assistant_model: AssistantModel = None,
    assistant_revision: AssistantRevision = None,
    num_assistant_tokens: NumAssistantTokens = None,
    logprobs: Annotated[int | None, typer.Option(help="With --json: log-probabilities, of n alternatives too.")] = None,
    echo: Annotated[bool, typer.Option("--echo", help="Print the prompt before the continuation.")] = False,
    trace: Annotated[
        Path | None,
        typer.Option("--profile", help="Print on stderr where the time goes, and write a Chrome trace there."),
    ] = None,
    head_dtype: HeadDType = "auto",
    kv_dtype: KVDType = "float32",
    packing: Packing = "auto",
    i2s_layout: I2SLayout = "x86",
    quantize: Quantize = False,
    resident: Resident = "auto",
    verify: Verify = "background",
    threads: Threads = None,
    revision: Revision = None,
    offline: Offline = False,
    as_json: AsJSON = False,
) -> None:
    """Continue a text; prints it as it comes."""
    if logprobs is not None and not as_json:
        raise typer.BadParameter("log-probabilities are part of the JSON: add --json", param_hint="--logprobs")
    if trace is not None:
        check_place(trace)
    text = sys.stdin.read() if prompt == "-" else prompt
    options: dict[str, Any] = {
        "max_new_tokens": max_new_tokens, "temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p,
        "typical_p": typical_p, "repetition_penalty": repetition_penalty, "presence_penalty": presence_penalty,
        "frequency_penalty": frequency_penalty, "logit_bias": _biases(logit_bias), "seed": seed, "stop": stop,
        "stop_token_ids": stop_token_ids, "ignore_eos": ignore_eos, "prompt_lookup_num_tokens": prompt_lookup_num_tokens,
        "logprobs": logprobs,
    }  # fmt: skip
    loading: dict[str, Any] = {
        "head_dtype": head_dtype, "kv_dtype": kv_dtype, "packing": packing, "i2s_layout": i2s_layout, "quantize": quantize,
        "resident": resident, "verify": verify, "revision": revision,
    }  # fmt: skip
    check_assistant(assistant_model, assistant_revision=assistant_revision, num_assistant_tokens=num_assistant_tokens)
    with load_model(model, threads=threads, offline=offline, **loading) as loaded, ExitStack() as stack:
        options["assistant_model"] = load_assistant(
            stack, assistant_model, assistant_revision, offline=offline, kv_dtype=kv_dtype
        )
        options["num_assistant_tokens"] = num_assistant_tokens
        profile = None if trace is None else loaded.profile()
        with profile or nullcontext():
            if as_json:
                with working("generating"):
                    result = loaded.generate(text, details=True, return_full_text=echo, **options)
            else:
                _print_stream(loaded.generate(text, stream=True, return_full_text=echo, **options))
        if as_json:
            print_json(_result_json(result) | ({"profile": profile.to_dict()} if profile else {}))
        if profile is not None and trace is not None:
            print(profile, file=sys.stderr)
            profile.save(trace)


def _biases(given: list[str] | None) -> dict[int, float] | None:
    """ID=NUMBER as a dictionary."""
    if not given:
        return None
    try:
        return {int(token): float(number) for token, _, number in (bias.partition("=") for bias in given)}
    except ValueError:
        raise typer.BadParameter(f"{given}: expected ID=NUMBER, such as 13=-inf", param_hint="--logit-bias") from None


def _result_json(result: "GenerationResult") -> dict[str, Any]:
    fields = {
        "text": result.text,
        "token_ids": result.token_ids,
        "finish_reason": result.finish_reason,
        "prompt_tokens": result.prompt_tokens,
        "logprobs": result.logprobs,
        "top_logprobs": result.top_logprobs,
    }
    return {name: value for name, value in fields.items() if value is not None}


def chat(
    model: Model = "bitnet-b1.58-2b-4t",
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    chat_template: Annotated[Path | None, typer.Option(help="File with a Jinja chat template.")] = None,
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    typical_p: TypicalP = None,
    repetition_penalty: RepetitionPenalty = None,
    presence_penalty: PresencePenalty = None,
    frequency_penalty: FrequencyPenalty = None,
    logit_bias: LogitBias = None,
    seed: Seed = None,
    stop: Stop = None,
    stop_token_ids: StopTokens = None,
    ignore_eos: IgnoreEOS = False,
    prompt_lookup_num_tokens: PromptLookup = None,
    assistant_model: AssistantModel = None,
    assistant_revision: AssistantRevision = None,
    num_assistant_tokens: NumAssistantTokens = None,
    head_dtype: HeadDType = "auto",
    kv_dtype: KVDType = "float32",
    packing: Packing = "auto",
    i2s_layout: I2SLayout = "x86",
    quantize: Quantize = False,
    resident: Resident = "auto",
    verify: Verify = "background",
    threads: Threads = None,
    revision: Revision = None,
    offline: Offline = False,
) -> None:
    """Talk with a model: a line is a message, /reset forgets the conversation, /exit or Ctrl-D ends.

    Ctrl-C stops a reply, which stays part of the conversation; at the prompt it ends the program.
    """
    from ..chat_template import check
    from ..engine import Engine

    options: dict[str, Any] = {
        "max_new_tokens": max_new_tokens, "temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p,
        "typical_p": typical_p, "repetition_penalty": repetition_penalty, "presence_penalty": presence_penalty,
        "frequency_penalty": frequency_penalty, "logit_bias": _biases(logit_bias), "seed": seed, "stop": stop,
        "stop_token_ids": stop_token_ids, "ignore_eos": ignore_eos, "prompt_lookup_num_tokens": prompt_lookup_num_tokens,
    }  # fmt: skip
    start = [{"role": "system", "content": system}] if system else []
    template = read_text(chat_template) if chat_template else None
    if template is not None:
        check(template)
    interactive = sys.stdin.isatty()
    loading: dict[str, Any] = {
        "head_dtype": head_dtype, "kv_dtype": kv_dtype, "packing": packing, "i2s_layout": i2s_layout, "quantize": quantize,
        "resident": resident, "verify": verify, "revision": revision,
    }  # fmt: skip
    check_assistant(assistant_model, assistant_revision=assistant_revision, num_assistant_tokens=num_assistant_tokens)
    with ExitStack() as stack:
        loaded = stack.enter_context(load_model(model, threads=threads, offline=offline, **loading))
        if template is None and loaded.tokenizer.chat_template is None:
            raise TokenizerError(f"{model} has no chat template: pass one with --chat-template, or use bitnet generate")
        assistant = load_assistant(stack, assistant_model, assistant_revision, offline=offline, kv_dtype=kv_dtype)
        # An engine, as it keeps what was read of the conversation.
        engine = Engine(loaded, max_sequences=1, assistant_model=assistant, num_assistant_tokens=num_assistant_tokens)
        stack.enter_context(engine)
        messages = list(start)
        if interactive and watched():
            print("A line is a message; /reset forgets the conversation, /exit or Ctrl-D ends.", file=sys.stderr)
        for line in _lines(interactive):
            if line == "/exit":
                break
            if line == "/reset":
                messages = list(start)
                continue
            messages.append({"role": "user", "content": line})
            reply: list[str] = []
            handle = None
            try:
                handle = engine.chat(messages, chat_template=template, **options)
                _print_stream((piece.text for piece in handle), reply)
            except KeyboardInterrupt:
                if not interactive:
                    raise
                if handle is not None:
                    handle.cancel()
                print()
            except ArgumentError as error:  # such as a conversation that outgrew the context
                if not interactive:
                    raise
                messages.pop()
                fail(f"{one_line(error)} (/reset forgets the conversation)", 1)
                continue
            messages.append({"role": "assistant", "content": "".join(reply)})


def _lines(interactive: bool) -> Iterator[str]:
    """The user's messages: typed at a prompt, or the lines of a file."""
    if interactive:
        with suppress(ImportError):
            import readline  # noqa: F401  input() has arrow keys and a history with it
    while True:
        try:
            line = input("> ") if interactive else input()
        except EOFError:
            if interactive:
                print()
            return
        if line.strip():
            yield line.strip()


def _print_stream(pieces: Iterator[str], shown: list[str] | None = None) -> None:
    """Prints pieces as they come, and a newline after them; shown gets those that were printed."""
    shown = [] if shown is None else shown
    with working("reading the prompt"):
        first = next(pieces, "")
    clean = without_orders if sys.stdout.isatty() else str
    for piece in itertools.chain([first], pieces):
        print(clean(piece), end="", flush=True)
        shown.append(piece)
    print()


def perplexity(
    text: Annotated[str, typer.Argument(help="File with the text; - reads it from stdin.")],
    model: Model = "bitnet-shakespeare",
    window: Annotated[
        int | None, typer.Option(help="Tokens read together.", show_default="context, at most 2048")
    ] = None,
    stride: Annotated[int | None, typer.Option(help="Tokens between windows.", show_default="half a window")] = None,
    head_dtype: HeadDType = "auto",
    kv_dtype: KVDType = "float32",
    packing: Packing = "auto",
    i2s_layout: I2SLayout = "x86",
    quantize: Quantize = False,
    resident: Resident = "auto",
    verify: Verify = "background",
    threads: Threads = None,
    revision: Revision = None,
    offline: Offline = False,
    as_json: AsJSON = False,
) -> None:
    """How well a model predicts a text: exp of the mean negative log-likelihood."""
    content = sys.stdin.read() if text == "-" else read_text(Path(text))
    loading: dict[str, Any] = {
        "head_dtype": head_dtype, "kv_dtype": kv_dtype, "packing": packing, "i2s_layout": i2s_layout, "quantize": quantize,
        "resident": resident, "verify": verify, "revision": revision,
    }  # fmt: skip
    with load_model(model, threads=threads, offline=offline, **loading) as loaded:
        ids = loaded.tokenizer.encode(content)
        with working(f"reading {len(ids):,} tokens"):
            value = loaded.perplexity(ids, window=window, stride=stride)
    if as_json:
        print_json({"perplexity": value, "tokens": len(ids), "model": model})
    else:
        typer.echo(f"{value:.4f}")


def evaluate(
    data: Annotated[Path, typer.Option(help="Text file, directory, .jsonl, or file of token ids (.bin, .npy).")],
    model: Model = "bitnet-shakespeare",
    context_length: Annotated[
        int | None, typer.Option(help="Tokens in an example.", show_default="context, at most 256")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="Of a file of token ids without a header, as uint16.")] = None,
    head_dtype: HeadDType = "auto",
    packing: Packing = "auto",
    i2s_layout: I2SLayout = "x86",
    quantize: Quantize = False,
    resident: Resident = "auto",
    verify: Verify = "background",
    threads: Threads = None,
    revision: Revision = None,
    offline: Offline = False,
    as_json: AsJSON = False,
) -> None:
    """Loss, perplexity and accuracy of a model on data; the loss is that of training's validation, to the bit."""
    from ..token_file import TokenFile

    source = data if dtype is None else TokenFile(data, dtype)
    loading: dict[str, Any] = {
        "head_dtype": head_dtype, "packing": packing, "i2s_layout": i2s_layout, "quantize": quantize,
        "resident": resident, "verify": verify, "revision": revision,
    }  # fmt: skip
    with load_model(model, threads=threads, offline=offline, **loading) as loaded:
        result = loaded.evaluate(source, context_length=context_length, progress=watched())
    if as_json:
        print_json(result | {"model": model, "data": str(data)})
        return
    cells = [[name, f"{value:,}" if isinstance(value, int) else f"{value:.4f}"] for name, value in result.items()]
    print_table(["", ""], cells)

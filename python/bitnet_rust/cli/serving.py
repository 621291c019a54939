"""The command that answers others: serve."""

import gc
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..errors import FileSystemError
from .common import log_on_stderr
from .options import (
    AssistantModel,
    AssistantRevision,
    HeadDType,
    I2SLayout,
    KVDType,
    Model,
    NumAssistantTokens,
    Offline,
    Packing,
    Quantize,
    Resident,
    Revision,
    Threads,
    Verify,
)
from .output import check_assistant, load_assistant, load_model, read_text


def serve(
    model: Model = "bitnet-shakespeare",
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is all of them.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 8000,
    served_model_name: Annotated[
        str | None, typer.Option(help="What clients call the model.", show_default="its directory or file")
    ] = None,
    chat_template: Annotated[Path | None, typer.Option(help="File with a Jinja chat template.")] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(help="Keys that clients must have, a line each: KEY, or NAME KEY. Also BITNET_API_KEYS."),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="Origin whose web pages may read the answers; may be given several times."),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help="Host name that requests may be for; may be given several times."),
    ] = None,
    max_sequences: Annotated[int | None, typer.Option(help="Requests that run at once.", show_default="32")] = None,
    max_queue: Annotated[int | None, typer.Option(help="More that may wait.", show_default="1024")] = None,
    max_batch_tokens: Annotated[int | None, typer.Option(help="Tokens that a step computes at most.")] = None,
    kv_bytes: Annotated[int | None, typer.Option(help="Memory for keys and values.")] = None,
    mode: Annotated[
        Literal["throughput", "latency"],
        typer.Option(help="What steps are made for: most tokens, or tokens that come evenly."),
    ] = "throughput",
    max_tokens: Annotated[
        int | None, typer.Option(help="Tokens that a request may ask for.", show_default="the context")
    ] = None,
    max_choices: Annotated[int, typer.Option(help="Answers to one prompt: the largest n and best_of.")] = 16,
    max_prompts: Annotated[int, typer.Option(help="Texts in one request.")] = 256,
    max_body_bytes: Annotated[int, typer.Option(help="Largest request.")] = 4 << 20,
    request_timeout: Annotated[float, typer.Option(help="Seconds that a request may take.")] = 600.0,
    body_timeout: Annotated[float, typer.Option(help="Seconds for a request to arrive.")] = 30.0,
    write_timeout: Annotated[float, typer.Option(help="Seconds that a client may leave its answer unread.")] = 60.0,
    drain_timeout: Annotated[float, typer.Option(help="Seconds for running requests when the server ends.")] = 30.0,
    heartbeat: Annotated[
        float, typer.Option(help="Seconds of silence after which a stream has a comment, as proxies cut silent ones.")
    ] = 15.0,
    log_prompts: Annotated[bool, typer.Option("--log-prompts", help="Write prompts and answers to the log.")] = False,
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
    """Serve a model to others over OpenAI's API, with a chat page; SIGTERM or Ctrl-C finishes what is running.

    Prints the address on stdout and the log on stderr.
    """
    from ..engine import Engine, checked_limits
    from ..server import ServerOptions, read_keys
    from ..server import serve as run
    from ..server.lifecycle import listening

    loading: dict[str, Any] = {
        "head_dtype": head_dtype, "kv_dtype": kv_dtype, "packing": packing, "i2s_layout": i2s_layout, "quantize": quantize,
        "resident": resident, "verify": verify, "revision": revision,
    }  # fmt: skip
    options = ServerOptions(
        served_model_name=served_model_name,
        chat_template=read_text(chat_template) if chat_template else None,
        api_keys=read_keys(api_key_file),
        cors_origins=cors_origin or (),
        allowed_hosts=allowed_host or (("localhost",) if host in ("127.0.0.1", "::1", "localhost") else ()),
        max_tokens=max_tokens,
        max_choices=max_choices,
        max_prompts=max_prompts,
        max_body_bytes=max_body_bytes,
        request_timeout=request_timeout,
        body_timeout=body_timeout,
        write_timeout=write_timeout,
        drain_timeout=drain_timeout,
        heartbeat=heartbeat,
        log_prompts=log_prompts,
    )
    limits: dict[str, Any] = checked_limits(
        max_sequences=max_sequences, max_queue=max_queue, max_batch_tokens=max_batch_tokens, kv_bytes=kv_bytes
    )
    check_assistant(assistant_model, assistant_revision=assistant_revision, num_assistant_tokens=num_assistant_tokens)
    with _place(host, port):
        listening(host, port).close()  # what is wrong is said before a large model is loaded
    with ExitStack() as stack:
        stack.enter_context(log_on_stderr("serve", "uvicorn"))
        loaded = stack.enter_context(load_model(model, threads=threads, offline=offline, **loading))
        assistant = load_assistant(stack, assistant_model, assistant_revision, offline=offline, kv_dtype=kv_dtype)
        engine = Engine(
            loaded, mode=mode, assistant_model=assistant, num_assistant_tokens=num_assistant_tokens, **limits
        )
        stack.callback(engine.close, cancel=True)
        gc.collect()
        # What is here stays: to look for garbage among all modules, over and over, takes 3 to 13 % of an event loop's time. And to look among
        # the requests that run whenever 700 objects came takes 5 % more.
        gc.freeze()
        gc.set_threshold(10_000)
        with _place(host, port):
            answered = run(engine, options, host=host, port=port, started=lambda url: print(url, flush=True))
    if not answered:
        raise typer.Exit(1)


@contextmanager
def _place(host: str, port: int) -> Iterator[None]:
    """Says of an address that cannot be listened on which one it is."""
    try:
        yield
    except OSError as error:
        raise FileSystemError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error

"""Results for people: a few lines, a table, a picture."""

from os import PathLike
from typing import Any

from ..viz.figures import new_figure, write_figure

Result = dict[str, Any]


def report(result: Result) -> str:
    """A result in a few lines, with a table where it has several sizes."""
    lines = _common(result) | _OWN[result["benchmark"]](result)
    if "read_limit_gb_s" in result:
        lines |= _limit(result)
    text = "\n".join(f"{name:<12}{text}" for name, text in lines.items())
    table = _table(result)
    return f"{text}\n\n{table}" if table else text


def _common(r: Result) -> dict[str, str]:
    at = r["machine"]
    machine = {"machine": f"{at['processor']}, {at['physical_cores']} physical cores, {at['system']}"}
    if "url" in r:  # what it runs on is unknown
        return machine | {"model": f"{r['model']} at {r['url']}"}
    size = f"{r['parameters'] / 1e6:.1f} M parameters, " if "parameters" in r else ""
    packing = ", base 3" if r.get("packing") == "base3" else ""
    kv = f", {r['kv_dtype']} keys and values" if r.get("kv_dtype", "float32") != "float32" else ""
    return machine | {
        "model": f"{r['model']}: {size}{r['head_dtype']} head{packing}{kv}",
        "kernels": f"{r['isa']}, {r['threads']} threads",
    }


def _limit(r: Result) -> dict[str, str]:
    text = f"{100 * r['fraction_of_limit']:.1f} % of the read limit"
    return {"read limit": f"{_spread(r, 'read_limit_gb_s')} GB/s, in the same run", "fraction": text}


def _decode(r: Result) -> dict[str, str]:
    lines = {
        "decode": f"{_spread(r, 'tokens_per_second')} tokens/s",
        "a token": f"{r['token_ms_median']:.2f} ms, the fastest {r['token_ms_min']:.2f}, 95 % at most {r['token_ms_p95']:.2f}, "
        f"the slowest {r['token_ms_max']:.2f}",
        "reads": _reads(r),
        "memory": f"{r['rss_bytes'] / 1e6:.1f} MB resident, {_of_weights(r, 'rss')}",
    }
    if b := r.get("burner"):
        lines["beside"] = (
            f"a busy process: {_spread(b, 'tokens_per_second')} tokens/s, {b['relative_speed']:.2f} x alone; "
            f"slowest token {b['token_ms_max']:.2f} ms, {b['worst_over_median']:.1f} x the median"
        )
    return lines


def _prefill(r: Result) -> dict[str, str]:
    return {
        "prefill": f"{_spread(r, 'tokens_per_second')} tokens/s, {r['tokens']} tokens in {r['first_token_ms']:.0f} ms",
        "reads": _reads(r),
    }


def _batch(r: Result) -> dict[str, str]:
    return {"decode": f"{r['tokens']} tokens of each sequence; the limit is for the last row"}


def _context(r: Result) -> dict[str, str]:
    return {"decode": f"{r['tokens']} tokens after each prompt; the limit is for the last row"}


def _load(r: Result) -> dict[str, str]:
    lines = {
        "file": f"{r['format']}, {r['file_bytes'] / 1e6:.1f} MB, in the system's cache; resident={r['resident']}",
        "import": f"{_spread(r, 'import_ms')} ms",
        "ready": f"{_spread(r, 'ready_ms')} ms",
        "first token": f"{_spread(r, 'first_token_ms')} ms, after a prompt of {r['prompt']}",
        "process": f"{_spread(r, 'process_ms')} ms, from its start to its exit",
    }
    if "rss_bytes" in r:
        lines["memory"] = (
            f"{r['rss_bytes'] / 1e6:.1f} MB resident in the end, {r['peak_rss_bytes'] / 1e6:.1f} MB at most, "
            f"{_of_weights(r, 'peak_rss')}"
        )
    return lines


def _of_weights(r: Result, memory: str) -> str:
    return f"{r[f'{memory}_per_weight_byte']:.2f} x weights of {r['weight_bytes'] / 1e6:.1f} MB"


def _guess(r: Result) -> dict[str, str]:
    said = (
        "after a text, its continuation and the text again"
        if r["quotes"]
        else "all of them the same: every guess is right"
    )
    return {"decode": f"{r['tokens']} tokens, {said}; the limit is for the last row"}


def _serve(r: Result) -> dict[str, str]:
    problems = ", ".join(f"{problem} ({count} x)" for problem, count in r["problems"].items()) or "no problems"
    lines = {
        "load": f"{r['clients']} clients, {r['requests']} requests with prompts of up to {r['prompt']} and replies of up to {r['tokens']} tokens; "
        f"{r['rounds']} x {r['seconds']:g} s",
        "serve": f"{_spread(r, 'tokens_per_second')} tokens/s",
        "replies": f"{r['replies']}, {r['differing']} differing, {problems}"
        + (f", {r['abandoned']} left alone" if r["abandoned"] else ""),
    }
    if "of_engine" in r:
        lines["engine"] = (
            f"{_spread(r, 'engine_tokens_per_second')} tokens/s without a server; the server has {_spread(r, 'of_engine')} of it"
        )
        if "of_engine_by_cpu" in r:
            lines["engine"] += f", and {_spread(r, 'of_engine_by_cpu')} by the processor's time"
    for key, name in (("first_token_ms", "first token"), ("gap_ms", "next tokens")):
        if key in r:
            lines[name] = f"{r[key]['median']:.1f} ms, 95 % within {r[key]['p95']:.1f}, the slowest {r[key]['max']:.1f}"
    lines["clients"] = f"take {100 * r['client_cpu']:.0f} % of a processor"
    if "rss_bytes" in r:
        lines["memory"] = (
            f"{r['rss_bytes'] / 1e6:.1f} MB resident, {r['rss_growth_bytes'] / 1e6:+.2f} MB from the first quarter to the last"
        )
    return lines


_OWN = {
    "decode": _decode, "prefill": _prefill, "batch": _batch, "context": _context, "load": _load, "guess": _guess, "serve": _serve,
}  # fmt: skip


def _reads(r: Result) -> str:
    reads = r["bytes_per_token"]
    text = f"{reads / 1e6:.1f} MB a token, {r['tokens_per_second'] * reads / 1e9:.2f} GB/s"
    if r.get("gate_density") is not None:
        text += f"; {100 * r['gate_density']:.1f} % of the gates open, {100 * r['down_density']:.1f} % of the down inputs not zero"
    if r.get("head_rescored") is not None:
        text += f"; {100 * r['head_rescored']:.2f} % of the head's rows in full precision"
    return text


def _spread(r: Result, key: str) -> str:
    return f"{r[key]:.2f} ({r[key + '_min']:.2f} to {r[key + '_max']:.2f})"


def _table(r: Result) -> str:
    rows: list[tuple[str, ...]]
    if r["benchmark"] == "batch":
        rows = [("sequences", "tokens/s", "x first", "ms/step", "MB/token", "of limit")]
        rows += [
            (str(s["sequences"]), f"{s['tokens_per_second']:.1f}", f"{s['over_first']:.2f}", f"{s['step_ms']:.1f}",
             f"{s['bytes_per_token'] / 1e6:.1f}", f"{100 * s['fraction_of_limit']:.0f} %")
            for s in r["sizes"]
        ]  # fmt: skip
    elif r["benchmark"] == "context":
        rows = [("context", "decode/s", "x first", "prompt/s", "MB/token", "of limit")]
        rows += [
            (str(s["context"]), f"{s['tokens_per_second']:.1f}", f"{s['over_first']:.2f}", f"{s['prompt_tokens_per_second']:.1f}",
             f"{s['bytes_per_token'] / 1e6:.1f}", f"{100 * s['fraction_of_limit']:.0f} %")
            for s in r["lengths"]
        ]  # fmt: skip
    elif r["benchmark"] == "guess":
        rows = [("guesses", "tokens/s", "x first", "tokens/step", "MB/token")]
        rows += [
            (str(s["guesses"]), f"{s['tokens_per_second']:.1f}", f"{s['over_first']:.2f}", f"{s['tokens_per_step']:.1f}",
             f"{s['bytes_per_token'] / 1e6:.1f}")
            for s in r["counts"]
        ]  # fmt: skip
    else:
        return ""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(text.rjust(w) for text, w in zip(row, widths, strict=True)) for row in rows)


def plot(result: Result, path: str | PathLike[str]) -> None:
    """Draws a result with matplotlib. Raises BitNetError without that library, FileSystemError where the picture cannot be written."""
    figure = new_figure()
    axes: Any = figure.subplots()
    _DRAW[result["benchmark"]](axes, result)
    axes.set_title(
        f"{result['benchmark']}: {result['model']}, {result['isa']}, {result['threads']} threads", fontsize=10
    )
    figure.text(0.01, 0.005, result["machine"]["processor"], fontsize=7, color="gray")
    write_figure(figure, path)


def _draw_repeats(axes: Any, r: Result) -> None:
    """Repetitions and what memory would allow."""
    speeds = [one["tokens_per_second"] for one in r["repeats"]]
    axes.bar(range(1, len(speeds) + 1), speeds, color="tab:blue", label="measured")
    if r["benchmark"] == "decode":
        limits = [1e9 * one["read_limit_gb_s"] / r["bytes_per_token"] for one in r["repeats"]]
        axes.plot(range(1, len(speeds) + 1), limits, "o-", color="tab:orange", label="at the read limit")
        axes.legend(loc="lower right")
    axes.set_xticks(range(1, len(speeds) + 1))
    axes.set(xlabel="repetition", ylabel="tokens/s", ylim=(0, None))


def _draw_batch(axes: Any, r: Result) -> None:
    sizes = [one["sequences"] for one in r["sizes"]]
    axes.plot(sizes, [one["tokens_per_second"] for one in r["sizes"]], "o-", label="all sequences")
    axes.plot(sizes, [one["tokens_per_second"] / one["sequences"] for one in r["sizes"]], "o--", label="each")
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.set(xlabel="sequences", ylabel="tokens/s", ylim=(0, None))
    axes.legend()


def _draw_context(axes: Any, r: Result) -> None:
    """Two speeds of different size, each in percent of its first."""
    lengths = [one["context"] for one in r["lengths"]]
    for key, style, name in (("tokens_per_second", "o-", "decode"), ("prompt_tokens_per_second", "s--", "prompt")):
        speeds = [one[key] for one in r["lengths"]]
        (line,) = axes.plot(lengths, [100 * speed / speeds[0] for speed in speeds], style, label=f"{name}, tokens/s")
        for at, speed in zip(lengths, speeds, strict=True):
            axes.annotate(
                f"{speed:.1f}", (at, 100 * speed / speeds[0]), xytext=(0, 6 if name == "decode" else -12),
                textcoords="offset points", ha="center", fontsize=8, color=line.get_color(),
            )  # fmt: skip
    axes.set(xlabel="tokens of context", ylabel=f"% of the speed at {lengths[0]}", ylim=(0, 1.1 * axes.get_ylim()[1]))
    axes.legend()


def _draw_guess(axes: Any, r: Result) -> None:
    counts = [one["guesses"] for one in r["counts"]]
    bars = axes.bar([str(count) for count in counts], [one["tokens_per_second"] for one in r["counts"]])
    axes.bar_label(bars, [f"{one['over_first']:.2f} x" for one in r["counts"]], padding=2)
    axes.set(xlabel="tokens guessed at a time", ylabel="tokens/s", ylim=(0, 1.1 * axes.get_ylim()[1]))


def _draw_load(axes: Any, r: Result) -> None:
    names = ("import", "ready", "first_token", "process")
    bars = axes.barh([name.replace("_", " ") for name in names], [r[f"{name}_ms"] for name in names])
    axes.bar_label(bars, fmt="{:.0f}", padding=3)
    axes.invert_yaxis()
    axes.set(xlabel="ms")


_DRAW = {
    "decode": _draw_repeats, "prefill": _draw_repeats, "batch": _draw_batch, "context": _draw_context, "load": _draw_load,
    "guess": _draw_guess,
}  # fmt: skip

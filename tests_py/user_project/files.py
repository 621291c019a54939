"""Converts, inspects, compares and verifies files; registers a shape; asks the process."""

from pathlib import Path

from bitnet_rust import (
    ArgumentError,
    Conversion,
    ModelDiff,
    ModelEntry,
    Settings,
    Verification,
    __version__,
    bench,
    build_info,
    convert,
    diff_models,
    find_model,
    inspect_model,
    list_models,
    memory_blocks,
    memory_stats,
    num_threads,
    on_memory_pressure,
    register_model,
    set_num_threads,
    settings,
    tensor_bytes,
    trim_memory,
    verify_model,
)


def files(directory: Path) -> Conversion:
    converted: Conversion = convert("bitnet-shakespeare", directory / "s.bitnet")
    checked: Verification = verify_model(converted.target)
    assert not checked.problems
    compared: ModelDiff = diff_models("bitnet-shakespeare", converted.target)
    assert compared.same_argmax == 1.0
    names = [tensor["name"] for tensor in inspect_model(converted.target)["tensors"]]
    assert len(tensor_bytes(converted.target, names[0], size=16)) == 16
    return converted


def process() -> str:
    entry: ModelEntry = find_model("shakespeare")
    assert entry in list_models()
    register_model("my-shape", entry.config)
    set_num_threads(num_threads())
    chosen: Settings = settings
    assert "num_threads" in [value.setting.name for value in chosen.show()]
    cancel = on_memory_pressure(0.9, lambda stats: print(stats))
    cancel()
    assert isinstance(trim_memory(), int)
    assert memory_stats()["live_blocks"] >= 0
    try:
        print(memory_blocks())
    except ArgumentError as error:  # unless BITNET_POOL_DEBUG=1
        assert "BITNET_POOL_DEBUG" in str(error)
    assert callable(bench.decode)
    return f"{__version__} {build_info()['isa']}"

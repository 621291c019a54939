"""Looks into a model, and draws it."""

from pathlib import Path

from bitnet_rust import ArgumentError, BitNetModel, QuantizationError, Weight, viz


def ternary_weights(model: BitNetModel) -> list[Weight]:
    return [one for one in model.weights() if one.dtype == "ternary"]


def worst(model: BitNetModel) -> QuantizationError | None:
    try:
        errors = [model.quantization_error(one.name) for one in ternary_weights(model)]
    except ArgumentError:  # it has no master weights
        return None
    return min(errors, key=lambda error: error.sqnr)


def drawn(model: BitNetModel, directory: Path) -> list[str]:
    diagram: viz.SVG = viz.architecture(model)
    diagram.save(directory / "model.svg")
    name = ternary_weights(model)[0].name
    with viz.MemoryRecorder() as memory:
        viz.ternary_map(model, name, size=16, path=directory / "codes.png")
        assert model.attentions("First Citizen:", layers=0).shape[0] == 1
    assert memory.peak > 0
    return sorted(file.name for file in directory.glob("*.*g"))

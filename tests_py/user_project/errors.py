"""Every error can be caught by its name, and by the built-in one that it also is."""

import warnings

import bitnet_rust as b

KINDS: dict[type[b.BitNetError], type[Exception]] = {
    b.ArgumentError: ValueError,
    b.AutogradError: RuntimeError,
    b.CheckpointError: ValueError,
    b.ConfigError: ValueError,
    b.DTypeError: TypeError,
    b.DeadlineError: TimeoutError,
    b.DeviceError: ValueError,
    b.FileSystemError: OSError,
    b.ForkError: RuntimeError,
    b.FormatError: ValueError,
    b.GradCheckError: AssertionError,
    b.InternalError: RuntimeError,
    b.LogitsError: ArithmeticError,
    b.MissingExtraError: ImportError,
    b.ModelNotFoundError: FileNotFoundError,
    b.OutOfMemoryError: MemoryError,
    b.OutOfRangeError: IndexError,
    b.QueueFullError: RuntimeError,
    b.RequestCanceledError: RuntimeError,
    b.ShapeError: ValueError,
    b.TokenizerError: ValueError,
    b.TrainingError: ArithmeticError,
}


def caught() -> str:
    assert all(issubclass(kind, also) for kind, also in KINDS.items())
    warnings.simplefilter("error", b.CheckpointWarning)
    warnings.simplefilter("error", b.ModelWarning)
    try:
        b.BitNetModel.from_pretrained("no-such-model")
    except b.ModelNotFoundError as error:
        return str(error)
    raise AssertionError("it was found")

"""BitNet b1.58 language models on the CPU: load a checkpoint, generate text, stream it.

>>> from bitnet_rust import BitNetModel
>>> model = BitNetModel.from_pretrained("bitnet-shakespeare")
>>> text = model.generate("First Citizen:", max_new_tokens=32)

The heavy parts (NumPy, tokenizers, the hub client) are imported when first used, so importing this package is fast.
"""

import importlib
from typing import TYPE_CHECKING, Any

from ._bitnet import __version__
from .configuration import Settings, settings
from .errors import (
    ArgumentError,
    AutogradError,
    BitNetError,
    CheckpointError,
    CheckpointWarning,
    ConfigError,
    DeadlineError,
    DeviceError,
    DTypeError,
    FileSystemError,
    ForkError,
    FormatError,
    GradCheckError,
    InternalError,
    LogitsError,
    MissingExtraError,
    ModelNotFoundError,
    ModelWarning,
    OutOfMemoryError,
    OutOfRangeError,
    QueueFullError,
    RequestCanceledError,
    ShapeError,
    TokenizerError,
    TrainingError,
)

if TYPE_CHECKING:
    from . import autograd, bench, nn, optim, viz
    from .autograd import no_grad
    from .callbacks import Callback
    from .comparison import ModelDiff, diff_models
    from .config import BitNetConfig
    from .conversations import chat_example
    from .conversion import Conversion, convert
    from .engine import Engine, Handle
    from .generation import GenerationOptions, GenerationResult, Piece, SamplingOptions
    from .inspection import inspect_model, tensor_bytes
    from .model import BitNetModel
    from .profile import OpTime, Profile
    from .registry import ModelEntry, find_model, list_models, register_model
    from .runtime import (
        build_info,
        memory_blocks,
        memory_stats,
        num_threads,
        on_memory_pressure,
        set_num_threads,
        trim_memory,
    )
    from .tensor import Tensor
    from .token_file import TokenFile
    from .tokenizer import Tokenizer
    from .training import History, Trainer
    from .training_config import TrainingConfig
    from .verification import Verification, verify_model
    from .weights import QuantizationError, Weight

# Where each public name lives; its module is imported when the name is first asked for.
_HOMES = {
    "BitNetConfig": "config",
    "BitNetModel": "model",
    "Callback": "callbacks",
    "Conversion": "conversion",
    "Engine": "engine",
    "GenerationOptions": "generation",
    "GenerationResult": "generation",
    "Handle": "engine",
    "History": "training",
    "ModelEntry": "registry",
    "OpTime": "profile",
    "Piece": "generation",
    "Profile": "profile",
    "QuantizationError": "weights",
    "SamplingOptions": "generation",
    "Tensor": "tensor",
    "TokenFile": "token_file",
    "Tokenizer": "tokenizer",
    "Trainer": "training",
    "TrainingConfig": "training_config",
    "Verification": "verification",
    "Weight": "weights",
    "build_info": "runtime",
    "chat_example": "conversations",
    "ModelDiff": "comparison",
    "diff_models": "comparison",
    "convert": "conversion",
    "find_model": "registry",
    "inspect_model": "inspection",
    "tensor_bytes": "inspection",
    "list_models": "registry",
    "memory_blocks": "runtime",
    "memory_stats": "runtime",
    "no_grad": "autograd",
    "num_threads": "runtime",
    "on_memory_pressure": "runtime",
    "register_model": "registry",
    "set_num_threads": "runtime",
    "trim_memory": "runtime",
    "verify_model": "verification",
}

__all__ = [
    "ArgumentError",
    "AutogradError",
    "BitNetConfig",
    "BitNetError",
    "BitNetModel",
    "Callback",
    "CheckpointError",
    "CheckpointWarning",
    "ConfigError",
    "Conversion",
    "DTypeError",
    "DeadlineError",
    "DeviceError",
    "Engine",
    "FileSystemError",
    "ForkError",
    "FormatError",
    "GenerationOptions",
    "GenerationResult",
    "GradCheckError",
    "Handle",
    "History",
    "InternalError",
    "LogitsError",
    "MissingExtraError",
    "ModelEntry",
    "ModelNotFoundError",
    "ModelWarning",
    "OutOfMemoryError",
    "OutOfRangeError",
    "OpTime",
    "Piece",
    "Profile",
    "QuantizationError",
    "QueueFullError",
    "RequestCanceledError",
    "SamplingOptions",
    "Settings",
    "ShapeError",
    "Tensor",
    "TokenFile",
    "Tokenizer",
    "TokenizerError",
    "Trainer",
    "TrainingConfig",
    "TrainingError",
    "Verification",
    "Weight",
    "__version__",
    "autograd",
    "bench",
    "build_info",
    "chat_example",
    "convert",
    "diff_models",
    "find_model",
    "inspect_model",
    "ModelDiff",
    "tensor_bytes",
    "list_models",
    "memory_blocks",
    "memory_stats",
    "nn",
    "no_grad",
    "num_threads",
    "on_memory_pressure",
    "optim",
    "register_model",
    "set_num_threads",
    "settings",
    "trim_memory",
    "verify_model",
    "viz",
]


# Modules of the package that come with it.
_MODULES = ("autograd", "bench", "nn", "optim", "viz")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})

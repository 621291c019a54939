"""Runs it all in a new directory."""

import tempfile
from pathlib import Path

from bitnet_rust import BitNetModel, Tokenizer

from . import errors, files, inference, pictures, training


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, BitNetModel.from_pretrained("bitnet-shakespeare") as model:
        print(inference.texts(model), inference.numbers(model), inference.profile(model), inference.served(model))
        print(training.trained(Path(directory)), training.own_loop())
        print(files.files(Path(directory)), files.process())
        print(pictures.worst(model), pictures.drawn(model, Path(directory)))
        print(errors.caught())
        chat = Tokenizer.bytes()
        chat.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        print(training.conversation(chat))


main()

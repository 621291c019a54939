"""``python -m bench`` in a checkout: ``bitnet bench`` of the package, and comparisons that need other software."""

import sys

from bitnet_rust import bench, cli

from . import convergence, options, train
from .peers import compare

COMMANDS = {
    "convergence": convergence.command,
    "train": train.command,
    "options": options.command,
    "peers": compare.command,
}

if __name__ == "__main__":
    for name, command in COMMANDS.items():
        bench.app.command(name)(command)
    sys.argv.insert(1, "bench")
    sys.exit(cli.run())

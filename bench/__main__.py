"""``python -m bench`` in a checkout: ``bitnet bench`` of the package, and comparisons that need other software."""

import sys

from bitnet_rust import bench, cli

from . import convergence, options, train
from .peers import compare

if __name__ == "__main__":
    bench.app.command("convergence")(convergence.command)
    bench.app.command("train")(train.command)
    bench.app.command("options")(options.command)
    bench.app.command("peers")(compare.command)
    sys.argv.insert(1, "bench")
    sys.exit(cli.run())

"""``python -m bench`` in a checkout is ``bitnet bench`` of the package."""

import sys

from bitnet_rust.cli import run

if __name__ == "__main__":
    sys.argv.insert(1, "bench")
    sys.exit(run())

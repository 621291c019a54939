"""``python -m bitnet_rust`` is the ``bitnet`` command."""

from .cli import main

if __name__ == "__main__":
    main()

"""``python -m bench`` in a checkout; the same as ``bitnet bench`` of the installed package."""

from bitnet_rust.bench import main

if __name__ == "__main__":
    main()

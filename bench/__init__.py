"""Measurements of this repository's speed: ``python -m bench --help``."""

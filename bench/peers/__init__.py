"""Other programs that run BitNet models, on the same shapes, in turns with this one: ``python -m bench peers``."""

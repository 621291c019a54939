"""BitNet models behind other programs."""

"""Tensors of models: reading any file of them, renaming, strict loading, saving."""

"""Texts, the tokenizers that cut them, and the windows that a model learns from."""

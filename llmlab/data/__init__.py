"""Texts and examples: corpora, tokenizers, the windows that a model learns from, and conversations as tokens."""

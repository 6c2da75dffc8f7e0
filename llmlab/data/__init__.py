"""Texts and examples: corpora, tokenizers, the sequences that a model learns from, and conversations as tokens."""

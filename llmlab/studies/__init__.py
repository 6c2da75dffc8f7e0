"""Experiments and papers: groups of runs and models that answer a question."""

"""Prompting a checkpoint, and seeing how likely it held each token that it wrote."""

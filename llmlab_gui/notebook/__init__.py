"""The notebook in the window: what was predicted, asked for and scored. No torch."""

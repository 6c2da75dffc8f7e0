"""A run on disk: its folder, its checkpoints, its events, and the process that trains it."""

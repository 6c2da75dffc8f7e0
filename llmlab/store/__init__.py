"""A run on disk: its folder, its checkpoints, its log of events, and the requests that it is sent."""

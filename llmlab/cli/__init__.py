"""`llmlab-run`: the lab in a terminal."""

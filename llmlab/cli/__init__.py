"""`llmlab-run`: the lab without its window."""

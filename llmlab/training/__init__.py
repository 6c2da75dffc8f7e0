"""What a run does: the loop, its schedule and optimizer, and the words in which it reports."""

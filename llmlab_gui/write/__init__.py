"""Generation: prompts a checkpoint and shows the probability of each generated token."""

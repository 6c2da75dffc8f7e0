"""What the inspection panels share: the active model, its prompt, what was found, and what is pointed at."""

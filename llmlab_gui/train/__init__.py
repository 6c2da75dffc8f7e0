"""Training: setting a run up, starting and queueing it, its charts, samples, checkpoints and log."""

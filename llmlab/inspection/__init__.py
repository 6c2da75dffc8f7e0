"""Looking inside a model: what is read, what is computed from it, and where it is kept."""

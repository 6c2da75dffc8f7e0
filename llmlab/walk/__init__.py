"""A walk through one's own model: one prompt forwards, one sequence backwards, stage by stage and number by number."""

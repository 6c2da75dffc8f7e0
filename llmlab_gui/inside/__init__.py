"""Looking inside the active model: one module a panel, and what they compute from an archive."""

"""Experiments as the window sees them: found, followed, planned, started, asked."""

"""Runs as the window sees them: found, followed, started, asked."""

"""Experiments: found, followed, planned, started, and their results as charts and reports."""

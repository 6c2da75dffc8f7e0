"""Paths through the pages: their stations, what was done of them, and what was explained from memory. No torch."""

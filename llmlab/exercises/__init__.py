"""Exercises: the pieces of a GPT, written by whoever learns, checked, and trained with."""

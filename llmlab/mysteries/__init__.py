"""Runs in which one thing is broken, sealed until the learner has said what."""

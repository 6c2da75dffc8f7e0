"""Attention sinks and growing norms, checked on models that are here."""

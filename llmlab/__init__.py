"""LLM Learning Lab: the core, shared by the desktop application and the command line. Never imports Qt."""

__version__ = "0.5.0"

"""The window's panels: one file a dock."""

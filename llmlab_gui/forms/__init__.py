"""Forms that are built from a settings schema."""

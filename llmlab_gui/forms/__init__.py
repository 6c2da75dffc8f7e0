"""Forms that are built from a settings schema, and the boxes that name a model, a corpus or examples."""

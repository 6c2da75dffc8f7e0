"""The workspace Walk: one prompt through the window's model, stage by stage."""

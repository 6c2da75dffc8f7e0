"""Tasks whose exact posterior is known, made by a program: what a model could know at best is known."""

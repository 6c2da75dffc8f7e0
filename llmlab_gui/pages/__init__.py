"""The pages of Learn: found, read, linked, checked and turned to HTML."""

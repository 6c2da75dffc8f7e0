"""The GPT that the lab trains from scratch, written to be read."""

"""The notebook of predictions: its dock, and the question before a run. No torch."""

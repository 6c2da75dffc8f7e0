"""Papers: their claims, the checks of them, and the evidence for each verdict."""

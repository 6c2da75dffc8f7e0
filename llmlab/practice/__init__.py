"""Questions computed from one's own models and runs: what is asked, how it is marked, when it comes back."""

"""Where a model's parts are, how one forward pass is observed, and the probe that checks both by measuring."""

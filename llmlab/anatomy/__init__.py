"""Where a model's parts are, how one pass is watched, and the probe that measures what is claimed of both."""

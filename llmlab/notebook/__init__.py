"""The notebook: what the learner predicted before a run or experiment, and what it became. No torch, no Qt."""

"""Practice: questions about the learner's own model, in a panel of their own and in the pages of Learn."""

"""Practice: questions about the learner's own model, in a panel of their own and under the pages of Learn."""

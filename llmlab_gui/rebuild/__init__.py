"""The Rebuild workspace: pieces of a GPT that learners write themselves."""

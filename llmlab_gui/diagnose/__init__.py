"""Finding what is wrong with a run: evidence, an answer in probabilities, the reveal."""

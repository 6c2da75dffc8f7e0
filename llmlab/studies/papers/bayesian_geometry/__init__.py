"""The Bayesian geometry of attention (arXiv 2512.22471, 2512.22473, 2512.23752): tasks, measures, verdicts."""

"""What every dock is given: the runs, the notebook, and requests of one dock to another."""

"""In-context learning and induction heads (Olsson et al. 2022): a model that copies what came after the last time."""

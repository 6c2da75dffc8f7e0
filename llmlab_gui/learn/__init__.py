"""The Learn dock, and following the links of its pages."""

"""From a reference to an open model that answers."""

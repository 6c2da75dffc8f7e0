"""Papers in the window: which are there, what checks of their claims found, and the claim that is looked at."""

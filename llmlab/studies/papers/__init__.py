"""Papers: their claims, and checks of them."""

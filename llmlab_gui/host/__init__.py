"""The process that holds the active model, and the session that all panels about that model share."""

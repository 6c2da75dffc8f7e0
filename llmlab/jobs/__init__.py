"""Processes: starting runs, the worker that trains one, the queue, and the host of the window's model."""

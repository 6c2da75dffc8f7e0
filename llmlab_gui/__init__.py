"""The desktop application. Never imports torch: training happens in worker processes."""

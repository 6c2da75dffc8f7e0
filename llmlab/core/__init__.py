"""The ground: errors, files, settings, progress, devices, charts as data. It imports nothing of the lab but itself."""

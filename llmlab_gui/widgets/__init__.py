"""Small widgets and what they all need: colours, icons, labels, background work. Nothing here knows the lab."""

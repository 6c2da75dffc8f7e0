"""The window around the docks: menus, bars, workspaces, the palette, closing."""

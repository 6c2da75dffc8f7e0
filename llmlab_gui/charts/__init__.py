"""The pyqtgraph pieces that the docks draw with."""

"""The pyqtgraph pieces that panels draw with."""

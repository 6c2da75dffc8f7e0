"""The figures of the concept pages, each drawn by a function from a formula, the toy, or committed results.

`python tests/page_figures [NAME ...]` draws them anew into resources/concepts/figures. test_page_figures.py holds that
each file is what its function draws. A new figure is a function here, marked `@figure`, and a line in its page.
"""

from page_figures import examples, inside, learning, writing
from page_figures.picture import FIGURES, Picture

__all__ = ["FIGURES", "Picture", "examples", "inside", "learning", "writing"]

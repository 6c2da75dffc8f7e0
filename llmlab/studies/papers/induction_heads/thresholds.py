"""Where the line is between supported and not supported: fixed before the runs, in one place, with their origin.

`ours`: a choice of this lab. `paper`: the paper's own bound. Losses are those of the second reading.
"""

from __future__ import annotations

from llmlab.studies.papers.texts import PaperTexts

# Two layers --------------------------------------------------------------------------------------------------------

# ours: a model that copies has lost nine tenths of ln V, which is what random tokens cost a model that does not. One
# layer must stay above what a reasoner pays that counts tokens and knows positions (`repeats.Repeats.baselines`).
LEARNED = 0.1
# ours: an induction head gives most of its attention to the token that came after; below the second there is none. A
# head that is right about nothing gives each of about 50 tokens 0.02.
HEAD = 0.5
NO_HEAD = 0.2

# Suddenness --------------------------------------------------------------------------------------------------------

# ours: how much of the rise must lie in the window.
RISE_SHARE = 0.8
# paper: it happens from 2.5 to 5 billion tokens, so the window is half of the training up to its end. Measured so, it
# does not depend on how long a model is trained afterwards.
WINDOW = 0.5
# ours: a rise that is even from the first step on has RISE_SHARE, less what noise takes off the shortest window.
EVEN = 0.7
# ours: of the loss's fall, what must come in the same window; half of that would be little.
FALL_INSIDE = 0.5
FALL_OUTSIDE = 0.25
# ours: of the step at which the score is half-way up, how far from it the loss may be half-way down.
LAG = 0.2
LAG_REFUTED = 0.5

# Composition -------------------------------------------------------------------------------------------------------

# ours: of the induction head's score, what the best previous-token head takes with it when it is removed, and what
# every other head of its layer may take. Refuted where the former takes no more than that.
TAKEN = 0.5
SPARED = 0.25

TEXTS = PaperTexts("induction-heads", vars())

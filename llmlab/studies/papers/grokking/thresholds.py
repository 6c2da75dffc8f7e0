"""Where the line is between supported and not supported: fixed before the runs that are judged, in one place.

`ours`: a choice of this lab. `paper`: a number of Power et al. 2022 or Nanda et al. 2023. How many seeds must say the
same is in llmlab.studies.papers.agreement.
"""

from __future__ import annotations

from llmlab.studies.papers.texts import PaperTexts

# Levels of accuracy ------------------------------------------------------------------------------------------------

# ours: the training sums are learned, and the held-out ones are got right. The papers read both off a chart.
FITTED = 0.99
GENERALISED = 0.95

# Late --------------------------------------------------------------------------------------------------------------

# ours: how many times as many steps generalising takes as fitting. The papers' figures show a factor of 50 and more.
LATE_TIMES = 10.0
TOGETHER_TIMES = 2.0  # ours: below this both rise together

# Weight decay ------------------------------------------------------------------------------------------------------

# ours: without weight decay a run must have lasted so many times the steps that the median run with it needed.
WITHOUT_TIMES = 5.0

# Fourier -----------------------------------------------------------------------------------------------------------

# ours, for the paper's "sparse": the key frequencies are the fewest that hold so much of the embedding's power.
KEY_SHARE = 0.9
# ours: there are at most half as many of them as in any embedding of random numbers.
OF_RANDOM = 0.5
RANDOM_EMBEDDINGS = 10  # ours: embeddings with random weights to compare with
# ours: held-out accuracy that the key frequencies alone must keep, and that must be lost without them.
KEPT_ACCURACY = 0.95
LOST_ACCURACY = 0.5
PAPER_KEYS = 5  # paper (Nanda): key frequencies of its main model, of 56

# Progress ----------------------------------------------------------------------------------------------------------

# ours: test accuracy jumps where it leaves the first tenth of its way from the fit to generalising. Added once the
# first run was seen: only checkpoints that know the training sums count, for a spike of the loss throws all back.
ONSET = 0.1
# ours: the share of their own way, from the fit to generalising, that both losses must have gone before that. The
# lower one is what a measure goes that moves with test accuracy.
GONE_BEFORE = 0.25
GONE_TOGETHER = 0.1

TEXTS = PaperTexts("grokking", vars())

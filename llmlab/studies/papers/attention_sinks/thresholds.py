"""Where the line is between supported and not supported: fixed before any model was looked at, with their origin.

`ours`: a choice of this lab. No paper named here gives a bound of its own but Gu et al. 2024 (SINK_SHARE).
"""

from __future__ import annotations

from llmlab.studies.papers.texts import PaperTexts

# All claims --------------------------------------------------------------------------------------------------------

# ours: a control of one draw could be a lucky one.
UNTRAINED_MODELS = 5

# Sink --------------------------------------------------------------------------------------------------------------

# Gu et al. 2024 (arXiv 2410.10781): in their metric a head has a sink where its mean attention to the first token is
# above 0.3, on texts of 64 tokens. Here it is asked of the mean over heads in the upper half of the layers, which is
# stricter. (They count the first query, which sees nothing else; here it is left out.)
SINK_SHARE = 0.30
# Xiao et al. 2023 keep the first four tokens: the three after the first are the other early ones.
OTHER_EARLY = 3

# Position or token ----------------------------------------------------------------------------------------------------

# ours: less than twice what uniform attention gives is no sink of which it could be asked why it is there.
SINK_OVER_UNIFORM = 2.0
# ours: with the first token that draws least, so much must be left of what the one that draws most gets ...
PLACE_KEPT = 0.8
# ours: ... and below this, a token has taken the sink away.
PLACE_LOST = 0.5
# ours: put elsewhere, no token may draw more than this share of what it draws in the first position ...
TOKEN_LEFT_BEHIND = 0.5
# ours: ... and above this, the token draws attention wherever it stands.
TOKEN_TAKES_ALONG = 0.8

# Norms -------------------------------------------------------------------------------------------------------------

# ours: the first and the last eighth of the blocks are left out (at least one each): embeddings and the unembedding
# have scales of their own.
EDGE = 8
# ours: points of the middle that a curve of two parameters is fitted to.
MIDDLE_POINTS = 6
# ours: of a straight line through the logarithms of the norm.
STRAIGHT_R2 = 0.9
# Burnham & Anderson 2002, section 2.6: a model whose AIC is 4 and more above another's has considerably less support.
CLEAR_AIC = 4.0

TEXTS = PaperTexts("attention-sinks", vars())

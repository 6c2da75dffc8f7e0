"""Where the line is between supported and not supported: fixed before the runs, in one place, with their origin.

`ours`: a choice of this lab. `paper`: the papers' own bound. Errors are in bits; nothing here is fitted to a result.
"""

from __future__ import annotations

from llmlab.studies.papers.texts import PaperTexts

# Statistics --------------------------------------------------------------------------------------------------------

# H is permuted within strata of position, length or k; how often: llmlab.studies.papers.statistics.PERMUTATIONS.
# ours: of a permutation test, after Holm's correction.
P_SUPPORTED = 0.01
# ours: within strata, above this nothing was found at all.
P_NOTHING = 0.05
# ours: models with random weights to compare with; their 99th percentile is then the largest one of them.
RANDOM_MODELS = 10
RANDOM_PERCENTILE = 99.0

# Calibration -------------------------------------------------------------------------------------------------------

# ours for each sample; paper: their code passes 0.01 bits after averaging over samples. A uniform prediction is
# wrong by 0.81 (8 values) or 1.11 (20 values).
BIJECTION_ERROR = 0.01
BIJECTION_KL = 0.01
# ours: filters that see the last w observations; a model below the first follows more of the past than w = 3 does.
HMM_SUPPORTED_WINDOW = 3
HMM_REFUTED_WINDOW = 2
# ours and paper: bits, in either task. Their code calls 0.1 and more a failure.
ERROR_REFUTED = 0.1
# paper: the entropy errors that they report (I, version 3), averaged over samples before the difference is taken.
PAPER_BIJECTION_ERROR = 0.007
PAPER_HMM_ERROR = 0.049

# Architecture ------------------------------------------------------------------------------------------------------

# paper: models without attention fail "by orders of magnitude"; one of these is the least that the words can mean.
TIMES_WORSE = 10.0
# ours: at most twice the transformer's error is as good as it; errors of seeds differ by less.
TIMES_ALIKE = 2.0

# Manifold ----------------------------------------------------------------------------------------------------------

PC1_SHARE = 0.30  # paper (III): PC1 of the z-scored values has more than 30 % of their variance
RHO = 0.6  # ours: |Spearman(PC1, H)|
R2_GAIN = 0.05  # ours: held-out R² of H from the values beyond position, length and number of examples
RHO_WITHIN = 0.3  # ours: |Spearman(PC1, H)| within a stratum, where position explains nothing

# Keys --------------------------------------------------------------------------------------------------------------

KEY_LAYERS = 0.5  # ours and paper: the share of layers in which it must hold
PAPER_KEY_COSINE = 0.20  # paper (III): mean |cos| of keys. Gaussian vectors of 16 or more dimensions pass this, too.

# The use of the axis -----------------------------------------------------------------------------------------------

RANDOM_AXES = 20  # ours: axes beside the one of entropy, scaled to move the stream as far
AXIS_PERCENTILE = 95.0  # ours: the true axis's effect must be above this percentile of theirs

# Alignment ---------------------------------------------------------------------------------------------------------

ALIGNMENT_RHO = 0.7  # ours: Spearman of the attention mass on relevant keys with the layer
ALIGNMENT_P = 0.05  # ours: one-sided, over all orders of the layers; with five layers 1/120 is the least there is
ALIGNMENT_FINAL = 2.0  # ours: what the last layer's mass has to be, in that of uniform attention

# Layers and heads --------------------------------------------------------------------------------------------------

BYPASS_FACTOR = 10.0  # paper (I): without any one layer the error is more than ten times as large

# Pretrained models -------------------------------------------------------------------------------------------------

# The axis of a pretrained model has the bounds of the manifold above; its strata are numbers of examples.
BELIEF_RHO = 0.6  # ours, as for the axis: Spearman(belief, posterior) within a number of examples
# ours: at most half of what stands between a belief of one half and the posterior may be left, in KL(posterior ||
# belief).
BELIEF_KL_SHARE = 0.5
# ours: with other labels, at least half of BELIEF_RHO.
RENAMED_RHO = 0.3
# ours: with labels shuffled, or evidence masked, at most half of what is there without.
CONTROL_SHARE = 0.5
# ours: at the same number of examples, at least half of the variance of the belief's log-odds must outlast a new order.
ORDER_KEPT = 0.5

# Focusing ----------------------------------------------------------------------------------------------------------

# ours and paper (III): from the first to the last layer. Ours leaves out position 0 and divides by log2 of the length.
FOCUSING = 0.30

TEXTS = PaperTexts("bayesian-geometry", vars())

"""What the figures of a report mean, in words for who reads it."""

from segport_train.calibration import NEAR
from segport_train.evaluation import PROBABILITY

# of every report
NOTES = f"""## What the figures mean

- A mask is where the probability is at least {PROBABILITY}, at the slice's own size: the logits are resized, not the \
mask.
- *Pooled pixels*: one count over all pixels of the part, so large tumours weigh most. *Per patient*: a patient's \
slices are pooled, then the mean or median over patients; a patient without tumour in truth and mask counts as 1. *Per \
tumour slice*: every slice with tumour in the truth by itself, so the small ends of a tumour weigh as much as its \
middle.
- Probabilities are computed in the precision of the training: with bf16 the pooled Dice may differ by 0.001 from \
that of the exported model, which `seg-export` judges by itself.
- *95 % interval*: percentiles of 10,000 resamples of the patients (bootstrap), also for pooled figures; slices of a \
patient are not independent. One patient alone has none, and with fewer than about ten it is too \
narrow. It holds the chance in who the patients are, not the chance in the training.
- *Predicting nothing*: empty masks. Nearly all pixels are background, so their accuracy is high: an accuracy says \
something only by how far it lies above.
- *Precision*: share of the mask that is tumour. *Recall*: share of the tumour that is in the mask. Per patient, \
precision of an empty mask is 0 where there is tumour and 1 where there is none; recall without tumour is 1 if the \
mask is empty, else 0.
- *HD95*: 95th percentile of the distances between the two outlines, mean over a patient's slices with tumour in mask \
or truth, then over patients; where one of the two is empty it is the slice's diagonal.
- A tumour slice is *found* when at least one of its tumour pixels is in the mask, else *missed*.
- *ECE* (expected calibration error): the mean over pixels of how far the mean probability and the share of tumour lie \
apart in ten bins. Over all pixels it is small for any trained network, since nearly all are certain background; the \
second figure is of pixels with a probability from {NEAR}.
"""

# of what stands in the report of a run alone, behind those above
RUN_NOTES = """- *Copying the nearest training slice*: its true mask, without a look at the picture; shown where a \
patient is in the training part too. What a network scores beyond it is what it has learnt.
- *Loss* in the curves: `step_loss` is of the augmented batches while they are learnt, as many slices with tumour as \
without, and has the auxiliary head's part in it; `train_loss` and `val_loss` are of all slices as they are, without \
that. They are not to be compared with each other.
"""

# %% [markdown]
# # 1. Benign or malignant
#
# **Aim.** A net learns to tell benign lesions from malignant ones, and is right 98 times in 100. Then you look at what this
# one number hides: whom the net misses, and whom it frightens.
#
# **Read before.** The first page of `README.md`. Nothing else.

# %%
from course import QUICK, first_net, out, panels, show  # before all others, see there

# isort: split
import numpy as np

from minidl import data, inference, metrics
from minidl.view.figure import BLUE, GREY, ORANGE

# %% [markdown]
# ## Predict
#
# Write these down before you run a cell.
#
# 1. Of 1,020 people 20 have a malignant lesion. Somebody says "benign" to all of them. How often is that right?
# 2. A net finds 98 of 100 malignant lesions, and clears 98 of 100 benign ones. It says "malignant" to one of these 1,020
#    people. How likely is it that this is true?

# %% [markdown]
# ## The images, and the net
#
# The lesions are drawn by the computer, so that we know everything about them. A malignant one has an irregular border and a
# dark nucleus off its centre. The freckle beside it says nothing. The net is a small ResNet with 74,770 parameters; lesson 8
# explains its blocks. It is trained once, by `examples/train.py`, and all later lessons use it again.

# %%
net = first_net()  # trains, in one to two minutes, where no net is there yet
test_set = data.lesions(200 if QUICK else 2000, seed=1)
logits = inference.predict(net.model, net.inputs(test_set.images))  # (N,2), one score for each class
print(f"{metrics.accuracy(logits, test_set.labels):.1%} of {len(test_set):,} test images right")

# %% [markdown]
# ## Two kinds of mistakes
#
# Call malignant "positive". Then there are four cases: true and false positives (TP, FP), true and false negatives (TN, FN).
# They are the four numbers of the confusion matrix, `minidl/metrics/classification.py`.
#
# - sensitivity = TP / (TP + FN): of the ill, how many are found
# - specificity = TN / (TN + FP): of the healthy, how many are cleared
# - accuracy = (TP + TN) / all: the mean of both, weighted by how many of each there happen to be


# %%
def rates(matrix: np.ndarray) -> tuple[float, float, float]:
    (TN, FP), (FN, TP) = matrix  # a row is the truth, a column the answer
    return TP / (TP + FN), TN / (TN + FP), (TP + TN) / matrix.sum()  # sensitivity, specificity, accuracy


balanced = metrics.confusion_matrix(logits, test_set.labels)
print("half of them malignant: sensitivity {:.1%}, specificity {:.1%}, accuracy {:.1%}".format(*rates(balanced)))

# %% [markdown]
# ## The same net in a screening
#
# Among people who come to a screening few are ill. We keep all benign images, and 2 malignant ones for every 100 of them.
# Neither the net nor the lesions changed. Watch what "always benign" scores now, and how many alarms are false.

# %%
benign, malignant = (np.flatnonzero(test_set.labels == k) for k in (0, 1))
people = np.concatenate([benign, malignant[: len(benign) // 50]])
screening = metrics.confusion_matrix(logits[people], test_set.labels[people])
(TN, FP), (FN, TP) = screening
print("screening: sensitivity {:.1%}, specificity {:.1%}, accuracy {:.1%}".format(*rates(screening)))
print(f"'always benign' has an accuracy of {metrics.majority_accuracy(test_set.labels[people]):.1%}, and finds nobody")
print(f"{TP + FP} alarms, {TP} of them true")

# %% [markdown]
# ## The threshold is yours
#
# The net gives a probability, and "malignant" from 50% on is only a habit. With a lower threshold you miss fewer and frighten
# more.

# %%
p = metrics.probabilities(logits)[:, 1]  # of malignant, for each image
thresholds = np.linspace(0.01, 0.99, 99)
sensitivity = [metrics.sensitivity(p >= t, test_set.labels) for t in thresholds]
specificity = [metrics.specificity(p >= t, test_set.labels) for t in thresholds]

# %% [markdown]
# ## The image

# %%
fig, (first, second, curve) = panels("One net: half of the people ill, two in a hundred ill, and every threshold", 3)
for ax, matrix, name in (first, balanced, "test images"), (second, screening, "screening"):
    ax.imshow(matrix / matrix.sum(1, keepdims=True), cmap="Blues", vmin=0, vmax=2)
    for (t, k), n in np.ndenumerate(matrix):
        ax.text(k, t, f"{(('TN', 'FP'), ('FN', 'TP'))[t][k]}\n{n:,}", ha="center", va="center", fontsize=12)
    ax.set_xticks((0, 1), ("benign", "malignant"))
    ax.set_yticks((0, 1), ("benign", "malignant"), rotation=90, va="center")
    ax.set(xlabel="what the net says", ylabel="what it is")
    ax.set_title(f"{name}: {rates(matrix)[2]:.1%} right", fontsize=10, loc="left")
curve.plot(thresholds, sensitivity, color=ORANGE, label="sensitivity")
curve.plot(thresholds, specificity, color=BLUE, label="specificity")
curve.axvline(0.5, color=GREY, lw=0.8, ls=":")
curve.set(xlabel="threshold of p(malignant)", ylim=(min(0.9, min(sensitivity), min(specificity)), 1.005))
curve.set_title("what the threshold trades", fontsize=10, loc="left")
curve.legend(frameon=False, fontsize=9)
show(out("01_classification.png"), "the same net has one accuracy and many kinds of mistakes", fig)

# %% [markdown]
# ## Questions
#
# 1. Why does the sensitivity not depend on how many people are ill, while the share of true alarms does?
# 2. You want to miss no melanoma at all. Which threshold does that, and what does it cost?
# 3. Training, validation, test: on which of them do you choose the threshold, and why not on the test images?
#
# ## Exercise
#
# Write the confusion matrix yourself, in `examples/exercises/lesson01.py`, then run `python -m pytest examples/exercises -k
# lesson01`.

# %% [markdown]
# # 10. Few training images
#
# **Aim.** You take the net of lesson 1 to a second kind of lesion, of which there are few images: from scratch, with a frozen
# body, and fine-tuned. You draw how good each becomes, over the number of images.
#
# **Read before.** Lesson 1, `minidl/train/transfer.py`, and "Few images" in `examples/README.md`.

# %%
from course import QUICK, first_net, fitted, out, panels, show  # before all others, see there

# isort: split
import numpy as np

import models
from minidl import data, inference, metrics
from minidl.bar import Bar
from minidl.data import Normalize
from minidl.train import Settings
from minidl.view.figure import BLUE, GREY, ORANGE

# %% [markdown]
# ## Predict
#
# 1. Of the second kind you have 32 images. Three nets: drawn anew and trained on them; that of lesson 1 with only its last
#    layer trained; that of lesson 1, all of it trained. Order them by their AUC on new images.
# 2. And with 512 images?

# %% [markdown]
# ## A second kind of lesion
#
# What makes these lesions malignant is seen in blue light alone: red and green show the benign twin. The net of lesson 1 has
# never met that. The AUC is the probability that a malignant image gets a higher score than a benign one: 0.5 is a coin, 1 is
# never wrong (`minidl/metrics/roc.py`).

# %%
first = first_net()


def second_kind(n: int, seed: int) -> data.Dataset:
    return data.lesions(n, seed=seed, evidence_channel=2)


test_set = second_kind(100 if QUICK else 1000, seed=12)


def auc(model, mean_std) -> float:
    logits = inference.predict(model, Normalize(*mean_std)(test_set.images))
    return metrics.auc(logits[:, 1] - logits[:, 0], test_set.labels)


as_it_is = auc(first.model, (first.contract.mean, first.contract.std))
print(f"the net of lesson 1 as it is: AUC {as_it_is:.3f}")

# %% [markdown]
# ## Three ways
#
# A fine-tuned net has two learning rates. The last layer, the head, answers a new question and must learn it; the body knows
# edges and colours already, and moves slowly:
#
#     head: w -= lr g,    body: w -= 0.1 lr g
#
# Frozen is a factor of 0: then the body's gradients are not even computed. `minidl/train/transfer.py` makes the groups, and
# `examples/train.py` has the flags: `--weights`, `--freeze`, `--body-lr`. In all three ways each epoch shows the images anew,
# mirrored and shifted by a pixel or two (`flip`, `crop`): augmentation, the cheapest way to more images.

# %%
weights = str(out("01_net") / "model.safetensors")
ways = {
    "from scratch": {},
    "frozen body": {"weights": weights, "freeze": ("conv1", "bn1", "layer1", "layer2", "layer3")},
    "fine-tuned": {"weights": weights, "body_lr": 0.1},
}
epochs = {16: 1, 32: 1} if QUICK else {32: 40, 128: 20, 512: 8}  # images: epochs
found: dict[str, list[float]] = {name: [] for name in ways}
for n in Bar(list(epochs), leave=False, disable=None):
    train_set = second_kind(n, seed=11)
    for name, changed in ways.items():
        model = models.resnet8(num_classes=2)
        settings = Settings(epochs=epochs[n], batch_size=16, lr=0.02, crop=2, flip="both", **changed)
        fitted(model, train_set, settings)
        found[name].append(auc(model, train_set.mean_std()))
        print(f"{n:4} images, {name:12}: AUC {found[name][-1]:.3f}")

# %% [markdown]
# ## The image

# %%
fig, (look, curves) = panels("A second kind of lesion: what the net of lesson 1 is worth there", 2, 10, width_ratios=(1, 2))
pair = second_kind(2, seed=5)
tiles = [np.hstack([image[2], image.mean(0)]) for image in pair.images]
look.imshow(np.vstack(tiles), cmap="gray")
look.set(xticks=(), yticks=())
look.set_title("blue, and all channels;\nbenign above, malignant below", fontsize=10, loc="left")
for (name, values), color in zip(found.items(), (GREY, BLUE, ORANGE), strict=True):
    curves.plot(list(epochs), values, "o-", color=color, label=name)
curves.axhline(as_it_is, color=BLUE, lw=1, ls=":", label="lesson 1's net as it is")
curves.axhline(0.5, color=GREY, lw=0.8, ls="--", label="a coin")
curves.set_xscale("log", base=2)
curves.set_xticks(list(epochs), [str(n) for n in epochs])
curves.set(xlabel="training images of the second kind", ylim=(0.35, 1.02))
curves.set_title("AUC on 1,000 new images" if not QUICK else "AUC on 100 new images", fontsize=10, loc="left")
curves.legend(frameon=False, fontsize=8)
show(out("10_few_images.png"), "a net that has seen other lesions needs far fewer images of the new kind", fig)

# %% [markdown]
# ## Questions
#
# 1. Why does the last layer need a higher learning rate than the body, and what would a high one do to the body in the first
#    steps?
# 2. Batch norm has running means of the first kind of lesion. What becomes of them where layers are frozen, and what where
#    they are tuned?
# 3. 32 images, of which you hold a third out to choose between the three ways. How sure is that choice, and what could you
#    do?
#
# ## Exercise
#
# Write the groups of parameters with their learning rates, and the step with momentum that an optimiser takes with them, in
# `examples/exercises/lesson10.py`, then run `python -m pytest examples/exercises -k lesson10`.

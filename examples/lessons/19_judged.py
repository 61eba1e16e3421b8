# %% [markdown]
# # 19. Do the maps tell the truth?
#
# **Aim.** You plant a truth: a second net learns that ink means malignant, and you check that it did. Then you judge maps by
# whether they show this, beside chance, and beside maps that know nothing of the net.
#
# **Read before.** Lessons 13 and 15, `minidl/evaluate/pointing.py`, and "Do the maps tell the truth?" in `examples/README.md`.

# %%
from course import QUICK, first_net, fitted, out, panels, show  # before all others, see there

# isort: split
import ground_truth as example  # examples/ground_truth.py
import numpy as np

import models
from minidl import data, evaluate, inference, metrics
from minidl.train import Settings
from minidl.view.figure import BLUE, GREY, ORANGE
from minidl.view.maps import color_scale, draw

# %% [markdown]
# ## Predict
#
# 1. An ink mark covers 1.5% of the image. How often is the highest pixel of a random map on it?
# 2. A map shows the mark most strongly. Does the net use the mark? What else could it be?

# %% [markdown]
# ## Two nets
#
# The net of lesson 1 never saw ink. The other one learns, from scratch, from images in which 95% of the malignant lesions
# have an ink mark beside them, and 5% of the benign ones. Such things happen: surgeons draw around what they worry about.
# Ink is easier to learn than lesions, so that comes first.

# %%
first = first_net()
train_set = data.lesions(300 if QUICK else 4000, seed=0, mark=(0.05, 0.95))
inked = models.resnet8(num_classes=2)
settings = Settings(epochs=1 if QUICK else 4, batch_size=50, lr=0.05, crop=2, flip="both")
fitted(inked, train_set, settings)
normalize = data.Normalize(*train_set.mean_std())
nets = {"first": (first.model.eval(), first.inputs), "inked": (inked.eval(), normalize)}

# %% [markdown]
# ## Is the truth planted?
#
# Do not believe it, try it: draw the same images without the ink, and again with the lesion turned benign. A net that relies
# on something changes its answer when that goes. Only images in which both nets are seen to do so are taken.

# %%
n = 100 if QUICK else 400
d, no_ink, benign = (
    data.lesions(n, seed=2000, mark=(1, 1), **changed) for changed in ({}, {"without": ["mark"]}, {"flip": True})
)


def p_malignant(name: str, images: np.ndarray) -> np.ndarray:
    model, prepare = nets[name]
    return metrics.probabilities(inference.predict(model, prepare(images)))[:, 1]


for name in nets:
    said = ", ".join(f"{p_malignant(name, s.images[d.labels == 1]).mean():.2f}" for s in (d, no_ink, benign))
    print(f"the {name} net, mean p(malignant) of malignant lesions with ink, without ink, with ink and benign: {said}")
right = (d.labels == 1) & (p_malignant("inked", d.images) > 0.5) & (p_malignant("inked", no_ink.images) < 0.5)
right &= (p_malignant("first", d.images) > 0.5) & (p_malignant("first", benign.images) < 0.5)
taken = np.flatnonzero(right if right.any() else d.labels == 1)[:48]  # --quick trains too little to plant anything
print(f"{right.sum()} of {(d.labels == 1).sum()} images pass; {len(taken)} are taken")

# %% [markdown]
# ## The pointing game
#
#     score = the share of images in which the map's highest pixel is on the mark
#
# Chance is the mark's share of the image (`minidl/evaluate/pointing.py`). Of the inked net a true map points at the mark. Of
# lesson 1's net, on the same images, it points there less: it was never told about ink. So a method is judged by the
# *difference*. A map that shows edges, whichever net it is asked about, points at the same pixel both times.

# %%
names = ["gradient", "gradient x input", "SmoothGrad", "guided backprop", "Grad-CAM, layer 2", "occlusion"]
chosen, mark = d.images[taken], d.masks["mark"][taken]
maps = {(kind, knows): example.BASELINES[kind](chosen) for kind in ("centre", "Sobel") for knows in nets}
for method in names[:3] if QUICK else names:
    explain, how = example.METHODS[method]
    for name, (model, prepare) in nets.items():
        found = explain(model, prepare(chosen), 1, **how).map  # what speaks for malignant?
        maps[method, name] = found if method == "gradient" else np.maximum(found, 0)
points = {key: evaluate.pointing_game(m, mark) for key, m in maps.items()}
methods = list(dict.fromkeys(method for method, _ in maps))
for method in methods:
    print(f"{method:18}", ", ".join(f"{name} net: {points[method, name]}" for name in nets))

# %% [markdown]
# ## The image

# %%
fig, (look, one, other, bars) = panels(
    "The same images, and two nets with different reasons", 4, 13, width_ratios=(1, 1, 1, 2.2)
)
draw(look, chosen[0])
look.set_title("malignant, with ink", fontsize=10, loc="left")
for ax, name in (one, "first"), (other, "inked"):
    draw(ax, chosen[0], maps["SmoothGrad", name][0], color_scale(maps["SmoothGrad", name][:1]))
    ax.set_title(f"SmoothGrad, the {name} net", fontsize=10, loc="left")
for ax in look, one, other:
    ax.set_axis_off()
for shift, name, color in (-0.2, "first", BLUE), (0.2, "inked", ORANGE):
    means = [100 * points[method, name].value.mean() for method in methods]
    bars.barh(np.arange(len(methods)) + shift, means, height=0.38, color=color, label=f"the {name} net")
bars.axvline(100 * mark.mean(), color=GREY, ls=":", label="chance")
bars.set_yticks(range(len(methods)), methods)
bars.invert_yaxis()
bars.set(xlim=(0, 100))
bars.set_title("highest pixel on the mark (% of images)", fontsize=10, loc="left")
bars.legend(frameon=False, fontsize=8)
show(out("19_judged.png"), "a map that tells the truth points at the ink of the one net, and not of the other", fig)

# %% [markdown]
# ## Questions
#
# 1. Why are the Sobel edges among the judged? What would it mean if a method did no better?
# 2. We took only images that passed the test of what the nets rely on. What would the scores say without that test?
# 3. On real images nobody knows what the net relies on. Which of all this can still be done there?
#
# ## Exercise
#
# Write the pointing game, in `examples/exercises/lesson19.py`, then run `python -m pytest examples/exercises -k lesson19`.

# %% [markdown]
# # 16. Saliency by perturbation
#
# **Aim.** You do not ask what a small change would do; you change the image, and look for the smallest region whose loss
# makes the net lose its class. And you see what each term of that search is for.
#
# **Read before.** Lesson 13, `minidl/explain/meaningful.py`, and Fong and Vedaldi 2017, "Interpretable explanations of black
# boxes by meaningful perturbation", section 4.

# %%
from course import QUICK, first_net, out, show  # before all others, see there

# isort: split
import warnings

import numpy as np
import perturbation as example  # examples/perturbation.py

from minidl import data, explain, view

# %% [markdown]
# ## Predict
#
# 1. A mask may delete any pixels, and is paid only for taking the probability of the class down. What does it delete?
# 2. Now every deleted pixel costs, but nobody asks for smoothness. What will the mask look like? Think of lesson 17, too.

# %% [markdown]
# ## The question
#
# A mask m says of each pixel whether it is kept (1) or replaced by a blurred image (0). Phi is what the net then sees. The
# mask learns as weights do, by going down a gradient, that of
#
#     lambda1 sum |1 - m|  +  p_c(Phi)  +  lambda2 sum (dx^2 + dy^2)^(beta/2)
#     delete little (L1)      lose the class   few edges in the mask (total variation, TV)
#
# The mask is also coarser than the image, and blurred: smoothness by construction. Both keep it from finding a few single
# pixels that fool the net, and explain nothing.

# %%
net = first_net()
lesions = data.lesions(8, seed=1)
which = np.array([1, 3]) if QUICK else np.array([0, 1, 3])
x = net.inputs(lesions.images[which])
ways = {
    "all terms": {},
    "without L1": {"lambda1": 0.0},
    "without TV": {"lambda2": 0.0},
    "without TV,\nnot blurred": {"lambda2": 0.0, "stride": 1, "sigma": 0.3},
}
found = {}
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", ".*the map is 0 everywhere")  # of a net that was trained --quick
    for name, changed in ways.items():
        found[name] = explain.meaningful_perturbation(
            net.model, x, lesions.labels[which], setting="localisation", iterations=15 if QUICK else 150, **changed
        )

# %% [markdown]
# ## What is left
#
# For each mask: how much is deleted, what is left of the probability, and how rough the mask is, measured by the sum of all
# differences between neighbours.

# %%
before = example.probability(net.model, x, lesions.labels[which])
print("p of the right class before:", ", ".join(f"{p:.3f}" for p in before))
for name, e in found.items():
    after = example.probability(net.model, example.deleted(x, e), lesions.labels[which])
    rough = np.abs(np.diff(e.map, axis=1)).sum((1, 2)) + np.abs(np.diff(e.map, axis=2)).sum((1, 2))
    head = name.replace("\n", " ")
    print(f"{head:24} deletes {e.map.mean():5.1%}, p {np.mean(after):.3f} (mean), roughness {rough.mean():.0f}")

# %% [markdown]
# ## Does the question have an answer?
#
# Blur everything: does the net lose the class at all? A blurred image is still something, and of two classes one is always
# more likely. Where it stays, no mask can take it away, and the search finds nothing. Look at this number before you trust a
# mask: `everything=True` deletes all.

# %%
everything = example.probability(net.model, example.deleted(x, found["all terms"], everything=True), lesions.labels[which])
print("p of the right class with all of the image blurred:", ", ".join(f"{p:.3f}" for p in everything))

# %% [markdown]
# ## The image

# %%
captions = [f"{net.classes[k]}\np {example.percent(p)}" for k, p in zip(lesions.labels[which], before, strict=True)]
maps = {name: e.map for name, e in found.items()}
view.comparison(
    out("16_perturbation.png"),
    net.contract.shown(lesions.images[which]),
    maps,
    captions,
    "What must go, and what each term is for",
)
show(out("16_perturbation.png"), "without the price of a pixel too much goes; without smoothness the mask is dust")

# %% [markdown]
# ## Questions
#
# 1. Why is a pixel replaced by a blurred one, and not by black?
# 2. The mask of lesson 13's gradient needs one backward pass, this one hundreds. What do you get for that?
# 3. "The smallest region whose loss loses the class" and "the smallest region that suffices" are two questions. Make up an
#    image for which the answers differ. (`explain.extremal_perturbation` asks the second one.)
#
# ## Exercise
#
# Write the TV term and its gradient, in `examples/exercises/lesson16.py`, then run `python -m pytest examples/exercises -k
# lesson16`.

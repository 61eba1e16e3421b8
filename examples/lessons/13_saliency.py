# %% [markdown]
# # 13. Saliency: backpropagation into the image
#
# **Aim.** You go back one step further than training does, from the score into the image, and see which pixels the net
# looked at. And you learn to ask for the score, because the gradient of the probability vanishes.
#
# **Read before.** Lessons 2 and 4, `minidl/explain/saliency.py`, and Simonyan, Vedaldi and Zisserman 2014, "Deep inside
# convolutional networks", section 3.

# %%
from course import QUICK, first_net, out, show  # before all others, see there

# isort: split
import common
import numpy as np
import saliency as example  # examples/saliency.py

from minidl import Tensor, data, explain, gradients, inference, metrics

# %% [markdown]
# ## Predict
#
# 1. A net is 99.9% sure of its answer. The gradient of which is longer, that of the score S or that of the probability p? By
#    about which factor?
# 2. Training needs the gradients of all weights. How much does the gradient of the image cost, where the weights need none:
#    more than that, or less?

# %% [markdown]
# ## One image
#
# The net is fixed now: its weights need no gradient. The image does. The rest is lesson 2: run forward, pick one number,
# walk back. That number is the score S of the class that the net predicts. The map has one number for each pixel, the largest
# over the three colours:
#
#     map[i,j] = max over the colours k of |dS/dx[k,i,j]|

# %%
net = first_net()
lesions = data.lesions(60 if QUICK else 200, seed=1)
x = net.inputs(lesions.images)  # (N,3,32,32), normalised as in training
image = Tensor(x[:1], requires_grad=True)
with net.model.eval().frozen():
    logits = net.model(image)
c = int(logits.data.argmax())
g = gradients(logits[0, c], [image])[0]  # (1,3,32,32)
by_hand = np.abs(g).max(1)  # (1,32,32)
print(f"the net says {net.classes[c]}, score {logits.data[0, c]:.2f}")
print(f"explain.saliency differs by {np.abs(by_hand - explain.saliency(net.model, x[:1]).map).max():.1e}")

# %% [markdown]
# ## Why not the probability?
#
# p is what a doctor reads, so why not ask for dp/dx? Take the softmax apart (lesson 4):
#
#     dp_c = p_c (dS_c - sum over k of p_k dS_k)
#
# Of two classes that is p (1 - p) times the gradient of S_c - S_other. A net that is sure has 1 - p near 0, whatever the
# image shows. The probability has reached its end and cannot rise any more. The score has no end.

# %%
by_score, by_p = (explain.saliency(net.model, x, output=output) for output in ("logit", "prob"))
p = metrics.probabilities(logits.data)[0]
g_all = [gradients(net.model.eval()(image)[0, k], [image])[0] for k in (0, 1)]
dp = p[c] * (g_all[c] - sum(p[k] * g_all[k] for k in (0, 1)))  # the formula above
print(f"formula and explain.saliency differ by {np.abs(dp[0] - by_p.raw[0]).max():.1e}")
length = {name: np.sqrt((e.raw.astype(np.float64) ** 2).sum((1, 2, 3))) for name, e in (("dS", by_score), ("dp", by_p))}
odds = example.log_odds(inference.predict(net.model, x), by_p.target)  # log p / (1 - p)
for name, i in ("the surest image", odds.argmax()), ("the least sure", odds.argmin()):
    print(f"{name}, 1 - p = {1 / (1 + np.exp(odds[i])):.1e}: |dS/dx| = {length['dS'][i]:.2g}, |dp/dx| = {length['dp'][i]:.2g}")

# %% [markdown]
# ## Is it on the lesion?
#
# We drew the lesions, so we know where they are. What share of the map lies on the lesion, and how many times more is that
# than of a map that is the same everywhere? Lesson 19 asks this question with all care.

# %%
mask = lesions.masks["lesion"]
share = (by_score.map * mask).sum((1, 2)) / by_score.map.sum((1, 2))
print(f"{share.mean():.0%} of the map lies on the lesion, which covers {mask.mean():.1%} of the image")

# %% [markdown]
# ## The image
#
# `examples/saliency.py` draws it. All maps of a row have the same colours: below, the map fades as the net gets surer.

# %%
loaded = common.Loaded(net, lesions.images, lesions.labels)
example.saturation(out("13_saliency.png"), loaded, None)
show(out("13_saliency.png"), "the surer the net, the less its probability can change; the score goes on telling what counts")

# %% [markdown]
# ## Questions
#
# 1. A pixel has a large gradient. Does that mean that it speaks for the class? Think of a dark pixel whose gradient is
#    negative.
# 2. The maps are speckled. Which layers of the net make neighbouring pixels so different? (Lesson 3, question 3.)
# 3. dS/dx says what a *small* change does. What does it say of a pixel without which the answer would be another one?
#
# ## Exercise
#
# Write the gradient of a probability in the scores, in `examples/exercises/lesson13.py`, then run `python -m pytest
# examples/exercises -k lesson13`.

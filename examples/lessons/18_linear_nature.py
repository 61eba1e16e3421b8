# %% [markdown]
# # 18. The (piecewise) linear nature of nets
#
# **Aim.** You fool the net of lesson 1 with one step, the fast gradient sign method, by changes that nobody sees. Then you
# see why it works: along that direction a net of relus is nearly a straight line, and one of sigmoids is not.
#
# **Read before.** Lessons 13 and 17, `minidl/attack/fgsm.py`, and Goodfellow, Shlens and Szegedy 2015, "Explaining and
# harnessing adversarial examples", sections 3 to 5.

# %%
from course import QUICK, first_net, out, show  # before all others, see there

# isort: split
import argparse

import linearity as example  # examples/linearity.py
import numpy as np

from minidl import Tensor, attack, data, gradients, inference, metrics, ops

# %% [markdown]
# ## Predict
#
# 1. Every value of an image may change by 4 grey levels of 255. The net is right on 98 of 100 images. On how many is it right
#    if the changes are random? On how many if somebody chooses their signs well?
# 2. A score S is linear, S = w x, with 3,072 values in x, and all |w| = 0.01. Each value of x is changed by 4/255, with the
#    sign of its w. By how much does S change? And if the signs are random?

# %% [markdown]
# ## One step
#
# Training goes down the gradient of the loss in the weights. Now the weights are fixed, and you go up the gradient in the
# image. No value may change by more than eps; so the best step along a straight line is a full eps for all of them:
#
#     x' = clip(x + eps sign(dL/dx)),    L the cross-entropy of the right class
#
# Images u are in [0, 1] here; the net takes (u - mean) / std.

# %%
net = first_net()
lesions = data.lesions(60 if QUICK else 400, seed=1)
u, normalize = net.contract.unit(lesions.images), net.contract.normalize_unit
eps = 4 / 255
leaf = Tensor(u, requires_grad=True)
mean, std = (Tensor(np.float32(v)[:, None, None]) for v in (normalize.mean, normalize.std))
with net.model.eval().frozen():
    loss = ops.cross_entropy(net.model((leaf - mean) / std), lesions.labels)
by_hand = np.clip(u + np.float32(eps) * np.sign(gradients(loss, [leaf])[0]), 0, 1)
given = {"mean": normalize.mean, "std": normalize.std, "batch_size": 50}
other = np.abs(by_hand - attack.fgsm(net.model, u, lesions.labels, eps, **given).x) > 1e-6
print(f"{other.mean():.2%} of the values are others than attack.fgsm's (it sees the images in other batches)")

# %% [markdown]
# ## How often that works
#
# Beside it, changes of the same size with random signs.


# %%
def right(images: np.ndarray) -> float:
    return metrics.accuracy(inference.predict(net.model, normalize(images)), lesions.labels)


signs = np.random.default_rng(0).choice(np.float32([-1, 1]), u.shape)
for level in 0, 1, 2, 4, 8:
    attacked = attack.fgsm(net.model, u, lesions.labels, level / 255, **given)
    noisy = np.clip(u + np.float32(level / 255) * signs, 0, 1)
    print(f"eps {level}/255: right with random signs {right(noisy):.0%}, with those of the gradient {right(attacked.x):.0%}")

# %% [markdown]
# ## Why so little is enough
#
# Along d = sign(dS/dx) a linear score moves by eps times the sum of all |dS/dx|: thousands of small pushes, all of one sign.
# Random signs cancel each other, and leave about the square root of that many. So it is not that the net bends too much. It
# is that it does not bend: Goodfellow's answer to "why so easily fooled?".

# %%
sweep = attack.linearity(net.model, u[:1], max_eps=8 / 255, count=81, **given)
for name, way in ("along the gradient's signs", sweep.along), ("along random signs", sweep.random):
    print(f"{name}: the score moves by {np.ptp(way.logits[:, sweep.target]):.2f}, {way.gates[-1]:.1%} of the gates turn")

# %% [markdown]
# ## Relu against sigmoid
#
# Two small nets that differ in nothing but this, trained for a minute to tell in which quarter the lesion is;
# `examples/linearity.py` does it, and draws all scores over eps. The sigmoids saturate, and their scores bend.

# %%
args = argparse.Namespace(device="cpu", images=300 if QUICK else 3000, epochs=2 if QUICK else 4)
nets, quarters, contract = example.two_nets(args)

# %% [markdown]
# ## The image

# %%
count = 2 if QUICK else 10
example.look(out("18_linear_nature.png"), nets, quarters.images[:count], quarters.labels[:count].tolist(), contract, 64 / 255)
show(out("18_linear_nature.png"), "along one direction a net of relus stays nearly straight, one of sigmoids bends")

# %% [markdown]
# ## Questions
#
# 1. Why the sign of the gradient, and not the gradient itself? Which limit on the change would make the gradient the best?
# 2. Sigmoid nets bend. Why does nobody use them against attacks? Think of lesson 13.
# 3. An attacker of a hospital's net does not have its weights. What could they do?
#
# ## Exercise
#
# Write the fast gradient sign method, in `examples/exercises/lesson18.py`, then run `python -m pytest examples/exercises -k
# lesson18`.

# %% [markdown]
# # 17. Why so easily fooled?
#
# **Aim.** You go up the gradient of a wrong class until the net sees it, and look at how little you had to change. Then you
# compare with other ways, and see what the net would like to see most.
#
# **Read before.** Lesson 13, `minidl/attack/fool.py`, and Szegedy et al. 2014, "Intriguing properties of neural networks",
# section 4.

# %%
from course import QUICK, first_net, out, panels, show  # before all others, see there

# isort: split
import common
import fooling as example  # examples/fooling.py
import numpy as np

from minidl import Tensor, attack, data, gradients
from minidl.view.figure import BLUE, ORANGE

# %% [markdown]
# ## Predict
#
# 1. A lesion is benign, and the net is sure. You may change the image until it says malignant. By how many of 255 grey levels
#    does the most changed value change: about 100, about 30, or fewer than 10?
# 2. Will the changed image look malignant to you?

# %% [markdown]
# ## Up the gradient
#
# It is training turned around. The weights stay, and the image u moves, a step of fixed length along the gradient of the
# wrong class's score; then it is put back into [0, 1]:
#
#     u <- clip(u + step g / |g|),    g = dS_wrong/du

# %%
net = first_net()
lesions = data.lesions(12 if QUICK else 48, seed=1)
loaded = common.Loaded(net, lesions.images, lesions.labels)
normalize = net.contract.normalize_unit
mean, std = (Tensor(np.float32(v)[:, None, None]) for v in (normalize.mean, normalize.std))
u = net.contract.unit(lesions.images[:1])
wrong = 1 - int(example.answers_to(loaded, lesions.images[:1])[0])
scores = []
for _ in range(100):
    leaf = Tensor(u, requires_grad=True)
    with net.model.eval().frozen():
        logits = net.model((leaf - mean) / std)  # (1,2)
    scores.append(logits.data[0])
    if logits.data.argmax() == wrong:
        break
    g = gradients(logits[0, wrong], [leaf])[0]
    u = np.clip(u + np.float32(0.1) * g / np.sqrt((g**2).sum()), 0, 1)  # the line above
change = 255 * np.abs(u - net.contract.unit(lesions.images[:1]))
print(f"after {len(scores) - 1} steps; the largest change is {change.max():.1f} grey levels, the mean {change.mean():.2f}")

# %% [markdown]
# ## How far is it to the border?
#
# Gradient ascent is simple and overshoots. DeepFool goes to the nearest place where the answer turns, as if the net were
# linear; `minidl/attack/` has both, and more. All sizes are in grey levels of 255.

# %%
images = net.contract.unit(lesions.images)
answers = example.answers_to(loaded, lesions.images)
given = example.settings_of(loaded)
ascent = attack.fool(net.model, images, 1 - answers, **given)
nearest = attack.deepfool(net.model, images, answers, **given)
example.report("gradient ascent", ascent)
example.report("DeepFool", nearest)

# %% [markdown]
# ## The image
#
# The scores on the way, one image before and after, and how far it is for all. `examples/fooling.py` shows more of them:

# %%
example.fooled(out("17_fooled.png"), loaded, None)
fig, (curve, before, added, after, sizes) = panels("A net that sees what is not there", 5, 14, width_ratios=(1.6, 1, 1, 1, 1.6))
for k, color in (wrong, ORANGE), (1 - wrong, BLUE):
    curve.plot([row[k] for row in scores], "o-", ms=3, color=color, label=net.classes[k])
curve.set(xlabel="step", ylabel="score")
curve.set_title("up the gradient", fontsize=10, loc="left")
curve.legend(frameon=False, fontsize=8)
original = net.contract.unit(lesions.images[:1])
delta = u - original
factor = 0.5 / max(float(np.abs(delta).max()), 1e-6)
says = net.classes[1 - wrong], f"the change, x {factor:.0f}", net.classes[wrong]
for ax, image, name in zip((before, added, after), (original, 0.5 + factor * delta, u), says, strict=True):
    ax.imshow(image[0].transpose(1, 2, 0).clip(0, 1))
    ax.set(xticks=(), yticks=())
    ax.set_title(name, fontsize=10, loc="left")
for found, color, name in (ascent, ORANGE, "gradient ascent"), (nearest, BLUE, "DeepFool"):
    sizes.plot(np.sort(255 * found.norms["linf"]), color=color, label=name)
sizes.set(xlabel="images, sorted", ylim=(0, None))
sizes.set_title("largest change, grey levels of 255", fontsize=10, loc="left")
sizes.legend(frameon=False, fontsize=8)
show(out("17_fooling.png"), "a change that you hardly see turns the answer around", fig)

# %% [markdown]
# ## Questions
#
# 1. The gradient of lesson 13 explained the answer, and here it destroys it. Is it the same gradient?
# 2. Why does ascent from noise (`attack.class_image`) not give a picture of a lesion, although the net is sure of it?
# 3. The image is rounded to whole grey levels before it is stored. Does that protect the net?
#
# ## Exercise
#
# Write the ascent step, in `examples/exercises/lesson17.py`, then run `python -m pytest examples/exercises -k lesson17`.

# %% [markdown]
# # 11. Images that are not RGB
#
# **Aim.** Medical images have one channel or many, and more than 256 grey levels. You adapt the net of lesson 1 to one
# channel without training, look at a CT-like image through windows, and give a net several slices at once.
#
# **Read before.** Lessons 3 and 10, `minidl/data/windows.py` and `minidl/io/adapt.py`.

# %%
from course import QUICK, first_net, out, panels, show  # before all others, see there

# isort: split
import numpy as np

import models
from minidl import data, inference, metrics, weights
from minidl.data.windows import windowed

# %% [markdown]
# ## Predict
#
# 1. A net was trained on colour images. You show it grey ones, by giving the same grey to all three channels. Then somebody
#    replaces the first convolution by one for one channel, whose kernel is the sum of the three. What changes in the answers?
# 2. CT values go from -1,000 (air) to 3,000 (bone). Squeezed into 256 levels, what is one level? Soft tissue, from 20 to 60:
#    how many levels does it get?

# %% [markdown]
# ## One channel
#
# A convolution adds up its channels: sum over c of w[f,c] * x[c]. If all x[c] are the same grey g, that is
#
#     (sum over c of w[f,c]) * g
#
# so one kernel does it, the sum. For N channels each gets a share, w'[f,n] = (1/N) sum over c of w[f,c]. `weights.load` does it
# where `adapt_input=True` is said.

# %%
net = first_net()
lesions = data.lesions(100 if QUICK else 1000, seed=1)
x = net.inputs(lesions.images)
grey = x.mean(1, keepdims=True)  # (N,1,32,32)
one = models.resnet8(num_classes=2, in_channels=1).eval()
weights.load(one, out("01_net") / "model.safetensors", adapt_input=True)
of_three = inference.predict(net.model, np.repeat(grey, 3, axis=1))
of_one = inference.predict(one, grey)
print(f"the first kernel: {net.model.conv1.weight.shape} -> {one.conv1.weight.shape}")
print(f"three times the same grey, and one channel: the scores differ by at most {np.abs(of_three - of_one).max():.1e}")
for name, logits in ("colour", inference.predict(net.model, x)), ("grey", of_one):
    print(f"{name}: {metrics.accuracy(logits, lesions.labels):.1%} right")

# %% [markdown]
# ## Sixteen bits, and windows
#
# A slice as a CT scanner might give it, in Hounsfield units: air is -1,000, water 0, bone 1,000. In the soft tissue, at 40, is
# a lesion that is darker by 15. Who squeezes everything into 256 levels loses it; a window shows a part of the range:
#
#     y = (x - low) / (high - low), cut off at 0 and 1

# %%
rng = np.random.default_rng(0)
rows, columns = np.mgrid[:64, :64] - 31.5
body = np.hypot(rows / 28, columns / 30)
ct = np.full((64, 64), -1000.0)
ct[body < 1] = 40
ct[np.hypot(rows - 14, columns) < 6] = 1000  # the spine
lesion = np.hypot(rows + 8, columns - 12) < 5
ct[lesion] = 25
ct += rng.normal(0, 4, ct.shape)
WINDOWS = {"all of it, 8 bits": (-1024, 3071), "bone": (-450, 1050), "soft tissue": (-20, 80)}
shown = {name: windowed(ct, *window) / 65535 for name, window in WINDOWS.items()}
shown["all of it, 8 bits"] = np.rint(255 * shown["all of it, 8 bits"]) / 255
tissue = (body < 0.9) & (ct < 200) & ~lesion
for name, y in shown.items():
    print(
        f"{name:18} {WINDOWS[name]!s:14} lesion and tissue: {255 * abs(y[lesion].mean() - y[tissue].mean()):.1f} of 255 apart"
    )

# %% [markdown]
# ## A stack of slices
#
# A lesion in a volume is seen in several slices, each with noise of its own. A net of five channels takes five slices at once,
# beginning with the same weights, shared out. Its first layer then sees their mean, and can learn better.

# %%
five = models.resnet8(num_classes=2, in_channels=5).eval()
weights.load(five, out("01_net") / "model.safetensors", adapt_input=True)
noise = rng.normal(0, 0.7, (len(grey), 5, 32, 32)).astype(np.float32)
stack = grey + noise  # (N,5,32,32)
right = {
    "one clean slice": metrics.accuracy(of_one, lesions.labels),
    "one noisy slice": metrics.accuracy(inference.predict(one, stack[:, :1]), lesions.labels),
    "five noisy slices": metrics.accuracy(inference.predict(five, stack), lesions.labels),
}
print(", ".join(f"{name}: {share:.1%} right" for name, share in right.items()))

# %% [markdown]
# ## The image

# %%
fig, axes = panels("Not RGB: one slice through three windows, and one noisy slice beside the mean of five", 5, 13)
for ax, (name, y) in zip(axes[:3], shown.items(), strict=True):
    ax.imshow(y, cmap="gray", vmin=0, vmax=1)
    ax.set_title(f"{name}\n{WINDOWS[name][0]:,} to {WINDOWS[name][1]:,} HU", fontsize=10, loc="left")
few = (stack[1, 0], right["one noisy slice"], "one slice"), (stack[1].mean(0), right["five noisy slices"], "five, their mean")
for ax, (y, share, name) in zip(axes[3:], few, strict=True):
    ax.imshow(y, cmap="gray")
    ax.set_title(f"{name}\n{share:.1%} right", fontsize=10, loc="left")
for ax in axes:
    ax.set_axis_off()
show(out("11_no_rgb.png"), "the lesion is in the numbers all the time; the window decides whether one sees it", fig)

# %% [markdown]
# ## Questions
#
# 1. Why not simply train the first layer anew, when there are few images? (Lesson 10.)
# 2. A window cuts off. When does that hurt, and what could you give the net in place of one window?
# 3. Three neighbouring slices as R, G and B are often given to a net of colour images. What does its first layer expect of
#    these channels that slices do not have?
#
# ## Exercise
#
# Write the adapted first convolution, in `examples/exercises/lesson11.py`, then run `python -m pytest examples/exercises -k
# lesson11`.

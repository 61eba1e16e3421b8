# %% [markdown]
# # 20. The ILSVRC story
#
# **Aim.** You put the nets of lessons 5 to 9 into one chart: how deep they are, what they cost, and how often they are wrong
# on ImageNet. Then you learn to read such numbers, because the same net has many errors.
#
# **Read before.** Lessons 5 to 9, `minidl/analysis/cost.py`, and "What architectures cost" in `examples/README.md`.

# %%
from course import QUICK, out, show  # before all others, see there

# isort: split
import architectures as example  # examples/architectures.py
import numpy as np

from minidl import cost

# %% [markdown]
# ## Predict
#
# 1. Order by parameters: VGG-19, GoogLeNet, ResNet-152, DenseNet-121. And by multiply-adds?
# 2. ILSVRC counts an answer as right if the true class is among five. The net knows 1,000 classes and guesses blindly: how
#    often is it wrong?

# %% [markdown]
# ## What they cost
#
# Counted, not quoted: `minidl.cost` runs one image through each net. No net is trained here, and nothing is downloaded.

# %%
names = ["googlenet", "resnet34"] if QUICK else list(example.NETS)
counted = {name: cost(example.NETS[name].make(), (3, example.NETS[name].size, example.NETS[name].size)) for name in names}
print(example.table(counted))

# %% [markdown]
# ## What they got for it
#
# The top-5 error on the validation images of ImageNet:
#
#     error = 1 - (images whose class is among the 5 highest scores) / images
#
# Each number has a protocol. One net is asked about the middle of the image, or about ten pieces of it, or about 144; or
# seven nets are asked, and the mean counts. Compare only within one column.

# %%
print(example.errors(names))

# %% [markdown]
# ## How far apart is that?
#
# The validation set has 50,000 images. An error of 7% is a share of these, and a share has an uncertainty: a standard
# deviation of sqrt(e (1 - e) / n). Differences below twice that could be luck, if other images had been drawn.

# %%
for name in names:
    e = example.NETS[name].torchvision / 100
    print(f"{example.NETS[name].name:14} {e:.2%} wrong, give or take {2 * np.sqrt(e * (1 - e) / 50_000):.2%}")

# %% [markdown]
# ## The image
#
# `examples/architectures.py` draws it. One series has a single protocol: torchvision's weights on one crop.

# %%
example.draw(out("20_ilsvrc.png"), counted)
show(out("20_ilsvrc.png"), "DenseNet-121 is wrong less often than VGG-19, with an eighteenth of its parameters")

# %% [markdown]
# ## Questions
#
# 1. VGG-19 and ResNet-152: which of the two has more layers, which more parameters, which more multiply-adds? What pays?
# 2. A paper reports 3.57% (an ensemble, on the test images), and another net has 5.7% (one net, ten crops). Is the first net
#    better?
# 3. You have 500 images of lesions. What does this chart say about which net you should take, and what does it not say?
#
# ## Exercise
#
# Write the top-5 error, for any k, in `examples/exercises/lesson20.py`, then run `python -m pytest examples/exercises -k
# lesson20`.

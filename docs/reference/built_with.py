# ---
# jupyter:
#   description: The versions this site was built with, the settings of that machine that can change
#     bits, and which bits may differ on yours.
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Built with
#
# The two cells below ran when the site was built, on the machine that built it. The numbers in the
# labs come from there, and the recording of the home page from another. The outputs of the chapters
# are bits, integers and comparisons that hold on every machine we know of.

# %%
import platform
from importlib.metadata import version

from reproducibility import CHANGES_BITS, capture_environment

SCIENCE = ["jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "equinox"]
SCIENCE += ["numpy", "scipy", "scikit-learn"]
SITE = ["mkdocs", "mkdocs-material", "mkdocs-jupyter", "mkdocstrings", "jupytext", "matplotlib"]

print(f"{'reproducibility':18} {version('reproducibility')}")
print(f"{'python':18} {platform.python_version()}")
for name in SCIENCE + SITE:
    print(f"{name:18} {version(name)}")

# %% [markdown]
# `capture_environment` describes what surrounds a run. This is the part of it that is known to
# change bits; no host name, user name or path is among it.

# %%
environment = capture_environment()
for name in CHANGES_BITS:
    if environment.get(name) is not None:
        print(f"{name:39} {environment[name]}")

# %% [markdown]
# `reproducibility doctor` prints all of them for your machine, and what each does.
#
# ## Which bits may differ on yours
#
# | where you run | the same bits | may differ | source |
# |---|---|---|---|
# | the same machine, again | all we tried | | [measured][cpu] |
# | a CPU with other instructions | keys | `exp`, `normal`, matrix by vector | [measured][cpu] |
# | a CPU with more or fewer cores | keys, matrix products | large sums; `svd` | [measured][cpu] |
# | more devices or processes | runs of this package | ordinary steps | [measured][devices] |
# | a GPU or TPU, against a CPU | bits of Threefry keys | all floats | [JAX][prng], [JAX][promise] |
# | one GPU, twice | | sums by atomic additions, matrix products | [reports][gpu] |
# | another version of JAX | | floats and draws | [JAX][promise] |
#
# "All we tried" is no proof for what we did not. The instruction set was capped on one
# processor, not compared between two. On an ARM processor, a GPU or a TPU
# [nothing was measured](../../guide/accelerators/#measured).
#
# [cpu]: ../measurements/#what-changes-the-bits-on-one-cpu
# [devices]: ../measurements/#what-changes-the-bits-across-devices
# [gpu]: ../two_machines_disagree/#different-every-time-on-a-gpu
# [prng]: https://docs.jax.dev/en/latest/jax.random.html
# [promise]: https://docs.jax.dev/en/latest/api_compatibility.html#numerics-and-randomness

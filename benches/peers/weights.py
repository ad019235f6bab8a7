"""The seeded stand-in weights of `--random-weights`, in Python.

Every number is a function of seed, encoder, tensor name and index; the rule stands in
`src/weights/synthetic.rs`. So peers run on the same weights, bit for bit, without a file.
"""

import hashlib
import math

import numpy as np

GAMMA = np.uint64(0x9E3779B97F4A7C15)
MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
BLOCK = 1 << 15

# Tag in the rule, width, layers, heads, activation, width of the projection.
ENCODERS = {
    "clip_l": (768, 12, 12, "quick_gelu", 768),
    "clip_h": (1024, 24, 16, "gelu", 1024),
    "clip_g": (1280, 32, 20, "gelu", 1280),
}

# Encoders of a family, and after how many layers each is read.
FAMILIES = {
    "sd1": (("clip_l", 12),),
    "sd2": (("clip_h", 23),),
    "sdxl": (("clip_l", 11), ("clip_g", 32)),
}


def uniform(key, first, count):
    """Multiples of 2^-23 in [-1, 1), for `count` indices from `first` on."""
    steps = np.arange(first + 1, first + count + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        state = np.uint64(key) + steps * GAMMA
        state = (state ^ (state >> np.uint64(30))) * MULTIPLIERS[0]
        state = (state ^ (state >> np.uint64(27))) * MULTIPLIERS[1]
        state ^= state >> np.uint64(31)
    return ((state >> np.uint64(40)).astype(np.float64) / 8388608.0 - 1.0).astype(np.float32)


def scale_and_offset(name, shape):
    """By the role that a tensor has."""
    if name.endswith("token_embedding.weight"):
        return 0.03, 0.0
    if name.endswith("position_embedding.weight"):
        return 0.01, 0.0
    if "norm" in name and name.endswith("weight"):
        return 0.1, 1.0
    if name.endswith("final_layer_norm.bias"):
        return 0.5, 0.0
    if len(shape) == 1:
        return 0.05, 0.0
    unit = math.sqrt(3.0 / shape[-1])
    return (1.5 * unit if "q_proj" in name or "k_proj" in name else unit), 0.0


def tensor(seed, tag, name, shape):
    """One tensor by the name that transformers 4 gives it (`text_model.…`)."""
    digest = hashlib.sha256(f"{seed}/{tag}/{name}".encode()).digest()
    key = int.from_bytes(digest[:8], "little")
    scale, offset = scale_and_offset(name, shape)
    values = np.empty(math.prod(shape), np.float32)
    for first in range(0, len(values), BLOCK):
        count = min(BLOCK, len(values) - first)
        values[first : first + count] = uniform(key, first, count) * np.float32(scale)
    if offset:
        values += np.float32(offset)
    return values.reshape(shape)

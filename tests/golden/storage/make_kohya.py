"""Writes kohya.npz beside this file with numpy, as kohya's sd-scripts do, in small."""

import pathlib

import numpy as np

first = np.arange(8, dtype=np.float32).reshape(4, 2)
second = np.arange(100, 112, dtype=np.float32).reshape(4, 3)
pooled = np.arange(3, dtype=np.float32)
np.savez(
    pathlib.Path(__file__).with_name("kohya.npz"),
    hidden_state1=first,
    hidden_state2=second,
    pool2=pooled,
)

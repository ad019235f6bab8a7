"""Writes the pickles of this folder with PyTorch's own torch.save, and what is in them.

    python make_pickles.py        (torch 2.11 was used)

Tensors are small; `tensors.json` has their names, types, shapes and the SHA-256 of their
values (f32, little-endian, row by row) as a reader must give them. Files whose name begins with `not_` hold nothing that can be used.
"""
import collections
import hashlib
import json
import pathlib

import torch

here = pathlib.Path(__file__).parent
expected = {}


def digest(tensor):
    values = tensor.detach().to(torch.float32).contiguous().flatten()
    return hashlib.sha256(values.numpy().tobytes()).hexdigest()


def note(file, tensors):
    types = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64",
             torch.int64: "I64", torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2"}
    expected[file] = {name: {"stored": types[tensor.dtype], "shape": list(tensor.shape), "sha256": digest(tensor)}
                      for name, tensor in tensors.items()}


def save(file, value, tensors, **options):
    torch.save(value, here / file, **options)
    note(file, tensors)


torch.manual_seed(73)
base = torch.randn(4, 6)
views = {
    "plain": base,
    "shares": base[1:3],
    "transposed": base.t(),
    "columns": base[:, 1:5:2],
    "expanded": torch.randn(3).expand(2, 3),
    "permuted": torch.randn(2, 3, 4).permute(2, 0, 1),
    "scalar": torch.tensor(4.6055),
    "half": torch.randn(5).half(),
    "brain": torch.randn(2, 2).bfloat16(),
    "double": torch.randn(3).double(),
    "ids": torch.arange(7)[None],
    "e4m3": torch.randn(4).to(torch.float8_e4m3fn),
    "e5m2": torch.randn(4).to(torch.float8_e5m2),
    "parameter": torch.nn.Parameter(torch.randn(2, 2)),
    "layer.0.weight": torch.randn(2, 3),
}
flat = collections.OrderedDict(views)
flat._metadata = {"": {"version": 1}}  # as nn.Module.state_dict() has it
save("flat.zip.pt", flat, views)
save("flat.protocol4.pt", dict(views), views, pickle_protocol=4)
save("flat.protocol5.pt", dict(views), views, pickle_protocol=5)
old = {name: tensor for name, tensor in views.items()}
save("flat.legacy.pt", old, old, _use_new_zipfile_serialization=False)
save("flat.legacy4.pt", old, old, _use_new_zipfile_serialization=False, pickle_protocol=4)


class ModelCheckpoint:
    """Stands in for Lightning's class of this name, which is a key of its checkpoints."""


ModelCheckpoint.__module__ = "pytorch_lightning.callbacks.model_checkpoint"
ModelCheckpoint.__qualname__ = "ModelCheckpoint"
import sys, types
module = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")
module.ModelCheckpoint = ModelCheckpoint
for name in ["pytorch_lightning", "pytorch_lightning.callbacks"]:
    sys.modules[name] = types.ModuleType(name)
sys.modules["pytorch_lightning.callbacks.model_checkpoint"] = module
small = {"layer.0.weight": torch.randn(2, 3), "layer.0.bias": torch.randn(2)}
lightning = {
    "epoch": 5, "global_step": 840000, "pytorch-lightning_version": "1.4.2",
    "callbacks": {ModelCheckpoint: {"monitor": "val/loss", "best_model_score": torch.tensor(0.14),
                                    "current": ModelCheckpoint()}},
    "optimizer_states": [{"state": {0: {"exp_avg": torch.randn(2, 3)}}, "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.999)}]}],
    "state_dict": collections.OrderedDict(small), "big": 1 << 70, "set": {1, 2}, "bytes": b"abc", "path": pathlib.PurePosixPath("a/b"),
}
save("lightning.zip.pt", lightning, small)
save("lightning.legacy.pt", lightning, small, _use_new_zipfile_serialization=False)
save("nested.zip.pt", {"state_dict": {"state_dict": small}}, small)
save("single.zip.pt", {"whatever": small}, small)

# Textual inversions: A1111's form in four wrappings, diffusers', a bare tensor, lists of dictionaries.
def a1111(vectors):
    return {"string_to_token": {"*": 265}, "string_to_param": {"*": vectors}, "name": "style", "step": 499,
            "sd_checkpoint": None, "sd_checkpoint_name": None}


vectors = torch.randn(2, 768)[:, :768] * 0.03
star = {"string_to_param.*": vectors}
save("t1.zip.pt", a1111(vectors), star)
save("t1.legacy.pt", a1111(vectors), star, _use_new_zipfile_serialization=False)
save("t1.parameter.pt", a1111(torch.nn.Parameter(vectors)), star)
trained = a1111(vectors)
trained["string_to_param"] = torch.nn.ParameterDict({"*": torch.nn.Parameter(vectors)})
trained["string_to_token"] = {"*": torch.tensor(265)}
save("t1.dict.pt", trained, star | {"string_to_token.*": torch.tensor(265)})
save("t1.dict.legacy.pt", trained, star | {"string_to_token.*": torch.tensor(265)}, _use_new_zipfile_serialization=False)
one = torch.randn(768) * 0.03
save("t3.zip.bin", {"<cat-toy>": one}, {"<cat-toy>": one})
save("t3.legacy.bin", {"<cat-toy>": one}, {"<cat-toy>": one}, _use_new_zipfile_serialization=False)
pair = {"text_encoders_0": torch.randn(2, 768).half(), "text_encoders_1": torch.randn(2, 1280).half()}
save("t5.pti", pair, pair)
save("t6.zip.pt", vectors, {"emb_params": vectors})
first, second = torch.randn(1, 768).half(), torch.randn(2, 768).half()
wide = torch.randn(3, 1280).half()
save("t7.zip.pt", [{"a": first, "g": wide}, {"b": second}], {"[0].a": first, "[0].g": wide, "[1].b": second})

save("not_a_state.pt", torch.nn.Linear(2, 2), {})
save("not_tensors.pt", {"epoch": 3, "name": "x"}, {})
(here / "tensors.json").write_text(json.dumps(expected, indent=0) + "\n")

"""The peers: for each, the encoders of a family as one call from token ids to tensors."""

import warnings

import numpy as np
import torch
import transformers

import weights

# Ids of start and end, as the encoders' configurations have them.
START, END = 49406, 49407


def module(tag, depth, seed):
    """transformers' encoder with the stand-in weights, cut to the layers that are run."""
    width, layers, heads, activation, projection = weights.ENCODERS[tag]
    config = transformers.CLIPTextConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=min(depth, layers),
        num_attention_heads=heads,
        hidden_act=activation,
        projection_dim=projection,
        bos_token_id=START,
        eos_token_id=END,
        attn_implementation="sdpa",
    )
    kind = transformers.CLIPTextModelWithProjection
    model = kind(config).eval()
    state = {}
    for name, parameter in model.state_dict().items():
        if "position_ids" in name:
            continue
        asked = name if name.startswith(("text_model.", "text_projection")) else f"text_model.{name}"
        state[name] = torch.from_numpy(weights.tensor(seed, tag, asked, tuple(parameter.shape)))
    model.load_state_dict(state, strict=False)
    return model


class Hidden(torch.nn.Module):
    """Token ids → what the family reads: a hidden state, and bigG's pooled vector."""

    def __init__(self, tag, family, seed):
        super().__init__()
        depth = dict(weights.FAMILIES[family])[tag]
        self.model = module(tag, depth, seed)
        self.family, self.tag = family, tag

    def forward(self, ids):
        penultimate = self.tag == "clip_g"
        out = self.model(input_ids=ids, output_hidden_states=penultimate)
        if penultimate:
            return out.hidden_states[-2], out.text_embeds
        if self.family == "sdxl":
            # Every layer that is there was run; the final norm is not taken.
            return self.raw(ids)
        return (out.last_hidden_state,)

    def raw(self, ids):
        out = self.model(input_ids=ids, output_hidden_states=True)
        return (out.hidden_states[-1],)


def encoders(family, seed):
    """One module for each encoder of the family."""
    return [Hidden(tag, family, seed).eval() for tag, _ in weights.FAMILIES[family]]


def by_torch(modules, dtype):
    """PyTorch, eager."""
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[dtype]
    modules = [module.to(dtype) for module in modules]

    def run(ids):
        with torch.inference_mode():
            return [module(torch.from_numpy(ids)) for module in modules]

    return run


def by_onnxruntime(modules, ids, folder, threads):
    """ONNX Runtime's CPU provider, f32."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    sessions = []
    for place, module in enumerate(modules):
        path = f"{folder}/{place}.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module, (torch.from_numpy(ids),), path, input_names=["ids"], dynamo=True
            )
        providers = ["CPUExecutionProvider"]
        sessions.append(onnxruntime.InferenceSession(path, options, providers=providers))
    return lambda ids: [session.run(None, {"ids": ids}) for session in sessions]


def by_openvino(modules, ids, dtype, threads):
    """OpenVINO's CPU plugin, with the precision that is asked for."""
    import openvino

    core = openvino.Core()
    hints = {
        "INFERENCE_PRECISION_HINT": dtype,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
    }
    compiled = []
    for module in modules:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = openvino.convert_model(module, example_input=torch.from_numpy(ids))
        model.reshape({model.input(0): list(ids.shape)})
        compiled.append(core.compile_model(model, "CPU", hints))
    return lambda ids: [
        [np.asarray(value) for value in model(ids).values()] for model in compiled
    ]

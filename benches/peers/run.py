#!/usr/bin/env python3
"""Ours beside PyTorch, ONNX Runtime, OpenVINO and candle-transformers: equal weights, one machine, one run.

    python -m venv peers && peers/bin/pip install -r benches/peers/requirements.txt
    cargo build --release
    peers/bin/python benches/peers/run.py --family sd1 --windows 2 --threads 2

Time is from token ids on the host to finished tensors, what the family's U-Net takes and nothing else:
layers that nobody reads are left out for all. Rounds alternate between all programs, so that all see the
same machine; the table has the median and the least of all runs, and theirs / ours.

candle-transformers is run by `cargo bench --bench encode` (`--candle`), f32, with random weights of its
own, one window at a time, since it takes no more.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

import numpy as np


def flags():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--family", choices=["sd1", "sd2", "sdxl"], default="sd1")
    parser.add_argument("--windows", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=7, help="of each program in a round")
    parser.add_argument("--seed", type=int, default=73)
    parser.add_argument("--program", default="target/release/sd-conditioner")
    parser.add_argument("--candle", action="store_true", help="candle-transformers, too")
    parser.add_argument(
        "--peers", nargs="*", default=["torch", "onnxruntime", "openvino"], help="which of them"
    )
    return parser.parse_args()


def window_ids(windows):
    """Windows of different lengths: start, some words, ends."""
    import models

    ids = np.full((windows, 77), models.END, np.int64)
    ids[:, 0] = models.START
    random = np.random.default_rng(1)
    for row in range(windows):
        count = 5 + row * 7 % 60
        ids[row, 1 : 1 + count] = random.integers(300, 40000, count)
    return ids


def ours(options, dtype):
    """Milliseconds of our runs, by the command's own clock: (median, least)."""
    command = [options.program, "bench", "--json", "--family", options.family]
    command += ["--windows", str(options.windows), "--threads", str(options.threads)]
    command += ["--dtype", dtype, "--random-weights", str(options.seed)]
    command += ["--runs", str(max(options.runs, 5)), "--batch", "2"]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    stages = {row["stage"]: row for row in map(json.loads, answer.splitlines())}
    return stages["encode"]["median_ms"], stages["encode"]["min_ms"]


def theirs(options, ids, folder):
    """Name and call of every peer, loaded and warm."""
    import models
    import torch

    torch.set_num_threads(options.threads)
    fresh = lambda: models.encoders(options.family, options.seed)
    calls = {}
    if "torch" in options.peers:
        calls["PyTorch f32"] = models.by_torch(fresh(), "f32")
        calls["PyTorch bf16"] = models.by_torch(fresh(), "bf16")
    if "onnxruntime" in options.peers:
        calls["ONNX Runtime f32"] = models.by_onnxruntime(fresh(), ids, folder, options.threads)
    if "openvino" in options.peers:
        for dtype in ("f32", "bf16"):
            call = models.by_openvino(fresh(), ids, dtype, options.threads)
            calls[f"OpenVINO {dtype}"] = call
    for call in calls.values():
        call(ids)
        call(ids)
    return calls


def measure(options, calls, ids):
    """Milliseconds of all runs by name; (median, least) of each round for ours."""
    times = {name: [] for name in calls}
    own = {"f32": [], "bf16": [], "f16": []}
    for turn in range(options.rounds):
        for dtype in own:
            own[dtype].append(ours(options, dtype))
        for name, call in calls.items():
            for _ in range(options.runs):
                start = time.perf_counter()
                call(ids)
                times[name].append((time.perf_counter() - start) * 1e3)
        print(f"round {turn + 1} of {options.rounds}", file=sys.stderr)
    return own, times


def candle(options):
    """candle-transformers' median and least beside ours in the same program."""
    command = ["cargo", "bench", "--bench", "encode", "--", options.family]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main():
    options = flags()
    ids = window_ids(options.windows)
    with tempfile.TemporaryDirectory() as folder:
        own, times = measure(options, theirs(options, ids, folder), ids)
    median = {dtype: float(np.median([one for one, _ in rows])) for dtype, rows in own.items()}
    least = {dtype: min(one for _, one in rows) for dtype, rows in own.items()}
    title = f"{options.family}, {options.windows} windows, {options.threads} threads"
    print(f"{title}: ms, median (least); theirs / ours of the same precision\n")
    print("| program | ms | theirs / ours |")
    print("|---|---|---|")
    for dtype in own:
        print(f"| ours {dtype} | {median[dtype]:.1f} ({least[dtype]:.1f}) | 1 |")
    for name, runs in times.items():
        dtype = name.rsplit(" ", 1)[1]
        middle, low = float(np.median(runs)), min(runs)
        ratio = f"{middle / median[dtype]:.2f} ({low / least[dtype]:.2f})"
        print(f"| {name} | {middle:.1f} ({low:.1f}) | {ratio} |")
    if options.candle:
        print("\n" + candle(options))


if __name__ == "__main__":
    main()

"""OpenAI's tokenizer over prompts on standard input: two passes timed, ids printed (all as JSON)."""
import importlib.util
import json
import sys
import time
from pathlib import Path

package = importlib.util.find_spec("clip")
if package is None:
    sys.exit("this Python has no package `clip` (`clip-anytorch` on PyPI)")
# By its path: the package itself would import torch, which the tokenizer does not need.
path = Path(package.submodule_search_locations[0]) / "simple_tokenizer.py"
spec = importlib.util.spec_from_file_location("simple_tokenizer", path)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)

tokenizer = module.SimpleTokenizer()
prompts = json.load(sys.stdin)
times = []
for _ in range(2):
    start = time.perf_counter()
    ids = [tokenizer.encode(prompt) for prompt in prompts]
    times.append((time.perf_counter() - start) * 1e3)
json.dump([*times, ids], sys.stdout)

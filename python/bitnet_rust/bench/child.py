"""A start of the package in a process of its own: loads a model, makes one token, and prints what each part took as JSON.

Run by path, so that nothing but what it measures is imported: child.py MODEL HEAD_DTYPE PACKING RESIDENT THREADS ISA PROMPT WATCHED, with ""
for what is not said. When it is watched, it makes a few tokens more while weights move to where they will stay, and ends when its input is closed.
"""

import sys
import time

start = time.perf_counter()

import bitnet_rust  # noqa: E402

BitNetModel = bitnet_rust.BitNetModel
imported = time.perf_counter()

path, head_dtype, packing, resident, threads, isa, prompt, watched = sys.argv[1:]
if threads:
    bitnet_rust.set_num_threads(int(threads))
if isa:
    bitnet_rust._bitnet.set_isa(isa)
began = time.perf_counter()
model = BitNetModel.from_pretrained(path, head_dtype=head_dtype, packing=packing, resident=resident)  # type: ignore[arg-type]
ready = time.perf_counter()
model.generate([1] * int(prompt), max_new_tokens=1, ignore_eos=True)
token = time.perf_counter()
if watched:
    model.generate([1] * int(prompt), max_new_tokens=16, ignore_eos=True)
    model._model.settle()
    model.generate([1] * int(prompt), max_new_tokens=2, ignore_eos=True)

import json  # noqa: E402

print(
    json.dumps(
        {
            "times": {
                "import_ms": 1e3 * (imported - start),
                "ready_ms": 1e3 * (ready - began),
                "first_token_ms": 1e3 * (token - began),
            },
            "model": {name: model.info[name] for name in ("format", "head_dtype", "packing", "weight_bytes")},
        }
    ),
    flush=True,
)
if watched:
    sys.stdin.read()

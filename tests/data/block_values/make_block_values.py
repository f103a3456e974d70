"""Writes block_values.txt: random blocks of GGUF's types and the values that the `gguf` package says they have.

    python3 -m venv venv && venv/bin/pip install gguf==0.19.0 numpy==2.4.6
    venv/bin/python tests/data/block_values/make_block_values.py > tests/data/block_values/block_values.txt

A line is "TYPE BLOCKS VALUES": bytes of the blocks, then the fp32 values, little endian, both in hex. Any bytes are a block; only
the fp16 scales are chosen, finite and of either sign, and an exponent of E8M0, from all of them (the first three are the least).
"""

import sys

import numpy as np
from gguf import GGMLQuantizationType, quants
from gguf.constants import GGML_QUANT_SIZES

SEED = 20261123
# Where the fp16 numbers of a block stand.
HALVES = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2],
    "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0], "MXFP4": [],
}


def main():
    random = np.random.default_rng(SEED)
    print(f"# gguf 0.19.0, seed {SEED}; see make_block_values.py")
    for name, halves in HALVES.items():
        kind = GGMLQuantizationType[name]
        elements, size = GGML_QUANT_SIZES[kind]
        count = 3 if elements == 256 else 8
        blocks = random.integers(0, 256, (count, size), dtype=np.uint8)
        for at in halves:
            scales = (random.standard_normal(count) * 0.1).astype(np.float16)
            scales[0] = np.float16(6e-8)  # the least subnormal
            blocks[:, at:at + 2] = scales.view(np.uint8).reshape(count, 2)
        if name == "MXFP4":
            blocks[:3, 0] = [0, 1, 2]
            # From 253 on, products are infinite.
            blocks[3:, 0] %= 253
        values = quants.dequantize(blocks, kind)
        if not np.isfinite(values).all():
            sys.exit(f"{name}: a value is not finite")
        print(name, blocks.tobytes().hex(), values.astype("<f4").tobytes().hex())


if __name__ == "__main__":
    main()

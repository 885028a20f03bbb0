"""Compares a model folder with logits computed elsewhere.

    python tests/check_transformers.py MODEL_DIR LOGITS.safetensors

LOGITS.safetensors holds input_ids and logits. Opens MODEL_DIR with transformers, runs it in f32, prints
the largest difference, and exits with 1 above 1e-4, or where transformers found a tensor missing or
unexpected.
"""

import sys

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

TOLERANCE = 1e-4


def main():
    folder, reference = sys.argv[1:]
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    problems = {kind: sorted(found) for kind, found in info.items() if found and "keys" in kind}
    reference = load_file(reference)
    with torch.no_grad():
        logits = model.eval()(input_ids=reference["input_ids"].long()).logits
    difference = (logits - reference["logits"]).abs().max().item()
    print(f"{type(model).__name__}: largest difference of logits {difference:.3g}")
    if problems:
        print(f"tensors that do not fit: {problems}")
    if problems or not difference <= TOLERANCE:
        sys.exit(1)


if __name__ == "__main__":
    main()

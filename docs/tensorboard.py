"""Writes TensorBoard event files from the metrics of a run.

    python docs/tensorboard.py runs/lisa/metrics.jsonl runs/lisa/events

Needs tensorboardX, or torch and tensorboard.
"""

import json
import sys

try:
    from tensorboardX import SummaryWriter
except ImportError:
    from torch.utils.tensorboard import SummaryWriter

source, folder = sys.argv[1:]
with SummaryWriter(folder) as writer, open(source, encoding="utf-8") as lines:
    for line in lines:
        values = json.loads(line)
        step = values.pop("step")
        for layer in values.pop("active_layers", []):
            writer.add_scalar(f"active/layer_{layer:03}", 1, step)
        for name, value in values.items():
            writer.add_scalar(name, value, step)

#!/usr/bin/env python3
"""The methods of `bench compare` in PyTorch: prints a JSON line for each step, as the Rust methods do.

Run by `bench compare --peer PYTHON`; needs torch, transformers, peft and safetensors.
"""

import argparse
import gc
import json
import time
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM


def options():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--tokens", type=Path, required=True)
    parser.add_argument("--method", choices=["torch-full", "torch-lora", "torch-lisa"], required=True)
    parser.add_argument("--schedule", type=json.loads, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--sequence", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--period", type=int, required=True)
    parser.add_argument("--lora-rank", type=int, required=True)
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--dtype", choices=["f32", "bf16", "f16"], required=True)
    parser.add_argument("--threads", type=int, required=True)
    return parser.parse_args()


def build(path, dtype, device):
    """The model with the given weights, copied, so that no file stays memory-mapped."""
    config = AutoConfig.from_pretrained(path)
    config.use_cache = False
    model = AutoModelForCausalLM.from_config(
        config, dtype=dtype, attn_implementation="sdpa"
    )
    tensors = {}
    for file in sorted(path.glob("*.safetensors")):
        tensors.update(load_file(file))
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert not unexpected, unexpected
    assert all("lm_head" in name for name in missing), missing
    model.tie_weights()
    return model.to(device).train()


def main():
    args = options()
    torch.set_num_threads(args.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[args.dtype]
    model = build(args.model, dtype, device)
    layers = model.transformer.h if hasattr(model, "transformer") else model.model.layers
    if args.method == "torch-lora":
        from peft import LoraConfig, get_peft_model

        targets = ["c_attn", "c_proj", "c_fc"]
        if not hasattr(model, "transformer"):
            targets = [f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")]
        rank = args.lora_rank
        model = get_peft_model(
            model,
            LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets, task_type="CAUSAL_LM"),
        )
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=args.lr, eps=1e-8, weight_decay=0.01, foreach=False)
    tokens = torch.frombuffer(bytearray(args.tokens.read_bytes()), dtype=torch.int32).long()
    tokens = tokens.view(args.steps, args.batch, args.sequence)
    gc.collect()
    reset_peak(device)
    active = []
    for step in range(args.steps):
        clock, cpu = Clock(device), time.process_time()
        if args.method == "torch-lisa" and step % args.period == 0:
            drawn = args.schedule[step // args.period]
            switch(layers, optimizer, active, drawn)
            active = drawn
        ids = tokens[step].to(device)
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        forward = clock.lap()
        loss.backward()
        backward = clock.lap()
        value = loss.item()
        del loss
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        update = clock.lap()
        rss = high_water_mark()
        line = {
            "step": step, "loss": value, "forward": forward, "backward": backward, "update": update,
            "cpu": time.process_time() - cpu, "rss": rss, "peak": None,
        }
        if device == "cuda":
            line["peak"] = torch.cuda.max_memory_allocated()
        print(json.dumps(line), flush=True)


def switch(layers, optimizer, before, drawn):
    """Freezes all layers but the active ones and drops the optimizer state of layers that freeze."""
    for index, layer in enumerate(layers):
        for parameter in layer.parameters():
            parameter.requires_grad_(index in drawn)
            if index in before and index not in drawn:
                optimizer.state.pop(parameter, None)
                parameter.grad = None


class Clock:
    def __init__(self, device):
        self.device, self.last = device, time.perf_counter()

    def lap(self):
        if self.device == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        seconds, self.last = now - self.last, now
        return seconds


def reset_peak(device):
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def high_water_mark():
    """The peak of the resident set in bytes; none where the system does not report it."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


if __name__ == "__main__":
    main()

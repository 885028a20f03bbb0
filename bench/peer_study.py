#!/usr/bin/env python3
"""A training run of `bench study` in PyTorch: transformers, and PEFT for LoRA.

Fine-tunes a model on a task folder of `bench tasks` and prints JSON lines: the training loss of each step, and the
held-out loss before, during and after. The last line is the run: its settings, its curve and its scores; `bench study
--report` reads such lines from `pytorch.jsonl`. As in the lines of the study, `losses` are the sums of the losses of the
held-out rows, and `counts` their tokens. The settings are those of the study; the order of the rows and the sampled
layers are PyTorch's own. Needs torch, transformers, peft and safetensors.

    python bench/peer_study.py --model DIR --task runs/tasks/gsm8k --method lisa --lr 3e-4
"""

import argparse
import json
import random
import time
from pathlib import Path

import peft
import torch
import transformers
from peer import high_water_mark, switch
from transformers import AutoModelForCausalLM, AutoTokenizer

IGNORED = -100


def options():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="folder of a Llama, such as SmolLM2")
    parser.add_argument("--task", type=Path, required=True, help="folder with train.jsonl and heldout.jsonl")
    parser.add_argument("--method", choices=["lisa", "lora", "full"], required=True)
    parser.add_argument("--lr", type=float, required=True, help="highest learning rate")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--batch", type=int, default=4, help="rows of a step")
    parser.add_argument("--max-length", type=int, default=512, help="tokens of a row; longer rows are truncated")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--active-layers", type=int, default=2)
    parser.add_argument("--period", type=int, default=10, help="steps between two draws of layers")
    parser.add_argument("--rank", type=int, default=16, help="of LoRA; alpha is twice the rank")
    parser.add_argument("--held-out", type=int, default=128, help="the first rows of heldout.jsonl, scored at the end")
    parser.add_argument("--points", type=int, default=32, help="held-out rows scored before and during training")
    parser.add_argument("--every", type=int, default=20, help="steps between held-out losses")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def rows_of(path, tokenizer, max_length, count=None):
    """Rows as (ids, labels). Only the answer and what the template writes after it have labels."""
    rows = []
    # Texts may contain other characters that `splitlines` takes for ends of lines.
    for line in path.read_text().strip().split("\n")[:count]:
        messages = json.loads(line)["messages"]
        prompt = tokenizer.apply_chat_template(messages[:1], add_generation_prompt=True, return_dict=False)
        ids = tokenizer.apply_chat_template(messages, return_dict=False)
        assert ids[: len(prompt)] == prompt, line
        labels = [IGNORED] * len(prompt) + ids[len(prompt) :]
        ids, labels = ids[:max_length], labels[:max_length]
        if any(label != IGNORED for label in labels):
            rows.append((ids, labels))
    return rows


def collate(rows, pad):
    width = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([ids + [pad] * (width - len(ids)) for ids, _ in rows])
    labels = torch.tensor([labels + [IGNORED] * (width - len(labels)) for _, labels in rows])
    mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in rows])
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


@torch.no_grad()
def score(model, rows):
    """The mean loss of a token, and for each row the sum of its losses and the number of its tokens."""
    losses, counts = [], []
    for row in rows:
        count = sum(label != IGNORED for label in row[1][1:])
        losses.append(round(model(**collate([row], 0)).loss.item() * count, 4))
        counts.append(count)
    return {"held_out": sum(losses) / sum(counts), "losses": losses, "counts": counts}


def learning_rate(highest, step, steps):
    """Rises over the first twentieth of the steps, then falls to 0 linearly; steps from 0."""
    warm_up = max(steps // 20, 1)
    if step < warm_up:
        return highest * (step + 1) / warm_up
    return highest * (steps - step) / (steps - warm_up)


def emit(**line):
    print(json.dumps(line), flush=True)


def main():
    args = options()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    model.config.use_cache = False
    layers = model.model.layers
    if args.method == "lora":
        names = [f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")]
        config = peft.LoraConfig(
            r=args.rank, lora_alpha=2 * args.rank, lora_dropout=0.0, target_modules=names, task_type="CAUSAL_LM"
        )
        model = peft.get_peft_model(model, config)
    train = rows_of(args.task / "train.jsonl", tokenizer, args.max_length)
    held_out = rows_of(args.task / "heldout.jsonl", tokenizer, args.max_length, args.held_out)
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=args.lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, foreach=False)
    curve = []

    def point(step):
        curve.append([step, round(score(model, held_out[: args.points])["held_out"], 6)])
        emit(step=step, held_out=curve[-1][1])

    point(0)
    active, order, cpu = [], [], 0.0
    for step in range(args.steps):
        if len(order) < args.batch:
            order = rng.sample(range(len(train)), len(train))
        batch = collate([train[order.pop()] for _ in range(args.batch)], tokenizer.eos_token_id)
        start = time.process_time()
        if args.method == "lisa" and step % args.period == 0:
            drawn = rng.sample(range(len(layers)), args.active_layers)
            switch(layers, optimizer, active, drawn)
            active = drawn
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(args.lr, step, args.steps)
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        cpu += time.process_time() - start
        emit(step=step + 1, loss=loss.item(), cpu=cpu, rss=high_water_mark())
        if (step + 1) % args.every == 0:
            point(step + 1)
    emit(
        settings={name: value.name if isinstance(value, Path) else value for name, value in vars(args).items()},
        versions={module.__name__: module.__version__ for module in (torch, transformers, peft)},
        curve=curve,
        cpu=round(cpu, 1),
        resident=high_water_mark(),
        **score(model, held_out),
    )


if __name__ == "__main__":
    main()

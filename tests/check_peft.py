"""Compares adapters with PEFT: those that the program writes, and those that it reads.

    python tests/check_peft.py make DIR target/release/lisa
    LISA_CHECK_PEFT=DIR cargo test --release -p lisa-lm -p lisa-cli --lib -- --ignored logits_for_peft
    python tests/check_peft.py check DIR

`make` writes random models into DIR with a tokenizer and data, trains an adapter of each with PEFT, and
runs the program: it trains an adapter, trains PEFT's adapter further, and merges it. The test writes the
logits that lisa-lm computes with each adapter. `check` opens the adapters and the merged models with PEFT
and transformers, and exits with 1 if a logit differs by more than 1e-4.
"""

import json
import pathlib
import shutil
import subprocess
import sys

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

TOLERANCE = 1e-4
TOKENIZER = pathlib.Path(__file__).parent / "fixtures" / "tokenizer" / "tokenizer.json"
# A Llama, a GPT-2, and a Llama whose tied head has an adapter.
FAMILIES = ["llama", "gpt2", "head"]
TARGETS = {"llama": "all-linear", "gpt2": ["c_attn", "c_fc"], "head": ["v_proj", "lm_head"]}
# Adapters, with what they were made by.
ADAPTERS = ["peft", "run/adapter", "further/adapter"]


def config(family, vocab):
    if family == "gpt2":
        return GPT2Config(
            vocab_size=vocab, n_positions=64, n_embd=32, n_layer=2, n_head=4, initializer_range=0.2,
            bos_token_id=0, eos_token_id=0)
    return LlamaConfig(
        vocab_size=vocab, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.2, tie_word_embeddings=True,
        bos_token_id=0, eos_token_id=0)


def open_base(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


def make_base(family, folder, vocab):
    torch.manual_seed(len(family))
    AutoModelForCausalLM.from_config(config(family, vocab)).save_pretrained(folder)
    shutil.copy(TOKENIZER, folder)
    (folder / "tokenizer_config.json").write_text(json.dumps(
        {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}))


def make_adapter(family, base, folder, ids):
    model = get_peft_model(open_base(base), LoraConfig(
        r=3, lora_alpha=7, target_modules=TARGETS[family], use_rslora=family == "gpt2", task_type="CAUSAL_LM",
        fan_in_fan_out=family == "gpt2"))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(8):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)


def make(root, lisa):
    root.mkdir(parents=True)
    vocab = max(json.loads(TOKENIZER.read_text())["model"]["vocab"].values()) + 1
    rows = [{"prompt": f"{a} and {b}", "completion": f" is {a + b}"} for a in range(8) for b in range(8)]
    (root / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ids = torch.randint(0, vocab, (2, 24), generator=torch.Generator().manual_seed(3))
    save_file({"input_ids": ids}, root / "input.safetensors")
    for family in FAMILIES:
        folder = root / family
        base = folder / "base"
        make_base(family, base, vocab)
        make_adapter(family, base, folder / "peft", ids)
        train = [lisa, "train", "--model", base, "--data", root / "data.jsonl", "--steps", "6", "--no-eval",
                 "--lr", "1e-2", "--dtype", "f32"]
        lora = ["--method", "lora", "--lora-rank", "4", "--lora-dropout", "0.1"]
        if family == "head":
            lora += ["--lora-target-modules", ",".join(TARGETS[family])]
        subprocess.run([*train, *lora, "--out", folder / "run"], check=True)
        subprocess.run([*train, "--adapter", folder / "peft", "--out", folder / "further"], check=True)
        subprocess.run([lisa, "export", folder / "peft", "--merge", "--out", folder / "merged"], check=True)


def check(root):
    ids = load_file(root / "input.safetensors")["input_ids"]
    worst = 0.0

    def compare(name, found, expected):
        nonlocal worst
        difference = (found - expected).abs().max().item()
        worst = max(worst, difference if difference == difference else float("inf"))
        print(f"{name}: largest difference of logits {difference:.2g}")

    with torch.no_grad():
        for family in FAMILIES:
            folder = root / family
            plain = open_base(folder / "base").eval()(input_ids=ids).logits
            for name in ADAPTERS:
                model = PeftModel.from_pretrained(open_base(folder / "base"), folder / name).eval()
                logits = model(input_ids=ids).logits
                if (logits - plain).abs().max() < 0.01:
                    sys.exit(f"{family} {name}: the adapter changes nothing")
                ours = load_file(folder / f"{name.replace('/', '-')}.safetensors")["logits"]
                compare(f"{family} {name}", ours, logits)
                if name == "peft":
                    merged = open_base(folder / "merged").eval()
                    compare(f"{family} merged", merged(input_ids=ids).logits, logits)
                if name == "run/adapter":
                    merged = open_base(folder / "run" / "model").eval()
                    compare(f"{family} run/model", merged(input_ids=ids).logits, logits)
    sys.exit(0 if worst <= TOLERANCE else 1)


if __name__ == "__main__":
    command, root, *rest = sys.argv[1:]
    if command == "make":
        make(pathlib.Path(root), *rest)
    else:
        check(pathlib.Path(root))

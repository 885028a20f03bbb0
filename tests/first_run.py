"""Plays the first hour of a user with a model and data as they are on disk, and measures its time.

    python tests/first_run.py MODEL DATA OUT [--lisa PROGRAM] [--steps 50] [--more FLAGS]
        [--only piped|terminal] [--page]

MODEL is a folder with a chat template, and DATA a folder with train.jsonl and test.jsonl of `question` and
`answer`, such as SmolLM2-135M-Instruct and GSM8K. For a pipe and for a terminal of 80 columns: plans, previews,
trains, stops the run with Ctrl-C, resumes it to its end, resumes it again, generates. What is
printed is written to OUT/piped.txt and OUT/terminal.txt. Then the trained model is opened with transformers:
its loss on 16 test rows and its greedy answers are compared with those of the program. Exits with 1 where
something differs. With --page, docs/first-run.md and docs/first-run.svg get the text and the plot.
FLAGS are more flags of `lisa train`, such as `--batch-size=1 --eval-rows=4` for a quick look.
Needs Linux or macOS, torch and transformers.
"""

import argparse
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import textwrap
import time
from pathlib import Path

COLUMNS = 80
ROWS = 16
NEW_TOKENS = 60


class Session:
    """Runs commands in a folder, and keeps what they print."""

    def __init__(self, program, folder, terminal):
        self.program, self.folder, self.terminal = program, folder, terminal
        self.texts, self.times = [], []

    def run(self, line, interrupt=None):
        """Runs `lisa LINE`. Presses Ctrl-C once when the pattern `interrupt` was printed."""
        print(f"{'terminal' if self.terminal else 'piped'}: lisa {line}", flush=True)
        started, printed, pressed = time.monotonic(), b"", None
        arguments = [self.program, *re.findall(r"'[^']*'|\S+", line)]
        arguments = [argument.strip("'") for argument in arguments]
        pid, source = self.begin(arguments)
        while chunk := read(source):
            printed += chunk
            if interrupt and not pressed and re.search(interrupt, printed.decode(errors="replace")):
                pressed = (len(printed), time.monotonic())
                os.write(source, b"\x03") if self.terminal else os.kill(pid, signal.SIGINT)
            elif pressed and isinstance(pressed[1], float) and b"stopping" in printed[pressed[0] :]:
                print(f"  Ctrl-C acknowledged after {time.monotonic() - pressed[1]:.1f} s", flush=True)
                pressed = (len(printed), None)
        os.close(source)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        seconds = time.monotonic() - started
        if interrupt and not pressed:
            sys.exit(f"`{interrupt}` was not printed: {printed.decode()}")
        text = printed.decode().replace(f"{self.folder.resolve()}/", "")
        columns = COLUMNS if self.terminal else None
        self.texts.append(f"$ lisa {line}\n{shown(text, columns)}")
        self.times.append((line.split()[0], seconds))
        # A program that Ctrl-C stopped has this exit code in a shell.
        if code != (130 if interrupt else 0):
            sys.exit(f"exit code {code}: {text}")
        return text

    def begin(self, arguments):
        """Starts the process. Returns its id and the file of its output."""
        if not self.terminal:
            source, sink = os.pipe()
            process = subprocess.Popen(
                arguments, cwd=self.folder, stdout=sink, stderr=sink, stdin=subprocess.DEVNULL
            )
            os.close(sink)
            return process.pid, source
        pid, source = pty.fork()
        if pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
            os.chdir(self.folder)
            os.environ["TERM"] = "xterm"
            os.execv(arguments[0], arguments)
        return pid, source


def read(source):
    try:
        return os.read(source, 1 << 16)
    except OSError:  # a pseudo-terminal whose program has ended
        return b""


def shown(text, columns):
    """What stays on the screen: of a line that was written several times, the last text. Lines that are
    longer than `columns` are continued on the next one."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.replace("\r\n", "\n"))
    lines = [line.rsplit("\r", 1)[-1].rstrip() for line in text.split("\n")]
    if columns:
        lines = [line[at : at + columns] for line in lines for at in range(0, len(line) or 1, columns)]
    return "\n".join(lines)


def bars(text):
    """The progress bars of a terminal, as they were drawn."""
    # The terminal shows Ctrl-C where it is pressed.
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\r", text.replace("^C", ""))
    return [part for part in plain.split("\r") if re.match(r"[█░ ]{12} \d+/\d+ ", part)]


def play(program, folder, model, data, steps, more, terminal):
    """The commands of the first hour. Returns what was printed."""
    session = Session(program, folder, terminal)
    where = f"--model {model} --data {data}"
    train = f"train {where} --steps {steps} --metric last-number --out run {more}".rstrip()
    session.run(f"plan --model {model}")
    session.run(f"preview {where}")
    half = max(10, steps * 2 // 50 * 10)
    pattern = rf" {half}/{steps} " if terminal else rf"step {half} of {steps}: "
    first = session.run(train, pattern)
    second = session.run("train --resume run")
    session.run("train --resume run")
    session.run("generate --model run/model --chat 'What is 12 + 30?' --max-new-tokens 40")
    if terminal:
        drawn = bars(first) + bars(second)
        longest = max(len(bar) for bar in drawn)
        assert longest <= COLUMNS, f"a bar of {longest} columns"
    for name, seconds in session.times:
        print(f"  {seconds:7.1f} s  {name}")
    print(f"  {sum(seconds for _, seconds in session.times):7.1f} s  in all", flush=True)
    return session


def compare(session, data):
    """The trained model in transformers: its loss and its greedy answers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = session.folder
    rows = [json.loads(line) for line in open(data / "test.jsonl")][: ROWS + 4]
    for name, some in [("train", rows[ROWS:]), ("eval", rows[:ROWS])]:
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    session.terminal = False
    session.run(
        "train --model run/model --data train.jsonl --eval eval.jsonl --steps 1 --batch-size 1 "
        "--max-seq-length 1024 --eval-examples 0 --save-every 0 --overwrite --out check"
    )
    ours = json.loads((folder / "check/summary.json").read_text())["before"]
    shutil.rmtree(folder / "check")
    torch.set_num_threads(2)
    model = AutoModelForCausalLM.from_pretrained(folder / "run/model", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "run/model")
    loss, count = 0.0, 0
    with torch.no_grad():
        for row in rows[:ROWS]:
            chat = [{"role": "user", "content": row["question"]}]
            prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
            chat.append({"role": "assistant", "content": row["answer"]})
            whole = tokenizer.apply_chat_template(chat, tokenize=False)
            ids = tokenizer(whole, add_special_tokens=False, return_tensors="pt").input_ids
            start = len(tokenizer(prompt, add_special_tokens=False).input_ids)
            logits = model(ids).logits[0, start - 1 : -1].log_softmax(-1)
            loss -= logits.gather(1, ids[0, start:, None]).sum().item()
            count += ids.shape[1] - start
    difference = abs(loss / count - ours["loss"])
    print(f"loss of {ours['rows']} test rows: {ours['loss']:.6f}, transformers {loss / count:.6f}")
    same = ours["rows"] == ROWS and difference < 1e-4
    for row in rows[:2]:
        question = row["question"].replace("'", "").replace("\n", " ")
        text = session.run(
            f"generate --model run/model --chat '{question}' --max-new-tokens {NEW_TOKENS}"
        )
        chat = [{"role": "user", "content": question}]
        prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids
        with torch.no_grad():
            out = model.generate(ids, max_new_tokens=NEW_TOKENS, do_sample=False)
        wanted = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip()
        print(f"greedy answer equal: {wanted in text}", flush=True)
        if wanted not in text:
            print(f"  lisa: {text!r}\n  transformers: {wanted!r}")
            same = False
    return same


def without_start(text, earlier):
    """What a command printed, without the lines that it begins with as the earlier one."""
    command, *lines = text.split("\n")
    pairs = zip(lines, earlier.split("\n")[1:])
    same = next((at for at, (line, before) in enumerate(pairs) if line != before), len(lines))
    return "\n".join([command, "...", *lines[same:]])


def from_bar(text):
    """What a command printed on a terminal, from its progress bar on; None if the bar was erased by then."""
    command, *lines = text.split("\n")
    at = next((at for at, line in enumerate(lines) if re.match(r"[█░ ]{12} \d+/\d+ ", line)), None)
    return None if at is None else "\n".join([command, "...", *lines[at:]])


def page(session, how):
    """Puts what was printed, the time and the plot into the page of the first run."""
    docs = Path(__file__).resolve().parent.parent / "docs"
    text = (docs / "first-run.md").read_text()
    # A terminal differs in the run that was stopped; plan and preview have pages of their own.
    first, second, *others = session.texts[2:6]
    if how == "terminal" and from_bar(first) is None:
        print("no progress bar is left on the terminal: the page keeps that part", flush=True)
        return
    texts = [first, without_start(second, first), *others] if how == "piped" else [from_bar(first)]
    printed = "```text\n" + "\n".join(texts).rstrip() + "\n```"
    if how == "terminal":
        printed = f"On a terminal of {COLUMNS} columns, a progress bar replaces the lines of steps:\n\n{printed}"
    text = block(text, how, printed)
    if how == "piped":
        seconds = sum(seconds for _, seconds in session.times)
        time = (
            "The session, with `lisa plan` and `lisa preview` before these four commands (not shown), took "
            f"{seconds / 60:.0f} minutes on {processor()}. A line `...` replaces what the first command also printed."
        )
        text = block(text, "time", textwrap.fill(time, 120))
        shutil.copy(session.folder / "run/losses.svg", docs / "first-run.svg")
    (docs / "first-run.md").write_text(text)


def block(text, name, content):
    """The text with this content between its marks."""
    first, last = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    before, rest = text.split(first)
    return f"{before}{first}\n{content}\n\n{last}{rest.split(last)[1]}"


def processor():
    """The processor and its number of threads."""
    try:
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return f"{os.cpu_count()} cores of {found[1] if found else 'an unknown processor'}"


def main():
    parser = argparse.ArgumentParser()
    for name in ["model", "data", "out"]:
        parser.add_argument(name, type=lambda path: Path(path).resolve())
    parser.add_argument("--lisa", default=shutil.which("lisa") or "target/release/lisa")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--more", default="", help="more flags of `lisa train`")
    parser.add_argument("--only", choices=["piped", "terminal"])
    parser.add_argument("--page", action="store_true")
    options = parser.parse_args()
    program = str(Path(options.lisa).resolve())
    same = True
    for how in [options.only] if options.only else ["piped", "terminal"]:
        folder = options.out / how
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for target in [options.model, options.data]:
            (folder / target.name).symlink_to(target)
        names = (options.model.name, options.data.name)
        steps, more = options.steps, options.more
        session = play(program, folder, *names, steps, more, how == "terminal")
        (options.out / f"{how}.txt").write_text("\n".join(session.texts))
        if options.page:
            page(session, how)
        same = compare(session, options.data) and same
    sys.exit(not same)


if __name__ == "__main__":
    main()

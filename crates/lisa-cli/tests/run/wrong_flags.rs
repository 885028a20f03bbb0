//! Wrong commands, and what the program says.

use std::fs;

use super::output;

/// Wrong commands, and what is said.
const WRONG: [(&str, &str); 43] = [
    (
        "train --steps 1e9",
        "error: --steps is `1e9`\n  help: give a whole number, 0 or more, in digits alone\n",
    ),
    (
        "train --lr -1",
        "error: --lr is -1\n  help: give a learning rate above 0\n",
    ),
    (
        "train --batch_size 8 --micro_batch_size 2",
        "error: --batch_size and --micro_batch_size are the same setting\n  help: leave one of them out\n",
    ),
    (
        "train --max_step 3",
        "error: --max_step is not a flag of `lisa train`\n  help: did you mean `--max-steps`?\n",
    ),
    (
        "train --method full --period 3",
        "error: --period has no effect with --method full\n  help: leave it out, or use \
         --method lisa\n",
    ),
    (
        "train --max_length 9000",
        "error: --max-seq-length is 9000, and the model has 256 positions\n  help: give at most \
         256, or leave it out\n",
    ),
    (
        "train --data t.jsonl --metric contains",
        "error: --metric has no effect with held-out data without answers\n  help: leave it out, \
         or give data with answers, such as prompt and completion\n",
    ),
    (
        "train --eval-fraction 0.2",
        "error: --eval-fraction has no effect with data that has held-out files of its own\n  \
         help: leave it out, or give the training files alone with --data\n",
    ),
    (
        "preview --data t.jsonl --turns last",
        "error: --turns has no effect with data without chats\n  help: leave it out, or give \
         chats\n",
    ),
    (
        "preview --data one.jsonl --row 2",
        "error: --row is 2, and there is 1 row\n  help: leave it out\n",
    ),
    (
        "plan --memory 0",
        "error: --memory is `0`\n  help: give the memory of the device in GiB, above 0 (or as 24GB), or leave \
         it out\n",
    ),
    (
        "plan --lora-rank 18446744073709551615",
        "error: --lora-rank is 18446744073709551615\n  help: give 1 to 65536\n",
    ),
    (
        "plan --recompute",
        "error: --recompute is not a flag of `lisa plan`\n  help: leave it out: `lisa plan` compares \
         methods; `lisa train --dry-run` plans a run with its flags\n",
    ),
    (
        "plan --gradient_checkpointing",
        "error: --gradient_checkpointing is not a flag of `lisa plan`\n  help: leave it out: `lisa plan` \
         compares methods; `lisa train --dry-run` plans a run with its flags\n",
    ),
    (
        "plan --no-master-weights",
        "error: --no-master-weights has no effect with --dtype f32, which has no master \
         weights\n  help: leave it out, or use --dtype bf16\n",
    ),
    (
        "generate --prompt a --top-p 0.5",
        "error: --top-p has no effect with --temperature 0, which takes the most probable \
         token\n  help: leave it out, or give a --temperature above 0\n",
    ),
    (
        "generate --prompt a --chat-template chatml",
        "error: --chat-template has no effect with --prompt, which is plain text\n  help: leave \
         it out, or give the message with --chat\n",
    ),
    (
        "train --method foo",
        "error: --method is `foo`\n  help: give one of lisa, full, lora\n",
    ),
    (
        "train --steps",
        "error: --steps has no value\n  help: give one: --steps <STEPS>\n",
    ),
    (
        "train --overwrite --resume",
        "error: --overwrite cannot be given with --resume [<DIR>]\n  help: leave one of them \
         out\n",
    ),
    (
        "export runs/lisa",
        "error: `lisa export` also needs --out <DIR>\n  help: add it; `lisa export --help` lists the flags\n",
    ),
    (
        "generate",
        "error: `lisa generate` also needs --prompt <TEXT> or --chat <TEXT>\n  help: add one of them; \
         `lisa generate --help` lists the flags\n",
    ),
    (
        "export nope --out new",
        "error: there is no folder `nope`\n  help: give the output folder of `lisa train`, or the folder of \
         an adapter\n",
    ),
    (
        "train --resume nope",
        "error: there is no folder `DIR/nope`, and so no checkpoint\n  help: give the folder of a run with \
         --out; without --resume a new run begins here\n",
    ),
    (
        "train here",
        "error: `here` is not an argument of `lisa train`\n  help: `lisa train --help` lists \
         the flags\n",
    ),
    (
        "train --data t.jsonl u.jsonl",
        "error: `u.jsonl` is not an argument of `lisa train`\n  help: give files and folders with --data, \
         several with commas: --data A,B\n",
    ),
    (
        "preview t.jsonl",
        "error: `t.jsonl` is not an argument of `lisa preview`\n  help: give files and folders with --data, \
         several with commas: --data A,B\n",
    ),
    (
        "--data t.jsonl",
        "error: --data is not a flag of `lisa`\n  help: begin with a command: demo, train, plan, importance, \
         show, preview, evaluate, generate, export, devices, completions; `lisa COMMAND --help` lists its flags\n",
    ),
    (
        "-v",
        "error: `-v` is not an argument of `lisa`\n  help: begin with a command: demo, train, plan, importance, \
         show, preview, evaluate, generate, export, devices, completions; `lisa COMMAND --help` lists its flags\n",
    ),
    (
        "train --modle m",
        "error: --modle is not a flag of `lisa train`\n  help: did you mean `--model`?\n",
    ),
    (
        "preview --dtaa t.jsonl",
        "error: --dtaa is not a flag of `lisa preview`\n  help: did you mean `--data`?\n",
    ),
    (
        "train --ouput o",
        "error: --ouput is not a flag of `lisa train`\n  help: did you mean `--output`?\n",
    ),
    (
        "tran",
        "error: `tran` is not a command of lisa\n  help: did you mean `lisa train`?\n",
    ),
    (
        "train --columns a",
        "error: --columns: `a` in the columns `a` is not KEY=NAME\n  help: give pairs such as \
         question=prompt,answer=completion\n",
    ),
    (
        "train --revision main",
        "error: --revision is `main`, but the bundled model is not on the hub\n  help: leave \
         --revision out, or give the id of a model on the hub: owner/name\n",
    ),
    (
        "train --epochs nan",
        "error: --epochs is NaN\n  help: give a number above 0, or --steps\n",
    ),
    (
        "train --policy fixed --fixed-layers 1,2,1",
        "error: --fixed-layers has 1 twice\n  help: name each layer once, counted from 0\n",
    ),
    (
        "train --epochs 1e300",
        "error: --epochs is 1e300\n  help: give at most 1000000000\n",
    ),
    (
        "train --steps 9223372036854775807",
        "error: --steps is 9223372036854775807\n  help: give at most 1000000000\n",
    ),
    (
        "train --config latin.toml",
        "error: cannot read the settings `latin.toml`\n  because: invalid utf-8 sequence of 1 \
         bytes from index 0\n  help: give a text file in UTF-8\n",
    ),
    (
        "train --policy weighted --importance latin.toml --out new",
        "error: cannot read norms from `DIR/latin.toml`: stream did not contain valid UTF-8\n  \
         help: give a file of norms that `Importance::save` or `lisa importance` wrote\n",
    ),
    (
        "train --chat-template foo",
        "error: cannot use `--chat-template foo`\n  because: there is no chat template named \
         \"foo\"\n  help: give one of chatml, llama3, plain, or of the model's own: default; or a \
         file with a Jinja template\n",
    ),
    (
        "generate --prompt a --max-new-tokens 0",
        "error: --max-new-tokens is 0\n  help: give at least 1\n",
    ),
];

#[test]
fn a_wrong_flag_is_reported_as_other_errors_are() {
    let dir = tempfile::tempdir().unwrap();
    let texts = "{\"text\": \"one two\"}\n{\"text\": \"three\"}\n";
    fs::write(dir.path().join("t.jsonl"), texts).unwrap();
    fs::write(dir.path().join("one.jsonl"), "{\"text\": \"one\"}\n").unwrap();
    fs::write(dir.path().join("latin.toml"), b"\xe9\n").unwrap();
    let folder = dir.path().canonicalize().unwrap();
    for (line, expected) in WRONG {
        let output = output(dir.path(), line);
        assert!(!output.status.success(), "{line}");
        let text = String::from_utf8(output.stderr).unwrap();
        let text = text.replace(folder.to_str().unwrap(), "DIR");
        assert_eq!(text, expected, "{line}");
    }
}

use super::*;

fn help_of(name: &str, all: bool) -> String {
    let mut program = with_help(Program::command(), all);
    program.build();
    program
        .find_subcommand_mut(name)
        .unwrap()
        .render_help()
        .to_string()
}

#[test]
fn the_help_of_every_command_fits_on_two_screens() {
    for command in Program::command().get_subcommands() {
        let help = help_of(command.get_name(), false);
        assert!(help.lines().count() <= 50, "{help}");
        assert!(
            help.lines().all(|line| line.chars().count() <= 100),
            "{help}"
        );
    }
}

#[test]
fn the_long_help_has_every_flag_and_its_values_on_a_line() {
    let (short, long) = (help_of("train", false), help_of("train", true));
    for part in ["--warmup-ratio", "--lora-rank", "--fixed-layers"] {
        assert!(long.contains(part) && !short.contains(part), "{part}");
    }
    assert!(
        long.contains("[uniform, bernoulli, weighted, cyclic, gradient, budget, fixed]"),
        "{long}"
    );
    assert!(long.lines().count() < 130, "{long}");
    assert!(
        long.lines().all(|line| line.chars().count() <= 120),
        "{long}"
    );
}

#[test]
fn every_setting_is_in_a_group() {
    let program = Program::command();
    let train = program.find_subcommand("train").unwrap();
    let ungrouped = train
        .get_arguments()
        .filter(|arg| arg.get_help_heading().is_none());
    let names: Vec<_> = ungrouped.filter_map(clap::Arg::get_long).collect();
    assert_eq!(
        names,
        ["config", "resume", "allow-changed", "overwrite", "dry-run"]
    );
}

#[test]
fn completions_know_the_flags_and_their_values() {
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::PowerShell] {
        let script = String::from_utf8(completions(shell)).unwrap();
        for word in ["active-layers", "bernoulli", "dry-run", "preview"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
}

//! The program `lisa`: see `lisa --help`.

use std::io::Write;
use std::process::ExitCode;

use lisa_cli::commands::Program;
use lisa_cli::pool::in_pool;
use lisa_cli::terminal::log::log_to_stderr;
use lisa_cli::terminal::output::write_directly;
use lisa_cli::terminal::report::report;
use lisa_cli::train::run::Outcome;

fn main() -> ExitCode {
    write_directly();
    log_to_stderr();
    match in_pool(|| Program::from_args().run()) {
        Ok(Outcome::Finished) => ExitCode::SUCCESS,
        // What a shell reports of a program that Ctrl-C ended.
        Ok(Outcome::Stopped) => ExitCode::from(130),
        Err(error) => {
            // A terminal may be closed.
            let _ = write!(anstream::stderr(), "{}", report(&error));
            ExitCode::FAILURE
        }
    }
}

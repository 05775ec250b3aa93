//! The command line: parse, call one command, exit code. Everything else is the library's.

use std::process::ExitCode;

fn main() -> ExitCode {
    inspectord::cli::main()
}

//! The `xdp-lb` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    xdp_lb::cli::main()
}

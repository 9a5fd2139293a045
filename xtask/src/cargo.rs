//! Calls of cargo, and what it reports as JSON.

use std::env;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::paths;

/// The cargo that runs this program, to be called in the root of the checkout.
pub fn command() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(paths::workspace());
    // `cargo run` tells this program about its own package. Build scripts that watch such variables
    // would run again each time cargo is called from here and from the shell in turns.
    for (name, _) in env::vars_os() {
        let own = name.to_str().is_some_and(|name| {
            [
                "CARGO_PKG_",
                "CARGO_MANIFEST_",
                "CARGO_BIN_",
                "CARGO_CRATE_",
            ]
            .iter()
            .any(|prefix| name.starts_with(prefix))
        });
        if own {
            command.env_remove(name);
        }
    }
    command
}

/// Something that cargo built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Artifact {
    /// A program.
    Binary {
        /// Name of the target.
        name: String,
        /// Where it is.
        path: PathBuf,
    },
    /// A test program.
    Test {
        /// Name of the target.
        name: String,
        /// Where it is.
        path: PathBuf,
        /// The folder of its package, in which cargo would run it.
        package: PathBuf,
    },
    /// A build script has run.
    BuildScript {
        /// Its package, as cargo identifies it.
        package: String,
        /// Its `OUT_DIR`.
        out: PathBuf,
    },
}

/// Runs cargo with these arguments, and returns what it built. Diagnostics go to stderr.
pub fn build(arguments: &[&str]) -> Result<Vec<Artifact>> {
    build_with(command(), arguments)
}

/// As [`build`], with a [`command`] that has been told more.
pub(crate) fn build_with(mut cargo: Command, arguments: &[&str]) -> Result<Vec<Artifact>> {
    let (subcommand, options) = arguments.split_at(arguments.len().min(1));
    let mut child = cargo
        .args(subcommand)
        // Before the others: what stands behind `--` is for rustc.
        .arg("--message-format=json-render-diagnostics")
        .args(options)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    let output = child.stdout.take().context("cargo has no output")?;
    let mut artifacts = Vec::new();
    for line in BufReader::new(output).lines() {
        artifacts.extend(artifact(&line.context("cannot read what cargo reports")?));
    }
    let status = child.wait()?;
    if !status.success() {
        bail!(
            "`cargo {}` failed ({status}); see above",
            arguments.join(" ")
        );
    }
    Ok(artifacts)
}

fn artifact(line: &str) -> Option<Artifact> {
    let message: Value = serde_json::from_str(line).ok()?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    match message["reason"].as_str()? {
        "compiler-artifact" => {
            let name = text(&message["target"]["name"])?;
            let path = text(&message["executable"])?.into();
            if message["profile"]["test"].as_bool()? {
                let manifest = PathBuf::from(text(&message["manifest_path"])?);
                Some(Artifact::Test {
                    name,
                    path,
                    package: manifest.parent()?.to_owned(),
                })
            } else {
                Some(Artifact::Binary { name, path })
            }
        }
        "build-script-executed" => Some(Artifact::BuildScript {
            package: text(&message["package_id"])?,
            out: text(&message["out_dir"])?.into(),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_programs_are_told_from_programs() {
        let line = |test| {
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"/w/tests/Cargo.toml",
                "target":{{"name":"lab"}},"profile":{{"test":{test}}},"executable":"/t/lab-1"}}"#
            )
        };
        let (name, path) = ("lab".to_owned(), PathBuf::from("/t/lab-1"));
        let package = "/w/tests".into();
        assert_eq!(
            artifact(&line(true)),
            Some(Artifact::Test {
                name: name.clone(),
                path: path.clone(),
                package
            })
        );
        assert_eq!(
            artifact(&line(false)),
            Some(Artifact::Binary { name, path })
        );
    }

    #[test]
    fn libraries_and_other_reports_are_no_artifacts() {
        let library = r#"{"reason":"compiler-artifact","target":{"name":"a"},
            "profile":{"test":false},"executable":null}"#;
        assert_eq!(artifact(library), None);
        assert_eq!(
            artifact(r#"{"reason":"build-finished","success":true}"#),
            None
        );
        assert_eq!(artifact("not json"), None);
    }
}

//! What is wrong with a configuration, and how it is told.

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};
use std::string::FromUtf8Error;

use super::MAX_FILE_BYTES;
use super::yaml::At;

/// Problems that `Display` shows; the others are counted.
const SHOWN: usize = 20;
/// Characters of a line that `Display` shows, before and after the column.
const CONTEXT: usize = 60;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file could not be opened or read.
    #[error("{}: cannot be read: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The path leads to a directory.
    #[error("{}: is a directory; give the path of a file in it", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
    },
    /// The file is larger than [`MAX_FILE_BYTES`].
    #[error("{}: is larger than {} MiB; is this the right file?", path.display(), MAX_FILE_BYTES >> 20)]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file is not text in UTF-8.
    #[error("{}:{line}:{column}: is not UTF-8 from here on; save the file as UTF-8", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// Line of the first byte that is wrong, from 1.
        line: usize,
        /// Column of the first byte that is wrong, from 1, in characters.
        column: usize,
    },
    /// The file was read and is wrong.
    #[error("{}", Listing(problems))]
    Invalid {
        /// Everything that was found, in the order of the file; at least one.
        problems: Vec<Problem>,
    },
}

impl ConfigError {
    /// The problems with the file's content; none if it could not be read.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Invalid { problems } => problems,
            _ => &[],
        }
    }

    pub(super) fn not_utf8(path: &Path, error: &FromUtf8Error) -> Self {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let good = String::from_utf8_lossy(good);
        let last = good.rsplit('\n').next().unwrap_or_default();
        Self::NotUtf8 {
            path: path.into(),
            line: good.matches('\n').count() + 1,
            column: last.chars().count() + 1,
        }
    }
}

/// One thing that is wrong with a configuration, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file's name, as it was given.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1, in characters.
    pub column: usize,
    /// Way to the field, such as `services[1].backends[0].address`; empty: the file as a whole.
    pub field: String,
    /// What is wrong, and the way out.
    pub reason: String,
    /// The line with a caret below the column; empty where there is no such line.
    snippet: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{}{}", self.reason, self.snippet)
    }
}

/// The problems, one below the other.
struct Listing<'a>(&'a [Problem]);

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, problem) in self.0.iter().take(SHOWN).enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

/// A problem before the file is looked at again for its snippet.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    at: At,
    field: String,
    reason: String,
}

/// Collects problems. Shared by everything that reads one file.
pub(super) struct Problems<'a> {
    name: &'a str,
    text: &'a str,
    found: RefCell<Vec<Finding>>,
}

impl<'a> Problems<'a> {
    pub(super) fn new(name: &'a str, text: &'a str) -> Self {
        Self {
            name,
            text,
            found: RefCell::default(),
        }
    }

    /// Adds a problem.
    pub(super) fn push(&self, at: At, field: impl fmt::Display, reason: impl fmt::Display) {
        self.found.borrow_mut().push(Finding {
            at,
            field: field.to_string(),
            reason: reason.to_string(),
        });
    }

    /// The error for a file that has this problem and was not read any further.
    pub(super) fn only(self, at: At, reason: String) -> ConfigError {
        self.push(at, "", reason);
        self.into_error()
    }

    /// `value` if it is there and no problem was found.
    pub(super) fn finish<T>(self, value: Option<T>) -> Result<T, ConfigError> {
        match value {
            Some(value) if self.found.borrow().is_empty() => Ok(value),
            _ => Err(self.into_error()),
        }
    }

    fn into_error(self) -> ConfigError {
        let mut found = self.found.into_inner();
        found.sort();
        // One mistake in `defaults` is found by each service that inherits it.
        found.dedup();
        let lines: Vec<&str> = self.text.lines().collect();
        let problems = found.into_iter().map(|finding| Problem {
            file: self.name.to_owned(),
            line: finding.at.line,
            column: finding.at.column,
            snippet: snippet(&lines, finding.at),
            field: finding.field,
            reason: finding.reason,
        });
        ConfigError::Invalid {
            problems: problems.collect(),
        }
    }
}

/// The line at `at` and carets below it, each on a line of its own after a line break.
fn snippet(lines: &[&str], at: At) -> String {
    let Some(line) = at.line.checked_sub(1).and_then(|index| lines.get(index)) else {
        return String::new();
    };
    let column = at.column.saturating_sub(1);
    let start = column.saturating_sub(CONTEXT);
    // A control character would move the caret, or worse.
    let shown: String = line
        .chars()
        .skip(start)
        .take(2 * CONTEXT)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let shown = shown.trim_end();
    let room = shown.chars().count().saturating_sub(column - start);
    let carets = "^".repeat(at.width.min(room).max(1));
    let pad = " ".repeat(column - start);
    let number = at.line;
    let gutter = " ".repeat(number.to_string().len());
    format!("\n  {number} | {shown}\n  {gutter} | {pad}{carets}")
}

//! Reads what Rust's test programs print with `--show-output`.
//!
//! That option makes them list the output of tests that passed, in which a test says that it skipped.
//! All the rest of that output would bury the results, so it is dropped.

use std::fmt;
use std::ops::AddAssign;

/// What a test prints, at the start of a line, when it cannot run here; the reason follows.
pub const SKIPPED: &str = "SKIPPED: ";

/// What a test prints, at the start of a line, when this kernel lacks what it is about and nothing that
/// could be installed would change that; the reason follows.
pub const UNSUPPORTED: &str = "UNSUPPORTED: ";

/// How tests ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Ran, and held.
    pub passed: usize,
    /// Names of those that did not hold, and neither at the second try if there was one.
    pub failed: Vec<String>,
    /// Of those that passed: names of the ones that did not at first.
    pub repeated: Vec<String>,
    /// Names and reasons of those that could not run here.
    pub skipped: Vec<(String, String)>,
    /// Names and reasons of those that this kernel cannot run.
    pub unsupported: Vec<(String, String)>,
    /// Marked `#[ignore]`.
    pub ignored: usize,
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
        self.repeated.extend(other.repeated);
        self.skipped.extend(other.skipped);
        self.unsupported.extend(other.unsupported);
        self.ignored += other.ignored;
    }
}

impl fmt::Display for Totals {
    /// The closing line: `N passed, N failed`, and `, N skipped` where some did.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed.len())?;
        if !self.repeated.is_empty() {
            write!(f, ", {} passed at the second try only", self.repeated.len())?;
        }
        if !self.skipped.is_empty() {
            write!(f, ", {} skipped", self.skipped.len())?;
        }
        if !self.unsupported.is_empty() {
            write!(
                f,
                ", {} not possible on this kernel",
                self.unsupported.len()
            )?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Section {
    /// Tests run.
    #[default]
    Running,
    /// Output of tests that passed.
    Successes,
    /// Output of tests that failed.
    Failures,
}

/// Reads the output of one or several test programs, line by line.
#[derive(Default)]
pub struct Reader {
    totals: Totals,
    section: Section,
    /// The test whose output is being listed.
    test: String,
    /// Skips of the current program, which counts them as passed.
    skips: usize,
}

impl Reader {
    /// Takes a line; returns what to print of it.
    pub fn line(&mut self, line: &str) -> Option<String> {
        if let Some(result) = line.strip_prefix("test result: ") {
            return self.result(line, result);
        }
        match line {
            "successes:" => self.section = Section::Successes,
            "failures:" => self.section = Section::Failures,
            _ => {}
        }
        match self.section {
            Section::Successes => self.success(line),
            Section::Failures => Some(line.to_owned()),
            Section::Running => {
                let failed = line
                    .strip_prefix("test ")
                    .and_then(|rest| rest.strip_suffix(" ... FAILED"));
                self.totals.failed.extend(failed.map(str::to_owned));
                let noise = line.is_empty() || line == "running 0 tests";
                (!noise).then(|| line.to_owned())
            }
        }
    }

    /// How the tests ended so far.
    pub fn finish(self) -> Totals {
        self.totals
    }

    fn success(&mut self, line: &str) -> Option<String> {
        if let Some(header) = line.strip_prefix("---- ") {
            header
                .strip_suffix(" stdout ----")?
                .clone_into(&mut self.test);
        }
        let (list, reason) = match line.strip_prefix(SKIPPED) {
            Some(reason) => (&mut self.totals.skipped, reason),
            None => (
                &mut self.totals.unsupported,
                line.strip_prefix(UNSUPPORTED)?,
            ),
        };
        // A test skips once, whatever it prints.
        if self.skips > 0 && list.last().is_some_and(|(test, _)| *test == self.test) {
            return None;
        }
        self.skips += 1;
        list.push((self.test.clone(), reason.to_owned()));
        Some(format!("skipped {}: {reason}", self.test))
    }

    fn result(&mut self, line: &str, result: &str) -> Option<String> {
        let count = |what: &str| {
            let before = result.split(what).next()?;
            before
                .rsplit([' ', ';', '.'])
                .find(|word| !word.is_empty())?
                .parse::<usize>()
                .ok()
        };
        let passed = count(" passed").unwrap_or(0);
        self.totals.passed += passed.saturating_sub(self.skips);
        self.totals.ignored += count(" ignored").unwrap_or(0);
        (self.section, self.skips) = (Section::Running, 0);
        let nothing = passed == 0 && count(" failed") == Some(0);
        (!nothing).then(|| line.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "
running 4 tests
test a ... ok
test b::skips ... ok
test c ... FAILED
test d ... ignored

successes:

---- a stdout ----
much talk
not SKIPPED: no

---- b::skips stdout ----
SKIPPED: no bridge module
SKIPPED: again


successes:
    a
    b::skips

failures:

---- c stdout ----
thread 'c' panicked
SKIPPED: does not count

failures:
    c

test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.01s

running 0 tests

test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

running 12 tests
test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s
";

    fn read(output: &str) -> (Totals, Vec<String>) {
        let mut reader = Reader::default();
        let printed = output
            .lines()
            .filter_map(|line| reader.line(line))
            .collect();
        (reader.finish(), printed)
    }

    #[test]
    fn several_programs_are_summed_and_skips_do_not_pass() {
        let (totals, _) = read(OUTPUT);
        let skipped = vec![("b::skips".to_owned(), "no bridge module".to_owned())];
        let expected = Totals {
            passed: 13,
            failed: vec!["c".to_owned()],
            repeated: Vec::new(),
            skipped,
            unsupported: Vec::new(),
            ignored: 1,
        };
        assert_eq!(totals, expected);
        assert_eq!(totals.to_string(), "13 passed, 1 failed, 1 skipped");
    }

    #[test]
    fn talk_of_passing_tests_is_dropped_and_that_of_failing_ones_kept() {
        let (_, printed) = read(OUTPUT);
        assert!(!printed.iter().any(|line| line.contains("much talk")));
        assert!(
            printed
                .iter()
                .any(|line| line == "skipped b::skips: no bridge module")
        );
        assert!(printed.iter().any(|line| line == "thread 'c' panicked"));
        assert!(
            !printed
                .iter()
                .any(|line| line.contains("0 passed; 0 failed"))
        );
    }

    #[test]
    fn closing_line_names_skips_only_where_there_are_some() {
        assert_eq!(
            Totals {
                passed: 3,
                ..Totals::default()
            }
            .to_string(),
            "3 passed, 0 failed"
        );
    }

    #[test]
    fn what_a_kernel_lacks_is_told_apart_from_what_is_missing() {
        let output = "
running 2 tests
test a ... ok
test b ... ok

successes:

---- a stdout ----
UNSUPPORTED: it has no bridges

---- b stdout ----
SKIPPED: not root

test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
";
        let (totals, _) = read(output);
        let list = |test: &str, reason: &str| vec![(test.to_owned(), reason.to_owned())];
        assert_eq!(totals.unsupported, list("a", "it has no bridges"));
        assert_eq!(totals.skipped, list("b", "not root"));
        let line = "0 passed, 0 failed, 1 skipped, 1 not possible on this kernel";
        assert_eq!(totals.to_string(), line);
    }
}

//! One suite of Debian for apt, whatever the system's sources are, and what apt tells of its packages.

use std::path::Path;

/// Where Debian's keys are on a Debian, and on others that have its package of this name.
pub(super) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A suite of Debian on a mirror.
#[derive(Debug)]
pub(super) struct Suite {
    /// `bookworm-security`
    pub(super) name: &'static str,
    pub(super) mirror: &'static str,
    /// As Debian calls it.
    pub(super) architecture: &'static str,
}

impl Suite {
    /// What apt reads of its sources.
    pub(super) fn source(&self) -> String {
        let (name, mirror) = (self.name, self.mirror);
        format!("deb [signed-by={KEYRING}] {mirror} {name} main\n")
    }
}

/// What apt knows of a package.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Newest {
    /// Debian's version: `5.10.262-1`.
    pub(super) version: String,
    /// Names, without the versions wanted; of alternatives the first.
    pub(super) needs: Vec<String>,
}

impl Newest {
    /// Reads the first record of what `apt-cache show` prints.
    pub(super) fn parse(shown: &str) -> Option<Self> {
        let field = |name: &str| {
            shown
                .lines()
                .take_while(|line| !line.is_empty())
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        };
        let needs = field("Depends").unwrap_or_default().split(',');
        Some(Self {
            version: field("Version")?.to_owned(),
            needs: needs
                .filter_map(|need| need.split_whitespace().next())
                .map(str::to_owned)
                .collect(),
        })
    }
}

/// What makes apt know one suite and nothing else.
pub(super) fn only(suite: &Suite, folder: &Path) -> String {
    let folder = folder.display();
    format!(
        r#"Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
// An installed package would be a candidate, too.
Dir::State::status "/dev/null";
APT::Architecture "{}";
APT::Architectures {{ "{}"; }};
// The lists of a suite whose support has ended are not signed anew.
Acquire::Check-Valid-Until "false";
"#,
        suite.architecture, suite.architecture
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_tells_version_and_needs() {
        let shown = "Package: linux-image-cloud-amd64\nVersion: 5.10.262-1\n\
            Depends: linux-image-5.10.0-46-cloud-amd64 (= 5.10.262-1), a | b (>= 2)\nSize: 1\n\n\
            Package: linux-image-cloud-amd64\nVersion: 5.10.200-1\n";
        let newest = Newest::parse(shown).unwrap();
        assert_eq!(newest.version, "5.10.262-1");
        assert_eq!(newest.needs, ["linux-image-5.10.0-46-cloud-amd64", "a"]);
        assert_eq!(Newest::parse(""), None);
    }

    #[test]
    fn a_suite_is_the_only_source() {
        let suite = Suite {
            name: "sid",
            mirror: "http://mirror/debian",
            architecture: "amd64",
        };
        let source = suite.source();
        assert!(
            source.ends_with("] http://mirror/debian sid main\n"),
            "{source}"
        );
        let config = only(&suite, Path::new("/c/sid"));
        assert!(
            config.contains("sourcelist \"/c/sid/sources.list\""),
            "{config}"
        );
    }
}

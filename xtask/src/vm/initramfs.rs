//! The machine's file system, in memory: busybox, `ip` with its libraries, the kernel's modules, the
//! test program, and the script that the kernel starts.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::cpio::Archive;
use super::machine::{BEGIN, EXIT};
use crate::setup::Tools;

/// What goes into a machine.
pub(super) struct Contents<'a> {
    /// The test program; it needs no libraries.
    pub(super) program: &'a Path,
    /// Its arguments.
    pub(super) arguments: Vec<String>,
    /// A busybox that needs no libraries.
    pub(super) busybox: &'a Path,
    /// To be loaded, in this order.
    pub(super) modules: Vec<PathBuf>,
    /// Where the programs are that the tests run.
    pub(super) tools: &'a Tools,
}

impl Contents<'_> {
    /// Writes the file system to `path`.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let cannot = || format!("cannot write {}", path.display());
        let file = File::create(path).with_context(cannot)?;
        let mut archive = Archive::new(BufWriter::new(file));
        let folders = [
            "applets", "bin", "dev", "lib", "lib64", "modules", "proc", "sys", "tmp",
        ];
        for folder in folders {
            archive.folder(folder)?;
        }
        archive.device("dev/console", (5, 1))?;
        archive.file("init", self.script().as_bytes())?;
        for (name, file) in self.files()? {
            let content =
                fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            archive.file(&name, &content)?;
        }
        let written = archive.finish().with_context(cannot)?;
        written.into_inner().with_context(cannot)?;
        Ok(())
    }

    /// All files but the script, by their place in the machine.
    fn files(&self) -> Result<BTreeMap<String, PathBuf>> {
        let mut files = BTreeMap::from([
            ("bin/busybox".to_owned(), self.busybox.to_owned()),
            ("bin/tests".to_owned(), self.program.to_owned()),
        ]);
        for (number, module) in self.modules.iter().enumerate() {
            let name = module.file_name().unwrap_or_default().to_string_lossy();
            // The shell loads them in the order of their names.
            files.insert(format!("modules/{number}-{name}"), module.clone());
        }
        let ip = self.tools.executable("ip");
        let ip = ip.context("ip is not on this machine; `cargo xtask setup` brings it")?;
        let mut ldd = Command::new("ldd");
        let output = ldd
            .arg(&ip.file)
            .env("LD_LIBRARY_PATH", env::join_paths(&ip.libraries)?)
            .output()
            .context("cannot run ldd, which comes with the C library")?;
        let listed = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success() && !listed.contains("not found"),
            "not all libraries of {} are there: {listed}{}",
            ip.file.display(),
            String::from_utf8_lossy(&output.stderr)
        );
        files.extend(libraries(&listed));
        files.insert("bin/ip".to_owned(), ip.file);
        Ok(files)
    }

    /// What the kernel starts. The console is left to the kernel; tests have the second serial port.
    fn script(&self) -> String {
        let arguments: Vec<String> = self.arguments.iter().map(|text| quoted(text)).collect();
        let arguments = arguments.join(" ");
        let backtrace = quoted(&env::var("RUST_BACKTRACE").unwrap_or_default());
        // Not busybox's own `ip`, which knows less: /bin comes first.
        format!(
            "#!/bin/busybox sh\n\
             /bin/busybox --install -s /applets\n\
             export PATH=/bin:/applets\n\
             mount -t devtmpfs dev /dev\n\
             exec >/dev/ttyS1 2>&1 </dev/null\n\
             echo \"{BEGIN}$(uname -r)\"\n\
             mount -t proc proc /proc\n\
             mount -t sysfs sys /sys\n\
             mount -t bpf bpf /sys/fs/bpf\n\
             mount -t tmpfs tmp /tmp\n\
             for module in /modules/*; do\n\
             case $module in *.xz) unxz $module; module=${{module%.xz}};; esac\n\
             insmod $module\n\
             done\n\
             export LD_LIBRARY_PATH=/lib RUST_BACKTRACE={backtrace}\n\
             cd /tmp\n\
             /bin/tests {arguments}\n\
             code=$?\n\
             echo\n\
             echo \"{EXIT}$code\"\n\
             poweroff -f\n"
        )
    }
}

/// What `ldd` lists, by its place in the machine: the loader where it is looked for, all others in
/// `lib`.
fn libraries(listed: &str) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    for line in listed.lines() {
        let (line, _address) = line.trim().rsplit_once(" (").unwrap_or((line, ""));
        match line.split_once(" => ") {
            Some((name, path)) => {
                found.insert(format!("lib/{name}"), path.into());
            }
            None => {
                if let Some(name) = line.strip_prefix('/') {
                    found.insert(name.to_owned(), line.into());
                }
            }
        }
    }
    found
}

/// A word for the shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_lie_in_one_folder_and_the_loader_where_it_is_looked_for() {
        let listed = "\tlinux-vdso.so.1 (0x00007f)\n\
            \tlibmnl.so.0 => /a b/lib/libmnl.so.0 (0x00007f)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expected = BTreeMap::from([
            ("lib/libmnl.so.0".to_owned(), "/a b/lib/libmnl.so.0".into()),
            (
                "lib64/ld-linux-x86-64.so.2".to_owned(),
                "/lib64/ld-linux-x86-64.so.2".into(),
            ),
        ]);
        assert_eq!(libraries(listed), expected);
        assert!(libraries("\tstatically linked\n").is_empty());
    }

    #[test]
    fn script_quotes_the_arguments_of_the_tests() {
        let contents = Contents {
            program: Path::new("/t/prog_run"),
            arguments: vec!["--show-output".to_owned(), "it's; $x".to_owned()],
            busybox: Path::new("/b/busybox"),
            modules: Vec::new(),
            tools: &Tools::new().unwrap(),
        };
        let script = contents.script();
        assert!(script.contains(r"/bin/tests '--show-output' 'it'\''s; $x'"));
        // No word of the script is left to the template.
        assert!(script.contains("${module%.xz}") && script.starts_with("#!/bin/busybox sh\n/bin"));
    }
}

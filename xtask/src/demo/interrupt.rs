//! Ctrl-C: the kernel takes the namespaces with this process; the labs' folders are left to do.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::Result;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};

/// Folders that go when the demo is interrupted.
#[derive(Debug)]
pub(super) struct Interrupt(Arc<Mutex<Vec<PathBuf>>>);

impl Interrupt {
    /// Waits for signals, on a thread of its own.
    pub(super) fn new() -> Result<Self> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (mut interrupt, mut terminate) = {
            let _inside = runtime.enter();
            (
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
            )
        };
        let folders = Arc::new(Mutex::new(Vec::new()));
        let all = Self(Arc::clone(&folders));
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                    }
                });
                for folder in &*folders.lock().unwrap_or_else(PoisonError::into_inner) {
                    // It may be gone already.
                    let _ = fs::remove_dir_all(folder);
                }
                eprintln!("\ninterrupted; the lab is gone");
                std::process::exit(130);
            })?;
        Ok(all)
    }

    /// One folder more.
    pub(super) fn removes(&self, folder: &Path) {
        let mut folders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        folders.push(folder.to_owned());
    }
}

//! Ctrl-C: the kernel takes the namespaces with this process; the labs' folders are left to do.

use std::thread;

use anyhow::Result;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::lab::registry;

/// Waits for signals from now on, on a thread of its own, and ends this process and its labs at the first.
pub(crate) fn watch() -> Result<()> {
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
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
            });
            // To the end, so that no further lab is begun meanwhile.
            let _lock = match registry::forget_all() {
                Ok(lock) => {
                    eprintln!("\ninterrupted; the lab is gone");
                    Some(lock)
                }
                Err(error) => {
                    eprintln!("\ninterrupted; {error:#}");
                    None
                }
            };
            std::process::exit(130);
        })?;
    Ok(())
}

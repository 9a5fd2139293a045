//! Directors that lose their power, and boot again.

use std::sync::Arc;

use anyhow::Result;

use super::{Director, Lab};

impl Lab {
    /// Takes a director's power away: neither it nor its data plane answers any more.
    pub fn lose_power(&self, director: &mut Director) -> Result<()> {
        // The cables first, so that packets stop at one moment.
        self.set_cables(director.host(), false)?;
        if director.pid().is_some() {
            director.kill()?;
        }
        Ok(())
    }

    /// Boots a director that has no power, and starts its daemon. There are no VIPs and no XDP program on its
    /// interfaces before that; the files that the daemon has kept are there.
    pub fn boot(&self, director: &mut Director) -> Result<()> {
        let host = Arc::clone(director.host());
        director.unpin()?;
        host.drop_other_addresses()?;
        self.set_cables(&host, true)?;
        director.restart()
    }
}

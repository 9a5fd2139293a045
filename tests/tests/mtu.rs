//! Tunnels on a network whose MTU leaves no room for their headers: the director tells clients what fits.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use xdp_lb_tests::lab::{Rig, program};
use xdp_lb_tests::modes::{self, GUE6, IPIP, Mode};
use xtask::lab::{DOWNLOAD_BYTES, Lab, LabConfig};

const UPLOAD: usize = 4_000_000;
/// Long enough for the largest transfer on a machine under load.
const PATIENCE: Duration = Duration::from_secs(60);

/// Large bodies in both directions, for clients of both families, where every MTU is 1500.
fn large_bodies_arrive(config: LabConfig, modes: &[Mode]) -> Result<()> {
    let lab = Lab::new(config)?;
    lab.decapsulate(&program())?;
    let yaml = modes::config(&lab, modes);
    let rig = Rig::in_lab(lab, &yaml)?;
    let client = rig.lab.client().with_patience(PATIENCE);
    for vip in modes.iter().flat_map(Mode::vips) {
        let to = (vip, 80).into();
        let (dropped, told) = (rig.counter("too_big")?, rig.counter("too_big_sent")?);
        // First, while the client knows nothing of the way yet.
        let answer = client
            .post(to, "/upload", vec![b'x'; UPLOAD])
            .with_context(|| format!("an upload to {vip}"))?;
        ensure!(answer.body == UPLOAD.to_string(), "{vip}: {answer:?}");
        let (dropped, told) = (
            rig.counter("too_big")? - dropped,
            rig.counter("too_big_sent")? - told,
        );
        ensure!(
            told > 0 && dropped >= told,
            "{vip}: {dropped} packets were too big, and {told} messages sent"
        );
        let downloads = client.download(to, "/download", 1)?;
        for download in downloads.wait(PATIENCE)? {
            ensure!(download.is_complete(), "{vip}: {download:?}");
            ensure!(download.received == DOWNLOAD_BYTES, "{vip}: {download:?}");
        }
    }
    Ok(())
}

#[test]
fn large_bodies_arrive_through_tunnels_where_all_mtus_are_equal() -> Result<()> {
    let modes = [IPIP, GUE6];
    large_bodies_arrive(modes::lab(&modes, 1), &modes)
}

#[test]
fn clients_behind_tags_are_told_what_fits() -> Result<()> {
    let modes = [IPIP];
    large_bodies_arrive(modes::lab(&modes, 1).tagged(100), &modes)
}

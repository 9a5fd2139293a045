//! Daemons that crash or hang, and interfaces that die: who serves, and until when.

use anyhow::{Result, ensure};
use xdp_lb_tests::lab::SOON;
use xdp_lb_tests::vrrp::{Pair, config, has_address, main_entry};
use xtask::lab::wait_for;

const VIP: &str = "192.0.2.10";

/// Two directors of which the first is active.
fn pair(fields: &str) -> Result<Pair> {
    let fields = format!("advert_interval: 100ms, {fields}");
    let configs = [200, 100].map(|priority| config(2, &[main_entry(priority, &fields)]));
    let pair = Pair::new(2, &configs)?;
    pair.wait_for_state(0, "active")?;
    pair.wait_for_state(1, "backup")?;
    pair.wait_for_vip(0, VIP, true)?;
    Ok(pair)
}

/// Clients are served, and the router sends their packets to this director.
fn served_by(pair: &Pair, director: usize) -> Result<()> {
    wait_for("the router to know who is active", SOON, || {
        let client = pair.lab.client();
        for response in client.get_many((pair.lab.vip(), 80).into(), "/", 20, 4) {
            ensure!(response?.status == 200, "not a good answer");
        }
        Ok(pair.check_neighbour(pair.lab.vip(), director).ok())
    })
}

#[test]
fn a_director_without_its_program_takes_no_part() -> Result<()> {
    let configs = [200, 100].map(|priority| {
        // VRRP has an interface of its own, which stays.
        let entry = main_entry(priority, "advert_interval: 100ms");
        config(2, &[entry]).replace(
            "[eth0]",
            if priority == 200 {
                "[eth0, eth7]"
            } else {
                "[eth0]"
            },
        )
    });
    let pair = Pair::new(2, &configs)?;
    let reason = "the program is not attached: interface `eth7` does not exist";
    pair.wait_for_state(1, "active")?;
    let has_reason = || -> Result<bool> {
        let view = pair.view(0)?;
        let told = view["reason"].as_str().unwrap_or_default().to_owned();
        Ok(view["state"] == "initialize" && told.starts_with(reason))
    };
    ensure!(has_reason()?, "{}", pair.view(0)?);
    let host = pair.host(0);
    host.ip(&[
        "link", "add", "eth7", "type", "veth", "peer", "name", "far7",
    ])?;
    pair.wait_for_state(0, "active")?;
    pair.wait_for_state(1, "backup")?;
    served_by(&pair, 0)?;
    host.ip(&["link", "del", "eth7"])?;
    pair.wait_for_state(1, "active")?;
    ensure!(has_reason()?, "{}", pair.view(0)?);
    served_by(&pair, 1)
}

#[test]
fn when_the_active_daemon_is_killed_the_other_director_serves() -> Result<()> {
    let mut pair = pair("")?;
    let client = pair.lab.client();
    let downloads = client.download((pair.lab.vip(), 80).into(), "/download?rate=200k", 8)?;
    downloads.wait_until_running(SOON)?;
    pair.directors[0].kill()?;
    pair.wait_for_state(1, "active")?;
    served_by(&pair, 1)?;
    // Its data plane goes on for whoever still comes, and so does the address that nobody is there to remove.
    ensure!(
        pair.host(0)
            .ip(&["link", "show", "dev", "eth0"])?
            .contains("xdp")
    );
    ensure!(has_address(pair.host(0), VIP)?);
    pair.directors[0].restart()?;
    pair.wait_for_state(0, "active")?;
    pair.wait_for_state(1, "backup")?;
    served_by(&pair, 0)?;
    let all = downloads.progress();
    ensure!(
        all.iter().all(|it| it.end.is_none() || it.is_complete()),
        "{all:?}"
    );
    Ok(())
}

#[test]
fn a_daemon_that_comes_back_as_backup_removes_what_it_had() -> Result<()> {
    let mut pair = pair("preempt: false")?;
    pair.directors[0].kill()?;
    pair.wait_for_state(1, "active")?;
    ensure!(has_address(pair.host(0), VIP)?);
    pair.directors[0].restart()?;
    pair.wait_for_vip(0, VIP, false)?;
    pair.wait_for_state(0, "backup")?;
    served_by(&pair, 1)
}

#[test]
fn a_daemon_that_comes_back_alone_never_gave_the_address_up() -> Result<()> {
    let mut pair = pair("")?;
    pair.directors[1].terminate()?;
    pair.directors[0].kill()?;
    pair.directors[0].restart()?;
    pair.wait_for_state(0, "active")?;
    ensure!(has_address(pair.host(0), VIP)?);
    let log = pair.directors[0].log()?;
    ensure!(!log.contains("removed"), "{log}");
    served_by(&pair, 0)
}

#[test]
fn a_daemon_that_hangs_is_noticed_and_gives_way_or_takes_over_when_it_goes_on() -> Result<()> {
    let pair = pair("")?;
    pair.directors[0].halt()?;
    pair.wait_for_state(1, "active")?;
    served_by(&pair, 1)?;
    pair.directors[0].go_on()?;
    pair.wait_for_state(1, "backup")?;
    pair.wait_for_vip(1, VIP, false)?;
    served_by(&pair, 0)?;
    // One that is not the better one has nothing to say when it wakes up.
    pair.directors[1].halt()?;
    std::thread::sleep(std::time::Duration::from_secs(1));
    pair.directors[1].go_on()?;
    served_by(&pair, 0)?;
    ensure!(pair.states(1)? == ["backup"], "{}", pair.view(1)?);
    ensure!(pair.view(1)?["transitions"] == 3, "{}", pair.view(1)?);
    Ok(())
}

#[test]
fn a_dead_interface_is_noticed_on_both_sides() -> Result<()> {
    let pair = pair("")?;
    pair.lab.set_cables(pair.host(0), false)?;
    pair.wait_for_state(0, "initialize")?;
    ensure!(pair.view(0)?["reason"] == "interface eth0 is down");
    pair.wait_for_vip(0, VIP, false)?;
    pair.wait_for_state(1, "active")?;
    served_by(&pair, 1)?;
    pair.lab.set_cables(pair.host(0), true)?;
    pair.wait_for_state(0, "active")?;
    pair.wait_for_state(1, "backup")?;
    served_by(&pair, 0)
}

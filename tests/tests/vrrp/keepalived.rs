//! Our daemon and keepalived in one virtual router.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use xdp_lb_tests::lab::program;
use xdp_lb_tests::vrrp::{config, counter, views, wait_for_state, wait_for_vip};
use xtask::lab::keepalived::{Instance, Keepalived};
use xtask::lab::{Director, Lab, LabConfig};

/// One family and one way of advertising.
#[derive(Clone, Copy, Debug)]
struct Setting {
    is_ipv6: bool,
    is_unicast: bool,
}

impl Setting {
    fn vips(self) -> Vec<String> {
        let vips: &[&str] = if self.is_ipv6 {
            &["fe80::100/64", "2001:db8:10::10/128"]
        } else {
            &["192.0.2.10/32"]
        };
        vips.iter().map(|&vip| vip.into()).collect()
    }

    /// The last of them.
    fn vip(self) -> &'static str {
        if self.is_ipv6 {
            "2001:db8:10::10"
        } else {
            "192.0.2.10"
        }
    }

    fn addresses(self, lab: &Lab) -> [IpAddr; 2] {
        ["director", "director2"].map(|name| {
            let host = lab.host(name);
            if self.is_ipv6 {
                host.v6().into()
            } else {
                host.v4().into()
            }
        })
    }

    fn ours(self, lab: &Lab, priority: u8, fields: &str) -> String {
        let vips: Vec<_> = self.vips().iter().map(|vip| format!("\"{vip}\"")).collect();
        let [own, peer] = self.addresses(lab);
        let unicast = if self.is_unicast {
            format!("source: \"{own}\", peers: \"{peer}\", ")
        } else {
            String::new()
        };
        let entry = format!(
            "name: main, interface: eth0, vrid: 51, priority: {priority}, advert_interval: 100ms, \
             checksum: pseudo_header, vips: [{}], {unicast}{fields}",
            vips.join(", ")
        );
        config(1, &[entry])
    }

    fn theirs(self, lab: &Lab, priority: u8) -> Instance {
        let [peer, own] = self.addresses(lab);
        Instance {
            vrid: 51,
            priority,
            interval: 100,
            vips: self.vips(),
            unicast: self.is_unicast.then_some((own, peer)),
            nopreempt: false,
        }
    }
}

/// A lab with our daemon on the first director, and keepalived on the second.
struct Mixed {
    ours: Director,
    theirs: Keepalived,
    setting: Setting,
    lab: Lab,
}

impl Mixed {
    fn new(setting: Setting, priorities: [u8; 2], fields: &str) -> Result<Self> {
        let lab = Lab::new(LabConfig::redundant(1))?;
        let ours = setting.ours(&lab, priorities[0], fields);
        let ours = lab.start_director_on(lab.host("director"), &program(), &ours)?;
        let theirs = setting.theirs(&lab, priorities[1]);
        let theirs = Keepalived::start(lab.host("director2"), lab.dir(), &theirs)?;
        Ok(Self {
            ours,
            theirs,
            setting,
            lab,
        })
    }

    /// Waits until we are active and have the addresses.
    fn wait_until_ours(&self) -> Result<()> {
        wait_for_state(&self.ours, "active")?;
        wait_for_vip(self.lab.host("director"), self.setting.vip(), true)
    }

    /// Waits until we are a backup, and keepalived has the addresses.
    fn wait_until_theirs(&self) -> Result<()> {
        wait_for_vip(self.lab.host("director2"), self.setting.vip(), true)?;
        if self.ours.pid().is_some() {
            wait_for_state(&self.ours, "backup")?;
            wait_for_vip(self.lab.host("director"), self.setting.vip(), false)?;
        }
        Ok(())
    }

    /// Waits until keepalived has not got the addresses.
    fn wait_until_not_theirs(&self) -> Result<()> {
        wait_for_vip(self.lab.host("director2"), self.setting.vip(), false)
    }

    /// Nothing that keepalived has sent was refused.
    fn check_counters(&self) -> Result<()> {
        for view in views(&self.ours)? {
            for refused in [
                "hops",
                "length",
                "version",
                "type",
                "checksum",
                "interval",
                "no_address",
                "source",
                "destination",
                "addresses",
                "other_interval",
                "send_failed",
            ] {
                ensure!(counter(&view, refused)? == 0, "{refused}: {view:#}");
            }
            ensure!(counter(&view, "received")? > 0, "{view:#}");
            ensure!(counter(&view, "sent")? > 0, "{view:#}");
        }
        let log = self.theirs.log()?;
        for word in ["nvalid", "ncorrect", "ismatch", "bogus", "wrong"] {
            ensure!(!log.contains(word), "keepalived complains:\n{log}");
        }
        Ok(())
    }
}

/// We are the better one: elected, leaving, preempting, dying.
fn we_are_better(setting: Setting) -> Result<()> {
    let mut mixed = Mixed::new(setting, [200, 100], "")?;
    mixed.wait_until_ours()?;
    mixed.wait_until_not_theirs()?;
    mixed.ours.terminate()?;
    mixed.wait_until_theirs()?;
    mixed.ours.restart()?;
    mixed.wait_until_ours()?;
    mixed.wait_until_not_theirs()?;
    // It dies without a word, and leaves the addresses where they are.
    mixed.ours.kill()?;
    mixed.wait_until_theirs()?;
    mixed.ours.restart()?;
    mixed.wait_until_ours()?;
    mixed.wait_until_not_theirs()?;
    mixed.check_counters()
}

/// keepalived is the better one.
fn they_are_better(setting: Setting) -> Result<()> {
    let mut mixed = Mixed::new(setting, [100, 200], "")?;
    mixed.wait_until_theirs()?;
    mixed.theirs.terminate()?;
    mixed.wait_until_ours()?;
    let instance = setting.theirs(&mixed.lab, 200);
    mixed.theirs.restart(&instance)?;
    mixed.wait_until_theirs()?;
    mixed.theirs.kill()?;
    mixed.wait_until_ours()?;
    // What it has left is its own to clear up.
    let [_, host] = ["director", "director2"].map(|name| mixed.lab.host(name));
    for vip in setting.vips() {
        host.ip(&["address", "del", &vip, "dev", "eth0"])?;
    }
    mixed.theirs.restart(&instance)?;
    mixed.wait_until_theirs()?;
    mixed.check_counters()
}

/// Neither takes over from one that is worse if it is not to.
fn neither_preempts(setting: Setting) -> Result<()> {
    let mut mixed = Mixed::new(setting, [200, 100], "preempt: false")?;
    mixed.ours.terminate()?;
    mixed.wait_until_theirs()?;
    mixed.ours.restart()?;
    // Until well after it would have taken over.
    std::thread::sleep(std::time::Duration::from_secs(1));
    mixed.wait_until_theirs()?;
    mixed.theirs.terminate()?;
    mixed.wait_until_ours()?;
    let instance = Instance {
        nopreempt: true,
        ..setting.theirs(&mixed.lab, 250)
    };
    mixed.theirs.restart(&instance)?;
    std::thread::sleep(std::time::Duration::from_secs(1));
    mixed.wait_until_ours()?;
    mixed.wait_until_not_theirs()?;
    mixed.check_counters()
}

/// The tests of one family and one way of advertising.
macro_rules! settings {
    ($($name:ident: $is_ipv6:literal, $is_unicast:literal;)*) => {
        $(mod $name {
            use super::*;

            const SETTING: Setting = Setting { is_ipv6: $is_ipv6, is_unicast: $is_unicast };

            #[test]
            fn we_are_better() -> Result<()> {
                super::we_are_better(SETTING)
            }

            #[test]
            fn they_are_better() -> Result<()> {
                super::they_are_better(SETTING)
            }

            #[test]
            fn neither_preempts() -> Result<()> {
                super::neither_preempts(SETTING)
            }
        })*
    };
}

settings! {
    ipv4_multicast: false, false;
    ipv4_unicast: false, true;
    ipv6_multicast: true, false;
    ipv6_unicast: true, true;
}

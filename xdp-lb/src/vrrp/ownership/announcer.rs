//! When addresses are announced: at once, and a few times more, since nobody confirms that it has heard.

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    num::NonZero,
    time::{Duration, Instant},
};

use tracing::debug;

use super::{plan::Desired, settings};
use crate::{
    netlink::LinkMap,
    vrrp::{VirtualAddress, announce, link_socket::LinkSocket},
};

/// When, counted from the moment that an address has come.
const TIMES: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(5),
];

/// The shortest time between announcements that others bring about.
const PAUSE: Duration = Duration::from_secs(1);

/// What is still to be announced, by virtual router.
#[derive(Debug, Default)]
pub(super) struct Announcer(BTreeMap<usize, Schedule>);

#[derive(Debug, Default)]
struct Schedule {
    /// In the order of time.
    due: Vec<Instant>,
    last: Option<Instant>,
    /// The MAC address that others know.
    mac: Option<[u8; 6]>,
}

impl Announcer {
    /// The addresses of a virtual router have come.
    pub(super) fn begin(&mut self, id: usize, now: Instant) {
        let schedule = self.0.entry(id).or_default();
        schedule.due = TIMES.map(|after| now + after).into();
    }

    /// They are gone.
    pub(super) fn end(&mut self, id: usize) {
        self.0.remove(&id);
    }

    /// This is the MAC address of a virtual router that has its addresses; the device may have got another.
    pub(super) fn is_at(&mut self, id: usize, mac: [u8; 6], now: Instant) {
        let schedule = self.0.entry(id).or_default();
        let before = schedule.mac.replace(mac);
        if before.is_some_and(|before| before != mac) {
            self.begin(id, now);
        }
    }

    /// Somebody may have heard otherwise.
    pub(super) fn again(&mut self, id: usize, now: Instant) {
        let schedule = self.0.entry(id).or_default();
        let soon = schedule.last.map_or(now, |last| now.max(last + PAUSE));
        if schedule.due.first().is_none_or(|due| *due > soon) {
            schedule.due.insert(0, soon);
        }
    }

    /// When there is something to be sent.
    pub(super) fn due(&self) -> Option<Instant> {
        let schedules = self.0.values();
        schedules.filter_map(|it| it.due.first().copied()).min()
    }

    /// Sends what is due, of the addresses that are here.
    pub(super) fn send_due(
        &mut self,
        desired: &Desired,
        links: &LinkMap,
        is_held: &dyn Fn(usize, VirtualAddress) -> bool,
        now: Instant,
    ) {
        for (&id, schedule) in &mut self.0 {
            let later = schedule.due.iter().position(|due| *due > now);
            let count = later.unwrap_or(schedule.due.len());
            if count == 0 {
                continue;
            }
            schedule.due.drain(..count);
            schedule.last = Some(now);
            let Some((holding, _)) = desired.get(&id) else {
                continue;
            };
            if let (Some(link), Some(mac)) = (links.get(&holding.interface), schedule.mac) {
                let addresses = holding.addresses.iter();
                let here = addresses.filter(|&&address| is_held(id, address));
                let sent = send(
                    &holding.interface,
                    link.ifindex,
                    mac,
                    here.map(|it| it.address),
                );
                if let Err(error) = sent {
                    debug!(interface = holding.interface, %error, "addresses are not announced");
                }
            }
        }
    }
}

/// Sends an announcement of each address; the last failure, if not all can be sent.
fn send(
    interface: &str,
    ifindex: u32,
    mac: [u8; 6],
    addresses: impl Iterator<Item = IpAddr>,
) -> io::Result<()> {
    let Some(ifindex) = NonZero::new(ifindex) else {
        return Ok(());
    };
    let socket = LinkSocket::open(ifindex)?;
    let is_router = settings::is_router(interface);
    let mut sent = Ok(());
    for address in addresses {
        let frame = announce::frame(address, mac, is_router)?;
        // One that the queue has no room for says nothing of the next.
        sent = socket.send(&frame).and(sent);
    }
    sent
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The milliseconds at which something is sent.
    fn times(announcer: &mut Announcer, begin: Instant, until: u64) -> Vec<u128> {
        let mut times = Vec::new();
        while let Some(due) = announcer.due() {
            if due > begin + Duration::from_millis(until) {
                break;
            }
            times.push((due - begin).as_millis());
            announcer.send_due(&Desired::new(), &LinkMap::default(), &|_, _| true, due);
        }
        times
    }

    #[test]
    fn addresses_are_announced_a_few_times() {
        let begin = Instant::now();
        let mut announcer = Announcer::default();
        assert_eq!(announcer.due(), None);
        announcer.begin(1, begin);
        assert_eq!(
            times(&mut announcer, begin, 60_000),
            [0, 50, 200, 1000, 5000]
        );
        // Gone before all was said.
        announcer.begin(1, begin);
        assert_eq!(times(&mut announcer, begin, 100), [0, 50]);
        announcer.end(1);
        assert_eq!(announcer.due(), None);
    }

    #[test]
    fn another_mac_address_is_announced() {
        let begin = Instant::now();
        let mut announcer = Announcer::default();
        announcer.begin(1, begin);
        announcer.is_at(1, [2; 6], begin);
        times(&mut announcer, begin, 60_000);
        let later = begin + Duration::from_secs(60);
        announcer.is_at(1, [2; 6], later);
        assert_eq!(announcer.due(), None, "the same");
        announcer.is_at(1, [4; 6], later);
        assert_eq!(announcer.due(), Some(later));
    }

    #[test]
    fn others_bring_about_one_announcement_a_second() {
        let begin = Instant::now();
        let mut announcer = Announcer::default();
        announcer.begin(1, begin);
        times(&mut announcer, begin, 60_000);
        // The last one was after five seconds.
        for after in [5010, 5020, 5500] {
            announcer.again(1, begin + Duration::from_millis(after));
        }
        assert_eq!(times(&mut announcer, begin, 60_000), [6000]);
        announcer.again(1, begin + Duration::from_secs(20));
        assert_eq!(times(&mut announcer, begin, 60_000), [20_000]);
    }
}

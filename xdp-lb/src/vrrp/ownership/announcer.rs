//! When addresses are announced: at once, and a few times more, since nobody confirms that it has heard.

use std::{
    collections::BTreeMap,
    num::NonZero,
    time::{Duration, Instant},
};

use tracing::debug;

use super::plan::Desired;
use crate::{
    netlink::LinkMap,
    vrrp::{announce, link_socket::LinkSocket},
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

    /// Sends what is due.
    pub(super) fn send_due(&mut self, desired: &Desired, links: &LinkMap, now: Instant) {
        for (id, schedule) in &mut self.0 {
            let later = schedule.due.iter().position(|due| *due > now);
            let count = later.unwrap_or(schedule.due.len());
            if count == 0 {
                continue;
            }
            schedule.due.drain(..count);
            schedule.last = Some(now);
            if let Some((holding, _)) = desired.get(id)
                && let Some(link) = links.get(&holding.interface)
                && let Err(error) = send(holding, link)
            {
                debug!(interface = holding.interface, %error, "addresses are not announced");
            }
        }
    }
}

fn send(holding: &super::Holding, link: &crate::netlink::Link) -> std::io::Result<()> {
    let Some(ifindex) = NonZero::new(link.ifindex) else {
        return Ok(());
    };
    let socket = LinkSocket::open(ifindex)?;
    let mac = holding.mac().unwrap_or(link.mac);
    for address in &holding.addresses {
        socket.send(&announce::frame(address.address, mac)?)?;
    }
    Ok(())
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
            announcer.send_due(&Desired::new(), &LinkMap::default(), due);
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

//! Real requests: how they are shared out, and that replies do not pass the director.

use anyhow::{Result, ensure};

use super::screen::{Screen, grouped, percent};
use super::stage::{Stage, WEIGHTS, address};
use crate::lab::Packets;

const REQUESTS: u64 = 5000;

/// Sends requests; shows the shares and the packets.
pub(super) fn show(screen: &Screen, stage: &Stage) -> Result<()> {
    let count = grouped(REQUESTS);
    let (client, director) = (stage.lab.host("client"), stage.lab.host("director"));
    screen.step(&format!(
        "Shares: {count} requests, each on a connection of its own"
    ));
    let before = (Packets::of(client)?, Packets::of(director)?);
    let shares = screen.work("sending requests through the VIP", || {
        stage.request(REQUESTS.try_into()?)
    })?;
    let seen = Packets::of(client)?.since(before.0);
    let passed = Packets::of(director)?.since(before.1);

    screen.header("backend    address     weight  expected      got");
    let total: u64 = WEIGHTS.iter().sum();
    for (number, weight) in (1..).zip(WEIGHTS) {
        let name = format!("backend{number}");
        let got = percent(shares.get(&name).copied().unwrap_or(0), REQUESTS);
        let (expected, address) = (percent(weight, total), address(number));
        let bar = screen.bar(got, 50.0);
        screen.line(&format!(
            "{name}   {address}   {weight:>6}    {expected:>4.1} %   {got:>4.1} %  {bar}"
        ));
        // Five standard deviations.
        let slack = 5.0 * (expected * (100.0 - expected) / 5000.0).sqrt();
        ensure!(
            (got - expected).abs() < slack,
            "{name} answered {got:.1} % of the requests, which is too far from {expected:.1} %"
        );
    }
    screen.good(&format!(
        "{count} of {count} requests answered, shared out by weight"
    ));

    screen.step("Direct server return: replies do not pass the director");
    screen.header("packets     received       sent");
    screen.line(&format!(
        "client    {:>10} {:>10}",
        grouped(seen.rx),
        grouped(seen.tx)
    ));
    screen.line(&format!(
        "director  {:>10} {:>10}",
        grouped(passed.rx),
        grouped(passed.tx)
    ));
    // ARP, and what two readings at two times differ by.
    let slack = seen.rx / 50;
    ensure!(
        passed.rx.abs_diff(seen.tx) < slack,
        "the director received {} packets of the client's {}",
        passed.rx,
        seen.tx
    );
    screen.good("the director received what the client sent, and none of the replies");
    Ok(())
}

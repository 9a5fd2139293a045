//! What was found, as it stands in the JSON file.

use serde::{Deserialize, Serialize};

use super::super::report::{Machine, Spread};
use super::{Kind, Way};

/// A whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Where it was measured.
    pub(super) machine: Machine,
    /// Processors that all hosts shared.
    pub(super) processors: usize,
    /// Backends, each with an nginx.
    pub(super) backends: usize,
    /// Connections at once.
    pub(super) connections: usize,
    /// Bytes of an answer, without its head.
    pub(super) body_bytes: usize,
    /// How often each was measured.
    pub(super) rounds: usize,
    /// How long in a round.
    pub(super) seconds: u64,
    /// Who took part.
    pub(super) versions: Versions,
    /// What was measured.
    pub(super) measured: Vec<Measured>,
}

/// The versions of the programs that took part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Versions {
    pub(super) nftables: String,
    pub(super) haproxy: String,
    /// The backends', too.
    pub(super) nginx: String,
    /// The clients'.
    pub(super) wrk: String,
}

/// One way with one kind of connections.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Measured {
    pub(super) way: Way,
    pub(super) kind: Kind,
    /// In the order of time.
    pub(super) rounds: Vec<Round>,
}

/// A round.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Round {
    /// Requests a second.
    pub(super) per_second: f64,
    /// Microseconds of processor time for each request, of all who had to do with it.
    pub(super) micros: f64,
    /// What part of the processors' time that is.
    pub(super) busy: f64,
    /// What part of their time nobody wanted. The rest went to others.
    pub(super) idle: f64,
}

impl Round {
    /// Requests a second that it would have been if nobody else had wanted the processors.
    fn undisturbed(&self) -> f64 {
        // Both are counted in ticks, so that they may sum up to more.
        self.per_second / (self.busy + self.idle).min(1.0)
    }
}

impl Report {
    /// Those with one kind of connections.
    pub(super) fn of(&self, kind: Kind) -> impl Iterator<Item = &Measured> {
        self.measured.iter().filter(move |it| it.kind == kind)
    }

    pub(super) fn find(&self, way: Way, kind: Kind) -> Option<&Measured> {
        self.of(kind).find(|it| it.way == way)
    }
}

impl Measured {
    /// The requests a second of the rounds, as they were counted.
    pub(super) fn rate(&self) -> Spread {
        self.spread(|round| round.per_second)
    }

    /// And as they would be without others on the processors.
    pub(super) fn undisturbed(&self) -> Spread {
        self.spread(Round::undisturbed)
    }

    /// The processor time for each request.
    pub(super) fn micros(&self) -> Spread {
        self.spread(|round| round.micros)
    }

    /// What part of the processors' time there was for it.
    pub(super) fn had(&self) -> Spread {
        self.spread(|round| (round.busy + round.idle).min(1.0))
    }

    /// What part of another's undisturbed requests these are, round by round.
    pub(super) fn ratio(&self, other: &Self) -> Spread {
        let rounds = self.rounds.iter().zip(&other.rounds);
        let ratios = rounds.map(|(own, other)| own.undisturbed() / other.undisturbed());
        Spread::of(&ratios.collect::<Vec<_>>())
    }

    fn spread(&self, of: fn(&Round) -> f64) -> Spread {
        Spread::of(&self.rounds.iter().map(of).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A round for each pair: requests a second, and the part of the processors' time that there was.
    fn measured(way: Way, rounds: &[(f64, f64)]) -> Measured {
        let round = |&(per_second, had)| Round {
            per_second,
            micros: 1.0,
            busy: had - 0.1,
            idle: 0.1,
        };
        Measured {
            way,
            kind: Kind::New,
            rounds: rounds.iter().map(round).collect(),
        }
    }

    #[test]
    fn ratios_are_those_of_the_same_round() {
        let straight = measured(Way::Straight, &[(1000.0, 1.0), (100.0, 1.0), (500.0, 1.0)]);
        let ours = measured(Way::XdpLb, &[(900.0, 1.0), (90.0, 1.0), (450.0, 1.0)]);
        let ratio = ours.ratio(&straight);
        assert_eq!((ratio.lower, ratio.median, ratio.upper), (0.9, 0.9, 0.9));
        assert_eq!(ours.rate().median, 450.0);
    }

    #[test]
    fn what_others_took_is_made_up_for_and_idling_is_not() {
        let disturbed = measured(Way::XdpLb, &[(450.0, 0.5)]);
        assert_eq!(disturbed.rate().median, 450.0);
        assert_eq!(disturbed.undisturbed().median, 900.0);
        assert_eq!(disturbed.had().median, 0.5);
        let straight = measured(Way::Straight, &[(1000.0, 1.2)]);
        assert_eq!(straight.undisturbed().median, 1000.0);
        assert_eq!(disturbed.ratio(&straight).median, 0.9);
    }
}

//! Which backends of a service get slots: by health, tier and panic threshold.

use std::collections::BTreeMap;

/// What decides about a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) tier: u8,
    /// There is a way to it.
    pub(super) can_be_reached: bool,
    /// Neither draining nor of weight 0.
    pub(super) is_wanted: bool,
    pub(super) is_healthy: bool,
}

/// Whether a backend gets slots, or why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It does.
    InUse,
    /// It does, since too many are down.
    InUseThoughDown,
    /// It could, but its tier is not needed.
    Standby,
    /// It is down, or cannot be reached, or is not wanted.
    Down,
}

impl Standing {
    pub(super) const fn is_in_use(self) -> bool {
        matches!(self, Self::InUse | Self::InUseThoughDown)
    }
}

/// Which backends get slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Selection {
    /// In the order of the facts.
    pub(super) standings: Vec<Standing>,
    /// True where those that are down are used as well.
    pub(super) is_panic: bool,
}

/// Chooses.
///
/// Tiers are used in the order of their numbers: the first, and the next one as well while the one before
/// has fewer healthy backends than its minimum (`minimums` by the tiers' numbers; the last entry holds for
/// all further ones) or is in panic, which is when more than `panic_threshold` percent of its wanted backends
/// are down. If the last tier is in panic itself, and no other is left to be used, all backends of all
/// tiers are used that can be reached.
pub(super) fn select(facts: &[Facts], minimums: &[u32], panic_threshold: Option<u8>) -> Selection {
    let mut tiers: BTreeMap<u8, Tier> = BTreeMap::new();
    for fact in facts.iter().filter(|fact| fact.is_wanted) {
        let tier = tiers.entry(fact.tier).or_default();
        tier.wanted += 1;
        tier.healthy += u32::from(fact.is_usable());
    }
    let mut last_used = None;
    let mut is_panic = false;
    for (&number, tier) in &tiers {
        last_used = Some(number);
        is_panic = tier.is_in_panic(panic_threshold);
        if !is_panic && tier.healthy >= minimum(minimums, number) {
            break;
        }
    }
    let standing = |fact: &Facts| {
        let is_used = last_used.is_some_and(|last| fact.tier <= last);
        match (fact.is_usable(), is_used) {
            (true, true) => Standing::InUse,
            (true, false) => Standing::Standby,
            (false, true) if is_panic && fact.is_wanted && fact.can_be_reached => {
                Standing::InUseThoughDown
            }
            (false, _) => Standing::Down,
        }
    };
    let standings: Vec<_> = facts.iter().map(standing).collect();
    Selection {
        is_panic: standings.contains(&Standing::InUseThoughDown),
        standings,
    }
}

impl Facts {
    fn is_usable(&self) -> bool {
        self.is_wanted && self.can_be_reached && self.is_healthy
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Tier {
    wanted: u32,
    healthy: u32,
}

impl Tier {
    fn is_in_panic(self, threshold: Option<u8>) -> bool {
        let down = u64::from(self.wanted - self.healthy) * 100;
        threshold.is_some_and(|threshold| down > u64::from(threshold) * u64::from(self.wanted))
    }
}

fn minimum(minimums: &[u32], tier: u8) -> u32 {
    let minimum = minimums.get(usize::from(tier)).or(minimums.last());
    minimum.copied().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `+` up, `-` down, `x` not to be reached, `d` draining; a blank begins the next tier.
    fn facts(text: &str) -> Vec<Facts> {
        let tiers = (0..).zip(text.split(' '));
        let of_tier = |(tier, states): (u8, &str)| {
            let fact = move |state| Facts {
                tier,
                can_be_reached: state != 'x',
                is_wanted: state != 'd',
                is_healthy: state != '-',
            };
            states.chars().map(fact).collect::<Vec<_>>()
        };
        tiers.flat_map(of_tier).collect()
    }

    /// `u` in use, `p` in use though down, `s` standby, `.` none of these; `!` in front: panic.
    fn selected(text: &str, minimums: &[u32], threshold: Option<u8>) -> String {
        let selection = select(&facts(text), minimums, threshold);
        let mut out = String::from(if selection.is_panic { "!" } else { "" });
        out.extend(selection.standings.iter().map(|standing| match standing {
            Standing::InUse => 'u',
            Standing::InUseThoughDown => 'p',
            Standing::Standby => 's',
            Standing::Down => '.',
        }));
        out
    }

    #[test]
    fn the_healthy_ones_of_the_first_tier_are_used() {
        for (given, expected) in [
            ("", ""),
            ("+++", "uuu"),
            ("+-+", "u.u"),
            ("---", "..."),
            ("-+-", ".u."),
            ("+xd", "u.."),
            ("+ +", "us"),
            ("- +", ".u"),
            ("d +", ".u"),
            ("- - +", "..u"),
            ("- + +", ".us"),
            ("d- -", "..."),
        ] {
            assert_eq!(selected(given, &[1], None), expected, "{given}");
        }
    }

    #[test]
    fn the_next_tier_helps_one_that_has_too_few() {
        for (given, expected) in [
            ("++ +", "uus"),
            ("+- +", "u.u"),
            ("+x +", "u.u"),
            ("+ + +", "uus"),
            ("+- - +", "u..u"),
        ] {
            assert_eq!(selected(given, &[2, 1], None), expected, "{given}");
        }
    }

    #[test]
    fn when_too_many_are_down_all_are_used() {
        for (given, expected) in [
            ("++--", "uu.."),
            ("+---", "!uppp"),
            ("----", "!pppp"),
            ("+--x", "!upp."),
            ("+--d", "!upp."),
            ("-", "!p"),
            ("x", "."),
            ("+-", "u."),
        ] {
            assert_eq!(selected(given, &[1], Some(50)), expected, "{given}");
        }
        assert_eq!(selected("+-", &[1], Some(0)), "!up");
    }

    #[test]
    fn a_sorry_server_comes_before_panic() {
        for (given, expected) in [
            ("--- +", "...u"),
            ("+-- +", "u..u"),
            ("--- -", "!pppp"),
            ("+-- -", "!uppp"),
            ("--- - +", "....u"),
        ] {
            assert_eq!(selected(given, &[1], Some(50)), expected, "{given}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_healthy_is_not_left_unused_for_what_is_not(
            states in "[-+xd]{0,4}( [-+xd]{0,4}){0,3}",
            minimums in proptest::collection::vec(1_u32..4, 1..4),
            threshold in proptest::option::of(0_u8..100),
        ) {
            let facts = facts(&states);
            let selection = select(&facts, &minimums, threshold);
            let used = |index: usize| selection.standings[index].is_in_use();
            let mut any_usable = false;
            for (index, fact) in facts.iter().enumerate() {
                any_usable |= fact.is_usable();
                prop_assert!(!used(index) || fact.is_wanted && fact.can_be_reached);
                if !used(index) || !fact.is_healthy {
                    continue;
                }
                // Nobody of an earlier tier, and nobody of its own, who could serve is left out.
                let earlier = facts.iter().enumerate().filter(|(_, it)| it.tier <= fact.tier);
                for (other, it) in earlier {
                    prop_assert!(!it.is_usable() || used(other));
                }
            }
            let any_used = (0..facts.len()).any(used);
            prop_assert!(!any_usable || any_used);
            if threshold.is_none() {
                prop_assert!(!selection.is_panic);
            }
            if selection.is_panic {
                prop_assert!(!selection.standings.contains(&Standing::Standby));
            }
        }
    }
}

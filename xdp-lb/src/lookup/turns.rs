//! Whose turn it is to take a slot: weighted round robin, spread smoothly.
//!
//! In each round the heaviest takes one turn, and the others take theirs as often as their weight
//! relative to the heaviest says: the k-th turn of weight w falls into round
//! ⌈(k − ½) · heaviest / w⌉, so that after any number of rounds each is within half a turn of its
//! share. But everyone's first turn is in the first round, so that a small weight is not none.
//!
//! Rounds wait in a calendar queue, a circle of first-in-first-out lists, so that a turn costs the
//! same however many there are and however far their weights are apart.

use super::index;

/// Ends a list.
const NONE: u32 = u32::MAX;

/// An endless iterator over indices into the weights that it was made of. Ends only if there are
/// no weights.
#[derive(Debug)]
pub(super) struct Turns {
    /// How many have had their first turn.
    begun: u32,
    pace: Vec<Pace>,
    /// For each of the coming rounds, those whose turn it is: first and last of a list.
    rounds: Vec<(u32, u32)>,
    /// For each, who comes after it in its list.
    links: Vec<u32>,
    /// The present round, as an index into `rounds`.
    now: u32,
}

/// How many rounds pass between two turns: `whole`, and one more whenever `slack` is used up.
#[derive(Clone, Copy, Debug)]
struct Pace {
    whole: u32,
    remainder: u32,
    /// By how much, in units of 1 / weight of a round, the next turn is later than it should be.
    slack: u32,
    weight: u32,
}

impl Turns {
    /// Begins with the first round. Each weight is to be above 0, and at most [`MAX_WEIGHT`].
    ///
    /// [`MAX_WEIGHT`]: super::MAX_WEIGHT
    pub(super) fn new(weights: impl ExactSizeIterator<Item = u32> + Clone) -> Self {
        let heaviest = weights.clone().max().unwrap_or(1);
        let lightest = weights.clone().min().unwrap_or(1).max(1);
        // The second turn comes at most 1.5 periods of the lightest after the first.
        let rounds = index(heaviest / lightest * 3 / 2 + 4);
        let mut turns = Self {
            begun: 0,
            pace: Vec::with_capacity(weights.len()),
            rounds: vec![(NONE, NONE); rounds],
            links: vec![NONE; weights.len()],
            now: 0,
        };
        for (who, weight) in (0..NONE).zip(weights) {
            let (pace, second) = Pace::new(weight.max(1), heaviest);
            turns.pace.push(pace);
            turns.enqueue(who, second - 1);
        }
        turns
    }

    /// Appends `who` to the round that comes `rounds` after the present one.
    fn enqueue(&mut self, who: u32, rounds: u32) {
        let mut round = index(self.now) + index(rounds);
        if round >= self.rounds.len() {
            round -= self.rounds.len();
        }
        let (first, last) = &mut self.rounds[round];
        if *first == NONE {
            *first = who;
        } else {
            self.links[index(*last)] = who;
        }
        *last = who;
        self.links[index(who)] = NONE;
    }
}

impl Pace {
    /// The pace of `weight`, and the round of its second turn, counted from 1.
    fn new(weight: u32, heaviest: u32) -> (Self, u32) {
        let due = 2 * heaviest - heaviest / 2;
        let second = due.div_ceil(weight);
        let pace = Self {
            whole: heaviest / weight,
            remainder: heaviest % weight,
            slack: second * weight - due,
            weight,
        };
        (pace, second)
    }

    /// How many rounds after this turn the next one is.
    fn step(&mut self) -> u32 {
        if let Some(slack) = self.slack.checked_sub(self.remainder) {
            self.slack = slack;
            self.whole
        } else {
            self.slack += self.weight - self.remainder;
            self.whole + 1
        }
    }
}

impl Iterator for Turns {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if index(self.begun) < self.pace.len() {
            self.begun += 1;
            return Some(index(self.begun - 1));
        }
        if self.pace.is_empty() {
            return None;
        }
        // The heaviest takes a turn in every round, so the next round that is not empty is near.
        while self.rounds[index(self.now)].0 == NONE {
            self.now += 1;
            if index(self.now) == self.rounds.len() {
                self.now = 0;
            }
        }
        let who = self.rounds[index(self.now)].0;
        self.rounds[index(self.now)].0 = self.links[index(who)];
        let rounds = self.pace[index(who)].step();
        self.enqueue(who, rounds);
        Some(index(who))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(weights: &[u32], count: usize) -> Vec<usize> {
        Turns::new(weights.iter().copied()).take(count).collect()
    }

    #[test]
    fn equal_weights_take_turns_in_order() {
        assert_eq!(turns(&[7, 7, 7], 8), [0, 1, 2, 0, 1, 2, 0, 1]);
    }

    #[test]
    fn nobody_has_no_turns() {
        assert!(turns(&[], 8).is_empty());
    }

    #[test]
    fn half_the_weight_takes_every_second_round() {
        // Rounds: 0 1, 0, 1 0, 0, 1 0, 0.
        assert_eq!(turns(&[2, 1], 9), [0, 1, 0, 1, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn after_any_number_of_rounds_each_is_within_half_a_turn_of_its_share() {
        let weights = [100, 1, 3, 50, 99, 33, 67, 100];
        for rounds in 1..1000 {
            let due: Vec<u32> = weights
                .iter()
                .map(|weight| ((2 * rounds * weight + 100) / 200).max(1))
                .collect();
            let mut taken = vec![0; weights.len()];
            for who in turns(&weights, index(due.iter().sum())) {
                taken[who] += 1;
            }
            assert_eq!(taken, due, "after {rounds} rounds");
        }
    }

    #[test]
    fn extreme_weights_cost_no_more_than_equal_ones() {
        let weights = || (0..65_534u32).map(|i| if i == 7 { 65_535 } else { 1 });
        let mut taken = vec![0u32; 65_534];
        for who in Turns::new(weights()).take(5_000_011) {
            taken[who] += 1;
        }
        assert!(taken.iter().all(|&taken| taken >= 1));
        assert!(taken[7] > 2_400_000, "{} turns", taken[7]);
    }
}

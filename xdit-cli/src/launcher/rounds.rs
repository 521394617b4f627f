//! Which ranks go on without a lost one, and when: the rounds of a job.

use std::collections::BTreeMap;

/// What a process is doing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum SeatState {
    /// It takes part in the round.
    Works,
    /// It has left the round, and waits for the next one.
    Waits,
    /// It counts as lost, and has not ended yet.
    Lost,
}

/// The ranks of a job, from one loss to the next. A round ends when one of its ranks is lost. The next one begins when each of the
/// others has said that it has left this one, and the lost ones have ended.
#[derive(Debug)]
pub(super) struct RankRound {
    number: u64,
    /// The first of its ranks, which prints and writes.
    speaker: usize,
    running: BTreeMap<usize, SeatState>,
}

impl RankRound {
    /// The first round.
    pub(super) fn new(world_size: usize) -> Self {
        Self {
            number: 0,
            speaker: 0,
            running: (0..world_size)
                .map(|rank| (rank, SeatState::Works))
                .collect(),
        }
    }

    /// How many rounds there were before.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The rank that prints and writes.
    pub(super) fn speaker(&self) -> usize {
        self.speaker
    }

    /// Rank `rank` has left round `number`. Returns whether that is news: it is not of a lost rank, or about an earlier round.
    pub(super) fn left(&mut self, rank: usize, number: u64) -> bool {
        match self.running.get_mut(&rank) {
            Some(state) if *state == SeatState::Works && number == self.number => {
                *state = SeatState::Waits;
                true
            }
            _ => false,
        }
    }

    /// Rank `rank` counts as lost. Returns whether its process is to be ended.
    pub(super) fn lose(&mut self, rank: usize) -> bool {
        match self.running.get_mut(&rank) {
            Some(state) if *state != SeatState::Lost => {
                *state = SeatState::Lost;
                true
            }
            _ => false,
        }
    }

    /// The process of rank `rank` has ended.
    pub(super) fn ended(&mut self, rank: usize) {
        self.running.remove(&rank);
    }

    fn of(&self, state: SeatState) -> impl Iterator<Item = usize> {
        let ranks = self.running.iter().filter(move |(_, own)| **own == state);
        ranks.map(|(rank, _)| *rank)
    }

    /// Whether a rank has left this round.
    pub(super) fn is_over(&self) -> bool {
        self.of(SeatState::Waits).next().is_some()
    }

    /// The ranks that still take part in this round.
    pub(super) fn working(&self) -> Vec<usize> {
        self.of(SeatState::Works).collect()
    }

    /// Begins the next round if all ranks wait for it. Returns its ranks.
    pub(super) fn next(&mut self) -> Option<Vec<usize>> {
        let ranks: Vec<usize> = self.of(SeatState::Waits).collect();
        if ranks.is_empty() || ranks.len() < self.running.len() {
            return None;
        }
        self.number += 1;
        self.speaker = ranks[0];
        self.running
            .values_mut()
            .for_each(|state| *state = SeatState::Works);
        Some(ranks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_others_go_on_when_all_know_of_the_loss() {
        let mut round = RankRound::new(4);
        // Rank 0 stopped; the others lose it.
        assert!(round.left(2, 0) && round.is_over());
        assert!(round.lose(0) && !round.lose(0));
        assert!(round.left(1, 0) && !round.left(1, 0));
        assert_eq!((round.next(), round.working()), (None, vec![3]));
        assert!(round.left(3, 0));
        // It has not ended yet, and says nothing that counts.
        assert!(!round.left(0, 0));
        assert_eq!(round.next(), None);
        round.ended(0);
        assert_eq!(round.next(), Some(vec![1, 2, 3]));
        assert_eq!((round.number(), round.speaker()), (1, 1));
        // A word about the first round comes late.
        assert!(!round.left(2, 0) && !round.is_over());
        round.ended(1);
        assert!(round.left(2, 1) && round.left(3, 1));
        assert_eq!(round.next(), Some(vec![2, 3]));
        round.ended(3);
        assert!(round.left(2, 2));
        assert_eq!(round.next(), Some(vec![2]));
        round.ended(2);
        assert_eq!(round.next(), None);
    }

    #[test]
    fn ranks_that_have_finished_are_not_waited_for() {
        let mut round = RankRound::new(3);
        round.ended(1);
        assert!(round.left(2, 0));
        assert_eq!(round.next(), None);
        round.ended(0);
        assert_eq!(round.next(), Some(vec![2]));
    }
}

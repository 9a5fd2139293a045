//! Virtual routers that fail over together.
//!
//! A group takes over when *each* of its members has waited long enough for a better router, and steps
//! down as a whole when *one* of them hears such a router. So all of its members are always in one state,
//! and a network that loses the advertisements of one member alone makes nobody active twice.

use std::time::{Duration, Instant};

use super::machine::{Action, Heard, Machine, Settings, State};

#[cfg(test)]
mod tests;

/// What one of the members is to do: its number, and what.
pub type Task = (usize, Action);

/// Virtual routers that are always in the same state.
#[derive(Clone, Debug)]
pub struct Group {
    members: Vec<Machine>,
}

impl Group {
    /// One that does not take part yet. There is at least one member; all have the same priority.
    #[must_use]
    pub fn new(members: impl IntoIterator<Item = Settings>) -> Self {
        Self {
            members: members.into_iter().map(Machine::new).collect(),
        }
    }

    /// The state of all members.
    #[must_use]
    pub fn state(&self) -> State {
        self.members
            .first()
            .map_or(State::Initialize, Machine::state)
    }

    /// When to call [`Group::tick`]; None: never.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        let dues = self.members.iter().filter_map(Machine::due);
        match self.state() {
            // The last of them decides.
            State::Backup => dues.max(),
            State::Initialize | State::Active => dues.min(),
        }
    }

    /// How long the group waits for a word of the active one.
    #[must_use]
    pub fn active_down_interval(&self) -> Duration {
        let intervals = self.members.iter().map(Machine::active_down_interval);
        intervals.max().unwrap_or_default()
    }

    /// Takes part from now on.
    pub fn start(&mut self, now: Instant) -> Vec<Task> {
        self.all(|machine| machine.start(now))
    }

    /// Takes part no more.
    pub fn stop(&mut self) -> Vec<Task> {
        self.all(Machine::stop)
    }

    /// Has another priority from now on.
    pub fn set_priority(&mut self, priority: u8, now: Instant) -> Vec<Task> {
        self.all(|machine| machine.set_priority(priority, now))
    }

    /// A member is set up with this from now on, but for its priority, for which there is
    /// [`Group::set_priority`].
    pub fn set(&mut self, member: usize, settings: Settings) {
        self.members[member].set(settings);
    }

    /// What is to be done when [`Group::due`] has come; nothing before that.
    pub fn tick(&mut self, now: Instant) -> Vec<Task> {
        let has_come = |machine: &Machine| machine.due().is_some_and(|due| due <= now);
        if self.state() == State::Backup && !self.members.iter().all(has_come) {
            return Vec::new();
        }
        self.all(|machine| machine.tick(now))
    }

    /// An advertisement for a member has come.
    pub fn hear(&mut self, member: usize, heard: Heard, now: Instant) -> Vec<Task> {
        let before = self.members[member].state();
        let actions = self.members[member].hear(heard, now);
        let mut tasks: Vec<_> = actions.into_iter().map(|action| (member, action)).collect();
        if before == State::Active && self.members[member].state() == State::Backup {
            // It has left the addresses to another already.
            tasks.extend(self.all(|machine| machine.step_down(now)));
        }
        tasks
    }

    fn all(&mut self, mut event: impl FnMut(&mut Machine) -> Vec<Action>) -> Vec<Task> {
        let members = self.members.iter_mut().enumerate();
        members
            .flat_map(|(member, machine)| {
                let actions = event(machine);
                actions.into_iter().map(move |action| (member, action))
            })
            .collect()
    }
}

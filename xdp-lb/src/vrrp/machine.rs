//! What a virtual router does (RFC 9568, section 6): when it is active, and when it says so.
//!
//! The machine is told the time and what happens, and answers with what is to be done. It neither sends
//! nor waits: whoever has it does both, and calls [`Machine::tick`] when [`Machine::due`] has come.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use super::packet::Interval;

#[cfg(test)]
mod tests;

/// The priority of the router that owns the addresses.
pub const OWNER: u8 = 255;

/// The priority of a router that leaves.
pub const LEAVES: u8 = 0;

/// What a virtual router is set up with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// 1..=254, or [`OWNER`].
    pub priority: u8,
    /// How often it advertises while it is active.
    pub interval: Interval,
    /// Whether it takes over from one of a lower priority, and how long after its start it does so at the
    /// earliest; None: it does not.
    pub preempt: Option<Duration>,
    /// Its own address, which decides between equal priorities.
    pub address: IpAddr,
}

/// The states of section 6.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// It does not take part.
    Initialize,
    /// Another one is active, or will be.
    Backup,
    /// It has the addresses.
    Active,
}

impl State {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Initialize => "initialize",
            Self::Backup => "backup",
            Self::Active => "active",
        }
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Send an advertisement with this priority.
    Advertise {
        /// The priority, or [`LEAVES`].
        priority: u8,
    },
    /// Take the addresses, and announce them.
    Take,
    /// Give the addresses up.
    Release,
    /// Announce the addresses again: another router thought that it had them.
    Announce,
}

/// What was heard from another router of the same virtual router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Its priority.
    pub priority: u8,
    /// How often it advertises.
    pub interval: Interval,
    /// Its address.
    pub from: IpAddr,
}

/// One virtual router.
#[derive(Clone, Debug)]
pub struct Machine {
    settings: Settings,
    state: State,
    /// The interval of the one that is active.
    active_interval: Interval,
    /// `Adver_Timer` of one that is active, `Active_Down_Timer` of a backup.
    due: Option<Instant>,
    /// Until then it leaves others of lower priority alone.
    patient_until: Option<Instant>,
}

impl Machine {
    /// One that does not take part yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            state: State::Initialize,
            active_interval: settings.interval,
            due: None,
            patient_until: None,
        }
    }

    /// Its state.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// When to call [`Machine::tick`]; None: never.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// How long it waits for a word of the active one (`Active_Down_Interval`).
    #[must_use]
    pub fn active_down_interval(&self) -> Duration {
        self.active_interval.duration() * 3 + self.skew()
    }

    /// The better its priority, the earlier it takes over (`Skew_Time`).
    fn skew(&self) -> Duration {
        self.active_interval.duration() * (256 - u32::from(self.settings.priority)) / 256
    }

    /// Takes part from now on (section 6.4.1).
    pub fn start(&mut self, now: Instant) -> Vec<Action> {
        if self.state != State::Initialize {
            return Vec::new();
        }
        self.active_interval = self.settings.interval;
        self.patient_until = self
            .settings
            .preempt
            .and_then(|delay| (!delay.is_zero()).then(|| now + delay));
        if self.settings.priority == OWNER {
            return self.become_active(now);
        }
        self.state = State::Backup;
        self.due = Some(now + self.active_down_interval());
        Vec::new()
    }

    /// Takes part no more.
    pub fn stop(&mut self) -> Vec<Action> {
        let actions = match self.state {
            State::Active => vec![Action::Advertise { priority: LEAVES }, Action::Release],
            State::Initialize | State::Backup => Vec::new(),
        };
        self.state = State::Initialize;
        self.due = None;
        actions
    }

    /// Has another priority from now on. An active one tells it at once.
    pub fn set_priority(&mut self, priority: u8, now: Instant) -> Vec<Action> {
        if priority == self.settings.priority {
            return Vec::new();
        }
        let waited = self.active_down_interval();
        self.settings.priority = priority;
        match self.state {
            State::Initialize => Vec::new(),
            State::Backup => {
                // From the same moment on, by the new priority.
                let since = self.due.and_then(|due| due.checked_sub(waited));
                let since = since.unwrap_or(now).min(now);
                self.due = Some(since + self.active_down_interval());
                Vec::new()
            }
            State::Active => self.advertise(now),
        }
    }

    /// What is to be done when [`Machine::due`] has come; nothing before that.
    pub fn tick(&mut self, now: Instant) -> Vec<Action> {
        if self.due.is_none_or(|due| now < due) {
            return Vec::new();
        }
        match self.state {
            State::Initialize => Vec::new(),
            State::Backup => self.become_active(now),
            State::Active => self.advertise(now),
        }
    }

    /// Leaves the addresses to another, and waits as if it had just heard of it.
    pub fn step_down(&mut self, now: Instant) -> Vec<Action> {
        if self.state != State::Active {
            return Vec::new();
        }
        self.state = State::Backup;
        self.active_interval = self.settings.interval;
        self.due = Some(now + self.active_down_interval());
        vec![Action::Advertise { priority: LEAVES }, Action::Release]
    }

    /// Is set up with this from now on, but for its priority, for which there is [`Machine::set_priority`].
    /// An interval counts from the next advertisement on.
    pub fn set(&mut self, settings: Settings) {
        self.settings = Settings {
            priority: self.settings.priority,
            ..settings
        };
        if self.state == State::Initialize {
            self.active_interval = settings.interval;
        }
    }

    /// An advertisement has come (sections 6.4.2 and 6.4.3).
    pub fn hear(&mut self, heard: Heard, now: Instant) -> Vec<Action> {
        match self.state {
            State::Initialize => Vec::new(),
            State::Backup => {
                self.hear_as_backup(heard, now);
                Vec::new()
            }
            State::Active => self.hear_as_active(heard, now),
        }
    }

    fn hear_as_backup(&mut self, heard: Heard, now: Instant) {
        if heard.priority == LEAVES {
            self.due = Some(now + self.skew());
        } else if heard.priority >= self.settings.priority || !self.preempts(now) {
            self.active_interval = heard.interval;
            self.due = Some(now + self.active_down_interval());
        }
    }

    fn hear_as_active(&mut self, heard: Heard, now: Instant) -> Vec<Action> {
        if heard.priority == LEAVES {
            return self.advertise(now);
        }
        let mine = (self.settings.priority, self.settings.address);
        if (heard.priority, heard.from) > mine {
            self.active_interval = heard.interval;
            self.state = State::Backup;
            self.due = Some(now + self.active_down_interval());
            return vec![Action::Release];
        }
        // The other one is to hear at once that it is not alone, and others may have believed it.
        let mut actions = self.advertise(now);
        actions.push(Action::Announce);
        actions
    }

    fn preempts(&self, now: Instant) -> bool {
        self.settings.preempt.is_some() && self.patient_until.is_none_or(|until| now >= until)
    }

    fn become_active(&mut self, now: Instant) -> Vec<Action> {
        self.state = State::Active;
        let mut actions = self.advertise(now);
        actions.push(Action::Take);
        actions
    }

    fn advertise(&mut self, now: Instant) -> Vec<Action> {
        self.due = Some(now + self.settings.interval.duration());
        let priority = self.settings.priority;
        vec![Action::Advertise { priority }]
    }
}

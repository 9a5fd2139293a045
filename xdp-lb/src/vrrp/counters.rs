//! What is counted of a virtual router's packets.

/// Names each counter once: its variant, the word for it, and what it counts.
macro_rules! counts {
    ($($variant:ident $name:literal $text:literal,)*) => {
        /// What a virtual router counts.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Count {
            $(#[doc = $text] $variant,)*
        }

        impl Count {
            /// All of them, in the order of the views.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The word for it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// What it counts.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }
    };
}

counts! {
    Sent "sent" "Advertisements sent",
    SendFailed "send_failed" "Advertisements that could not be sent",
    Received "received" "Advertisements heard and used",
    Leaves "leaves" "Of those, with priority 0: the sender leaves",
    Addresses "addresses" "Of those, with other virtual addresses than here",
    OtherInterval "other_interval" "Of those, with another interval than here",
    Hops "hops" "Refused: time to live or hop limit not 255, so it has passed a router",
    Length "length" "Refused: cut off, or longer than its addresses say",
    Version "version" "Refused: another version of VRRP than 3",
    Type "type" "Refused: no advertisement",
    Checksum "checksum" "Refused: wrong checksum",
    Interval "interval" "Refused: an interval of zero",
    NoAddress "no_address" "Refused: no virtual address",
    OwnAddress "own_address" "Refused: from an address of this host",
    Source "source" "Refused: from a router that is not among those allowed, or, with IPv6, not of this link",
    Destination "destination" "Refused: multicast where peers are set, or the other way round",
    OtherRouter "other_router" "Of virtual routers on the link that are not ours",
}

/// A number for each [`Count`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters([u64; Count::ALL.len()]);

impl Default for Counters {
    fn default() -> Self {
        Self([0; Count::ALL.len()])
    }
}

impl Counters {
    /// One more.
    pub fn count(&mut self, count: Count) {
        self.0[count as usize] += 1;
    }

    /// How many.
    #[must_use]
    pub fn get(&self, count: Count) -> u64 {
        self.0[count as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_counted_apart() {
        let mut counters = Counters::default();
        for (&count, times) in Count::ALL.iter().zip(1_u64..) {
            (0..times).for_each(|_| counters.count(count));
        }
        for (&count, times) in Count::ALL.iter().zip(1_u64..) {
            assert_eq!(counters.get(count), times, "{}", count.name());
        }
    }
}

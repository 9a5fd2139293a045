//! Words of the configuration.

/// Declares an enum whose variants are words of the configuration: `name`, `Display`, `Serialize`, `Deserialize`.
macro_rules! words {
    ($(#[$doc:meta])* $enum:ident { $($(#[$variant_doc:meta])* $variant:ident $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, serde::Deserialize)]
        pub enum $enum {
            $($(#[$variant_doc])* #[serde(rename = $word)] $variant,)*
        }

        impl $enum {
            /// Every variant with its word.
            pub(super) const WORDS: &[(&str, Self)] = &[$(($word, Self::$variant)),*];

            /// The word for it in the configuration.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }

        impl std::fmt::Display for $enum {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }
    };
}

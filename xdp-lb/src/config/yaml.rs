//! A YAML text as a tree in which each value knows its place.
//!
//! Scalars are kept as they are written: whether `off` is a word or a truth value, and whether
//! `1.10` is a number or a name, is for the field to say that it stands in, not for YAML.

use std::fmt;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_yaml::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};
use serde_yaml::{Location, MessageFormatter, Spanned, UserMessageFormatter};

/// Values in a file, at most: a service has some ten, a backend five.
const MAX_NODES: usize = 2_000_000;

/// A place in the text, and how many characters long what stands there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct At {
    /// From 1.
    pub(super) line: usize,
    /// From 1, in characters.
    pub(super) column: usize,
    /// In characters; may be 0.
    pub(super) width: usize,
}

impl At {
    fn new(location: Location) -> Self {
        let index = |number| usize::try_from(number).unwrap_or(usize::MAX);
        Self {
            line: index(location.line()).max(1),
            column: index(location.column()).max(1),
            width: index(location.span().len()),
        }
    }
}

/// A value and its place: where it is defined, if it is used by an alias.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct Node(Spanned<Value>);

/// What a node is.
#[derive(Debug)]
pub(super) enum Value {
    /// Nothing, or a word for it.
    Null,
    /// Anything that is neither a list nor a mapping.
    Scalar(Scalar),
    /// A list.
    Sequence(Vec<Node>),
    /// Fields, in the order of the text. The same name may come twice.
    Mapping(Vec<(Node, Node)>),
}

/// A scalar.
#[derive(Debug)]
pub(super) enum Scalar {
    /// As it is written, without quotes.
    Text(String),
    /// What YAML takes for a number or a truth value, and spells its own way.
    Typed(String),
}

impl Node {
    pub(super) fn at(&self) -> At {
        At::new(self.0.defined)
    }

    pub(super) fn value(&self) -> &Value {
        &self.0.value
    }

    /// Puts what is written in `text` in the place of what YAML took it for.
    fn resolve(&mut self, text: &str) {
        let span = self.0.defined.span();
        match &mut self.0.value {
            Value::Null => {}
            Value::Scalar(scalar) => {
                if let Scalar::Typed(typed) = scalar {
                    let written = span.byte_offset().zip(span.byte_len());
                    let written = written.and_then(|(start, length)| {
                        let start = usize::try_from(start).ok()?;
                        text.get(start..)?.get(..usize::try_from(length).ok()?)
                    });
                    let written = written.unwrap_or(typed).to_owned();
                    *scalar = Scalar::Text(written);
                }
            }
            Value::Sequence(items) => {
                for item in items {
                    item.resolve(text);
                }
            }
            Value::Mapping(fields) => {
                for (name, value) in fields {
                    name.resolve(text);
                    value.resolve(text);
                }
            }
        }
    }
}

impl Scalar {
    /// As it is written, without quotes.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Typed(text) => text,
        }
    }
}

/// The tree of `text`; an empty text is [`Value::Null`]. The error is where and why it is not YAML.
pub(super) fn parse(text: &str) -> Result<Node, (At, String)> {
    let options = serde_yaml::options! {
        budget: serde_yaml::budget! {
            max_nodes: MAX_NODES,
            max_events: 2 * MAX_NODES,
        },
        // Reported by the reader, together with everything else.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        reject_unsupported_tags: true,
        with_snippet: false,
    };
    let mut root: Node = serde_yaml::from_str_with_options(text, options).map_err(|error| {
        let at = At::new(error.location().unwrap_or(Location::UNKNOWN));
        let reason = UserMessageFormatter.format_message(&error);
        (at, format!("this is not YAML: {reason}"))
    })?;
    root.resolve(text);
    Ok(root)
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

/// Visitor methods for scalars that YAML has a type for.
macro_rules! typed {
    ($($method:ident($type:ty))*) => {
        $(fn $method<E>(self, value: $type) -> Result<Value, E> {
            Ok(Value::Scalar(Scalar::Typed(value.to_string())))
        })*
    };
}

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    typed! {
        visit_bool(bool) visit_f64(f64)
        visit_i64(i64) visit_i128(i128) visit_u64(u64) visit_u128(u128)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Scalar(Scalar::Text(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut sequence = Vec::new();
        while let Some(item) = items.next_element()? {
            sequence.push(item);
        }
        Ok(Value::Sequence(sequence))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut mapping = Vec::new();
        while let Some(field) = fields.next_entry()? {
            mapping.push(field);
        }
        Ok(Value::Mapping(mapping))
    }
}

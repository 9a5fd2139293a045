//! Takes values out of a tree, and notes a problem for each that is not what it should be.
//!
//! Everything that reads returns `None` after it has noted a problem, so that the caller goes on
//! with the next field and all problems of a file are found at once.

use std::fmt;
use std::ops::RangeInclusive;

use super::error::Problems;
use super::suggest;
use super::yaml::{At, Node, Value};

/// The way to a field from the root of the file.
#[derive(Clone, Copy)]
enum Way<'a> {
    Root,
    Name(&'a Way<'a>, &'a str),
    Index(&'a Way<'a>, usize),
}

impl fmt::Display for Way<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Name(Self::Root, name) => f.write_str(name),
            Self::Name(parent, name) => write!(f, "{parent}.{name}"),
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// Where a value came from, for checks that are made when the tree is gone.
#[derive(Clone, Debug)]
pub(super) struct Spot {
    /// Its place in the text.
    pub(super) at: At,
    /// Its way from the root of the file.
    pub(super) field: String,
}

/// A value in the tree.
#[derive(Clone, Copy)]
pub(super) struct Field<'a> {
    node: &'a Node,
    at: At,
    way: Way<'a>,
    problems: &'a Problems<'a>,
}

impl<'a> Field<'a> {
    /// The whole file.
    pub(super) fn root(node: &'a Node, problems: &'a Problems<'a>) -> Self {
        Self {
            node,
            at: node.at(),
            way: Way::Root,
            problems,
        }
    }

    /// Notes a problem with this value. `None`, for the caller to return.
    pub(super) fn refuse<T>(&self, reason: impl fmt::Display) -> Option<T> {
        self.problems.push(self.at, self.way, reason);
        None
    }

    /// As [`Field::refuse`], for a place that was read before.
    pub(super) fn refuse_at<T>(&self, spot: &Spot, reason: impl fmt::Display) -> Option<T> {
        self.problems.push(spot.at, &spot.field, reason);
        None
    }

    pub(super) fn spot(&self) -> Spot {
        Spot {
            at: self.at,
            field: self.way.to_string(),
        }
    }

    /// Line of the text, from 1.
    pub(super) fn line(&self) -> usize {
        self.at.line
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self.node.value(), Value::Null)
    }

    pub(super) fn is_mapping(&self) -> bool {
        matches!(self.node.value(), Value::Mapping(_))
    }

    fn kind(&self) -> &'static str {
        match self.node.value() {
            Value::Null => "nothing",
            Value::Scalar(_) => "a single value",
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a mapping",
        }
    }

    /// The scalar as it is written. `what` is what it should be: "an address".
    pub(super) fn text(&self, what: &str) -> Option<&'a str> {
        match self.node.value() {
            Value::Scalar(scalar) => Some(scalar.text()),
            Value::Null => self.refuse(format_args!("has no value; expected {what}")),
            _ => self.refuse(format_args!("expected {what}, found {}", self.kind())),
        }
    }

    /// The scalar as `parse` understands it, or the reason why it does not.
    pub(super) fn parse<T, E: fmt::Display>(
        &self,
        what: &str,
        parse: impl FnOnce(&'a str) -> Result<T, E>,
    ) -> Option<T> {
        match parse(self.text(what)?) {
            Ok(value) => Some(value),
            Err(reason) => self.refuse(reason),
        }
    }

    /// A whole number. `what` is what it is: "a port".
    pub(super) fn number(&self, what: &str, range: RangeInclusive<u32>) -> Option<u32> {
        self.parse(what, |text| {
            let digits = text.replace('_', "");
            let unsigned = digits.strip_prefix('-').unwrap_or(&digits);
            let decimal = !unsigned.is_empty() && unsigned.bytes().all(|b| b.is_ascii_digit());
            // Older YAML takes 010 for 8.
            if !decimal || unsigned.len() > 1 && unsigned.starts_with('0') {
                return Err(format!("`{text}` is not {what}; expected a decimal number"));
            }
            let number = digits.parse().ok().filter(|number| range.contains(number));
            let (least, most) = range.into_inner();
            number
                .ok_or_else(|| format!("{text} is out of range; {what} is from {least} to {most}"))
        })
    }

    /// One of the words that `words` knows.
    pub(super) fn word<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        self.parse("a word", |text| {
            let word = words.iter().find(|(word, _)| *word == text);
            word.map(|(_, value)| *value).ok_or_else(|| {
                let way_out = suggest::way_out(text, words.iter().map(|(word, _)| *word));
                format!("`{text}` is not a choice here; {way_out}")
            })
        })
    }

    /// The items of a list; nothing is an empty list.
    pub(super) fn items(&'a self) -> Option<Vec<Self>> {
        match self.node.value() {
            Value::Null => Some(Vec::new()),
            Value::Sequence(nodes) => Some(self.indexed(nodes)),
            _ => self.refuse(format_args!("expected a list, found {}", self.kind())),
        }
    }

    /// The items of a list, or the single value that is written instead of a list of one.
    pub(super) fn one_or_more(&'a self) -> Option<Vec<Self>> {
        match self.node.value() {
            Value::Sequence(nodes) if nodes.is_empty() => self.refuse("the list is empty"),
            Value::Sequence(nodes) => Some(self.indexed(nodes)),
            _ => Some(vec![*self]),
        }
    }

    /// The fields of a mapping that is not there.
    pub(super) fn no_fields(&'a self) -> Fields<'a> {
        Fields {
            of: self,
            fields: Vec::new(),
        }
    }

    fn indexed(&'a self, nodes: &'a [Node]) -> Vec<Self> {
        let items = nodes.iter().enumerate().map(|(index, node)| Self {
            node,
            at: node.at(),
            way: Way::Index(&self.way, index),
            problems: self.problems,
        });
        items.collect()
    }

    /// The fields of a mapping, which are to be among `known`; nothing is an empty mapping.
    pub(super) fn mapping(&'a self, known: &[&str]) -> Option<Fields<'a>> {
        let entries: &[_] = match self.node.value() {
            Value::Null => &[],
            Value::Mapping(entries) => entries,
            _ => return self.refuse(format_args!("expected a mapping, found {}", self.kind())),
        };
        let mut fields = self.no_fields();
        for (key, node) in entries {
            fields.add(key, node, known);
        }
        Some(fields)
    }
}

/// The fields of a mapping.
pub(super) struct Fields<'a> {
    of: &'a Field<'a>,
    fields: Vec<(&'a str, Field<'a>)>,
}

impl<'a> Fields<'a> {
    fn add(&mut self, key: &'a Node, node: &'a Node, known: &[&str]) {
        let of = self.of;
        let Value::Scalar(name) = key.value() else {
            of.problems.push(
                key.at(),
                of.way,
                "the name of a field is to be a single word",
            );
            return;
        };
        let name = name.text();
        let way = Way::Name(&of.way, name);
        let refuse = |reason: &str| of.problems.push(key.at(), way, reason);
        if !known.contains(&name) {
            let way_out = suggest::way_out(name, known.iter().copied());
            return refuse(&format!("unknown field; {way_out}"));
        }
        if let Some(first) = self.get(name) {
            let line = first.at.line;
            return refuse(&format!("is given twice, first in line {line}; keep one"));
        }
        let null = matches!(node.value(), Value::Null);
        let field = Field {
            node,
            // Nothing has no place of its own.
            at: if null { key.at() } else { node.at() },
            way,
            problems: of.problems,
        };
        self.fields.push((name, field));
    }

    /// The field `name`, if it is there.
    pub(super) fn get(&self, name: &str) -> Option<&Field<'a>> {
        let found = self.fields.iter().find(|(field, _)| *field == name);
        found.map(|(_, field)| field)
    }

    /// All fields with their names.
    pub(super) fn all(&self) -> impl Iterator<Item = (&'a str, &Field<'a>)> {
        self.fields.iter().map(|(name, field)| (*name, field))
    }

    /// The field `name`, which is to be there. `example` is how it is written.
    pub(super) fn require(&self, name: &str, example: &str) -> Option<&Field<'a>> {
        let found = self.get(name);
        if found.is_none() {
            self.of.refuse::<()>(format_args!(
                "`{name}` is missing; write `{name}: {example}`"
            ));
        }
        found
    }

    /// What `read` makes of the field `name`; `default` if it is not there or wrong, in which case
    /// the problem is noted and the file is refused in the end.
    pub(super) fn get_or<T>(
        &self,
        name: &str,
        default: T,
        read: impl FnOnce(&Field<'a>) -> Option<T>,
    ) -> T {
        self.get(name).and_then(read).unwrap_or(default)
    }
}

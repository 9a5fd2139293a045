//! "Did you mean …": the known word that is nearest to an unknown one.

/// The known word that `word` may be a misspelling of.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min()
        .map(|(_, candidate)| candidate)
}

/// How to go on after "unknown" or "is none of": a suggestion if there is one, otherwise the list.
pub(super) fn way_out<'a>(word: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    match nearest(word, known.clone()) {
        Some(candidate) => format!("did you mean `{candidate}`?"),
        None => format!("expected {}", list(known)),
    }
}

/// `a`, `b` or `c`.
fn list<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let mut words: Vec<String> = words.into_iter().map(|word| format!("`{word}`")).collect();
    match words.pop() {
        None => "nothing".to_owned(),
        Some(last) if words.is_empty() => last,
        Some(last) => format!("{} or {last}", words.join(", ")),
    }
}

/// Insertions, deletions and replacements that make one word the other (Levenshtein), ignoring
/// case. Far too long words are simply far.
fn distance(one: &str, other: &str) -> usize {
    if one.len() > 64 {
        return usize::MAX;
    }
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(!a.eq_ignore_ascii_case(b));
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_word_finds_its_neighbour() {
        let known = ["backends", "port", "vip"];
        assert_eq!(nearest("backend", known), Some("backends"));
        assert_eq!(nearest("Ports", known), Some("port"));
        assert_eq!(nearest("vips", known), Some("vip"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest(&"x".repeat(1000), known), None);
    }

    #[test]
    fn without_a_neighbour_the_known_words_are_listed() {
        assert_eq!(
            way_out("xyz", ["tcp", "udp", "sctp"]),
            "expected `tcp`, `udp` or `sctp`"
        );
        assert_eq!(way_out("udb", ["tcp", "udp"]), "did you mean `udp`?");
        assert_eq!(way_out("xyz", ["tcp"]), "expected `tcp`");
    }
}

//! Which known key a mistyped one may have meant.

/// The known key that a mistyped one is most like, if it is like any.
pub(super) fn nearest<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    let (distance, nearest) = known.iter().map(|k| (distance(key, k), *k)).min()?;
    let tolerated = 1 + key.len() / 4;
    (distance <= tolerated).then_some(nearest)
}

/// How many letters have to be changed, added or removed (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &b) in to.iter().enumerate() {
            let changed = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_key_is_recognised_and_a_foreign_one_is_not() {
        let known = ["listen", "token_file", "health_listen"];
        assert_eq!(nearest("lisen", &known), Some("listen"));
        assert_eq!(nearest("tokenfile", &known), Some("token_file"));
        assert_eq!(nearest("colour", &known), None);
    }
}

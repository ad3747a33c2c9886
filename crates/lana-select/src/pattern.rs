//! Patterns for names: `*` stands for any run of characters, also none; everything else is literal.

/// Whether the whole of `name` fits `pattern`.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(rest) = parts.next().and_then(|head| name.strip_prefix(head)) else { return false };
    let Some(tail) = parts.next_back() else { return rest.is_empty() };
    let Some(mut rest) = rest.strip_suffix(tail) else { return false };
    // Between head and tail, the leftmost place of each part leaves most room for those after it.
    parts.all(|part| {
        let place = rest.find(part);
        rest = &rest[place.map_or(0, |place| place + part.len())..];
        place.is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, name) in [
            ("stage3.*", "stage3.0"),
            ("stage3.*", "stage3."),
            ("*", ""),
            ("*", "identity"),
            ("**", "identity"),
            ("*.b1", "s1.b1"),
            ("s*b*1", "s1.b1"),
            ("*b*b*", "abab"),
            ("mbconv-e*-k3", "mbconv-e4-k3"),
            ("", ""),
            ("é*", "éa"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn everything_else_is_literal() {
        for (pattern, name) in [
            ("stage3.*", "stage30"),
            ("stage3", "stage3.0"),
            ("s1?b0", "s1.b0"),
            ("s1.b0", "s1xb0"),
            ("ab*ba", "aba"), // head and tail do not share a character
            ("*b*b*", "ab"),
            ("a*c*b", "acxbx"),
            ("", "a"),
            ("[ab]", "a"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}

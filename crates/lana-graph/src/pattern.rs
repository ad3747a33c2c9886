/// Whether a pattern fits the whole of a name: `*` stands for any characters, also none, `?` for one, all else for itself.
pub fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // The last star, and how much of the name it stands for so far: what comes before it need not be looked at again.
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == '?' || c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((at, taken)) = star else { return false };
                star = Some((at, taken + 1));
                (p, n) = (at + 1, taken + 1);
            }
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn stars_and_question_marks_stand_for_characters() {
        for (pattern, name) in [
            ("stage3.*", "stage3.0"),
            ("stage3.*", "stage3."),
            ("*", ""),
            ("", ""),
            ("**", "identity"),
            ("s*b*1", "s1.b1.b1"),
            ("layer?.1", "layer2.1"),
            ("*ß?", "stufe.ß1"),
        ] {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("stage3", "stage3.0"), ("?", ""), ("s*b", "s1.b1"), ("", "a"), ("*.b?", "s.b"), ("a", "")]
        {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
        // No pattern takes longer than pattern times name.
        assert!(!fits(&"*a".repeat(200).replace("aa", "a"), &format!("{}b", "a".repeat(2000))));
    }
}

//! Grammar of operation names: a family, then numbers, each behind a hyphen and a key (`mbconv-e3-k5-se0.08`), or words
//! (`own-relu`).

use std::fmt;

/// A number in an operation's name.
#[derive(Debug)]
pub(super) struct Parameter {
    /// The letters before the number, or all there is.
    pub(super) key: &'static str,
    /// The numbers allowed.
    pub(super) range: Range,
    /// What holds where it is left out.
    absent: Absent,
}

/// What a parameter is where the name does not have it.
#[derive(Debug)]
enum Absent {
    /// It must be there.
    Wrong,
    /// Nothing.
    Nothing,
    /// This number, which the name then never shows.
    Number(f64),
}

impl Parameter {
    /// One that every name has.
    pub(super) const fn new(key: &'static str, range: Range) -> Self {
        Parameter { key, range, absent: Absent::Wrong }
    }

    /// One that may be left out.
    pub(super) const fn optional(key: &'static str, range: Range) -> Self {
        Parameter { key, range, absent: Absent::Nothing }
    }

    /// One that is `number` where it is left out.
    pub(super) const fn or(key: &'static str, range: Range, number: f64) -> Self {
        Parameter { key, range, absent: Absent::Number(number) }
    }

    /// A word that is there or not.
    pub(super) const fn flag(key: &'static str) -> Self {
        Parameter { key, range: Range::Word, absent: Absent::Nothing }
    }
}

/// Numbers that a parameter may have.
#[derive(Debug)]
pub(super) enum Range {
    /// More than 0, at most this.
    Positive(f64),
    /// 1, 3, 5 … at most this.
    Odd(f64),
    /// 1, 2, 3 … at most this.
    Whole(f64),
    /// No number at all.
    Word,
}

impl Range {
    fn holds(&self, x: f64) -> bool {
        match *self {
            Range::Positive(most) => x > 0.0 && x <= most,
            Range::Odd(most) => x % 2.0 == 1.0 && x <= most,
            Range::Whole(most) => x >= 1.0 && x.fract() == 0.0 && x <= most,
            Range::Word => false,
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Range::Positive(most) => write!(f, "<number up to {most}>"),
            Range::Odd(most) => write!(f, "<odd number up to {most}>"),
            Range::Whole(most) => write!(f, "<whole number up to {most}>"),
            Range::Word => Ok(()),
        }
    }
}

/// The form of a family's names, for messages.
pub(super) fn grammar(family: &str, parameters: &[Parameter]) -> String {
    let mut text = family.to_string();
    for p in parameters {
        text += &match p.absent {
            Absent::Wrong => format!("-{}{}", p.key, p.range),
            _ => format!("[-{}{}]", p.key, p.range),
        };
    }
    text
}

/// The numbers of one name.
#[derive(Clone, Debug)]
pub(super) struct Arguments(Vec<Argument>);

#[derive(Clone, Debug)]
struct Argument {
    key: &'static str,
    /// None for a word.
    number: Option<f64>,
    /// Whether the name has it: not if it is what holds without it.
    shown: bool,
}

impl Arguments {
    /// Reads what stands behind the family's name, or says what is wrong with it.
    pub(super) fn parse(parameters: &'static [Parameter], text: Option<&str>) -> Result<Self, String> {
        let mut parts = text.map(|t| t.split('-').peekable());
        let mut list = Vec::new();
        for p in parameters {
            if let Range::Word = p.range {
                if let Some(true) = parts.as_mut().map(|parts| parts.next_if_eq(&p.key).is_some()) {
                    list.push(Argument { key: p.key, number: None, shown: true });
                }
                continue;
            }
            let digits = parts.as_mut().and_then(|parts| {
                let digits = parts.peek()?.strip_prefix(p.key)?;
                digits.starts_with(|c: char| c.is_ascii_digit()).then(|| parts.next())?;
                Some(digits)
            });
            let Some(digits) = digits else {
                match p.absent {
                    Absent::Wrong => return Err(format!("`{}` is missing", p.key)),
                    Absent::Nothing => {}
                    Absent::Number(number) => {
                        list.push(Argument { key: p.key, number: Some(number), shown: false });
                    }
                }
                continue;
            };
            // Rust also reads numbers such as `1e3` and `1_0`, which would not parse back from what is displayed.
            let plain = digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
            match digits.parse::<f64>() {
                Ok(number) if plain && p.range.holds(number) => {
                    let shown = !matches!(p.absent, Absent::Number(own) if own == number);
                    list.push(Argument { key: p.key, number: Some(number), shown });
                }
                _ => return Err(format!("`{}{digits}` is not {}{}", p.key, p.key, p.range)),
            }
        }
        match parts.and_then(|mut parts| parts.next()) {
            Some(part) => Err(format!("`{part}` does not belong there")),
            None => Ok(Arguments(list)),
        }
    }

    /// The number behind `key`.
    pub(super) fn get(&self, key: &str) -> Option<f64> {
        self.0.iter().find(|a| a.key == key).and_then(|a| a.number)
    }

    /// Whether the name has the word.
    pub(super) fn has(&self, word: &str) -> bool {
        self.0.iter().any(|a| a.key == word)
    }

    /// The number behind a key that may not be left out.
    pub(super) fn number(&self, key: &str) -> f64 {
        self.get(key).unwrap_or(1.0)
    }

    /// As [`Arguments::number`], for whole numbers.
    pub(super) fn whole(&self, key: &str) -> usize {
        self.number(key) as usize
    }
}

impl fmt::Display for Arguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().filter(|a| a.shown).try_for_each(|a| match a.number {
            Some(number) => write!(f, "-{}{number}", a.key),
            None => write!(f, "-{}", a.key),
        })
    }
}

//! Rules of the selection as they are written on the command line and under `[select]` in run.toml:
//! `LAYERS:OPERATIONS`, and for caps with `<=N`, `>=N` or `=N` behind it.

use lana_select::{Cap, Members};

use crate::{Error, Result, SelectConfig};

const FORM: &str =
    "write LAYERS:OPERATIONS, such as 'stage3.*:identity' (* for anything, several between commas)";
const CAP_FORM: &str = "write LAYERS:OPERATIONS<=N (or >=N, =N), such as 'stage3.*:identity<=2' (* for anything, several between commas)";

/// The rules in the form of the integer program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    /// Of `exclude`, in its order.
    pub(crate) forbidden: Vec<Members>,
    /// Of `force`, in its order.
    pub(crate) forced: Vec<Members>,
    /// Of `caps`, in its order.
    pub(crate) caps: Vec<Cap>,
}

impl Rules {
    /// Reads the rules of a configuration.
    ///
    /// # Errors
    /// If one does not have the form; the message names it and its field.
    pub(crate) fn parse(config: &SelectConfig) -> Result<Self> {
        let list = |field: &str, texts: &[String]| -> Result<Vec<Members>> {
            texts.iter().map(|text| members(text).ok_or_else(|| wrong(field, text, FORM))).collect()
        };
        let caps = config.caps.iter().map(|text| cap(text).ok_or_else(|| wrong("caps", text, CAP_FORM)));
        Ok(Rules {
            forbidden: list("exclude", &config.exclude)?,
            forced: list("force", &config.force)?,
            caps: caps.collect::<Result<_>>()?,
        })
    }
}

fn wrong(field: &str, text: &str, form: &str) -> Error {
    Error::input(format!("`select.{field}`: `{text}` is no rule"), form)
}

fn members(text: &str) -> Option<Members> {
    let (layers, choices) = text.split_once(':')?;
    let list = |text: &str| -> Option<Vec<String>> {
        let parts = text.split(',').map(|part| part.trim().to_string());
        let parts: Vec<String> = parts.collect();
        parts.iter().all(|part| !part.is_empty() && !part.contains([':', '<', '>', '='])).then_some(parts)
    };
    Some(Members { layers: list(layers)?, choices: list(choices)? })
}

fn cap(text: &str) -> Option<Cap> {
    let at = text.find(['<', '>', '='])?;
    let (what, limit) = text.split_at(at);
    let Members { layers, choices } = members(what)?;
    let number = |digits: &str| digits.trim().parse::<usize>().ok();
    let (min, max) = if let Some(digits) = limit.strip_prefix("<=") {
        (None, Some(number(digits)?))
    } else if let Some(digits) = limit.strip_prefix(">=") {
        (Some(number(digits)?), None)
    } else {
        let count = number(limit.strip_prefix('=')?)?;
        (Some(count), Some(count))
    };
    Some(Cap { name: Some(text.to_string()), layers, choices, min, max })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(exclude: &[&str], caps: &[&str]) -> SelectConfig {
        let list = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        SelectConfig { exclude: list(exclude), caps: list(caps), ..SelectConfig::default() }
    }

    #[test]
    fn rules_are_read() {
        let rules = Rules::parse(&config(
            &["stage3.*, layer1.0:identity,narrow-*"],
            &["*:identity<=2", "a:b >= 1", "a:b=3"],
        ));
        let rules = rules.unwrap();
        assert_eq!(rules.forbidden[0].layers, ["stage3.*", "layer1.0"]);
        assert_eq!(rules.forbidden[0].choices, ["identity", "narrow-*"]);
        let ends: Vec<_> = rules.caps.iter().map(|cap| (cap.min, cap.max)).collect();
        assert_eq!(ends, [(None, Some(2)), (Some(1), None), (Some(3), Some(3))]);
        assert_eq!(rules.caps[0].name.as_deref(), Some("*:identity<=2"));
    }

    #[test]
    fn what_is_no_rule_is_named() {
        for text in ["stage3", ":identity", "stage3:", "a:b:c", "a,,b:c", "a:b<=2", ""] {
            let error = Rules::parse(&config(&[text], &[])).unwrap_err();
            assert!(error.to_string().contains(&format!("`select.exclude`: `{text}`")), "{error}");
            assert!(error.exit_status() == 2 && error.hint().is_some());
        }
        for text in ["a:b", "a<=2", "a:b<2", "a:b<=x", "a:b<=-1", "a:b=", "a:b==1"] {
            let error = Rules::parse(&config(&[], &[text])).unwrap_err();
            assert!(error.to_string().contains(&format!("`select.caps`: `{text}`")), "{error}");
        }
    }
}

//! What `forbidden`, `forced` and `caps` of a problem mean, choice by choice.

use crate::pattern::matches;
use crate::{Error, Problem};

/// One flag per layer and choice.
pub(crate) type Flags = Vec<Vec<bool>>;

/// The rules of a problem, with their patterns resolved.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// Choices that may be taken: neither forbidden, nor in a forced layer without being among its forced choices.
    pub(crate) allowed: Flags,
    /// For every cap, the choices that it counts.
    pub(crate) counted: Vec<Flags>,
}

impl Rules {
    /// Resolves the patterns.
    ///
    /// # Errors
    ///
    /// If a pattern matches nothing, a layer is left without a choice, or a cap cannot hold whatever is chosen.
    pub(crate) fn new(problem: &Problem) -> Result<Rules, Error> {
        let mut allowed: Flags = problem.layers.iter().map(|layer| vec![true; layer.choices.len()]).collect();
        let forbidden =
            problem.forbidden.iter().enumerate().map(|(index, members)| ("forbidden", index, members));
        let forced = problem.forced.iter().enumerate().map(|(index, members)| ("forced", index, members));
        for (field, index, members) in forbidden.chain(forced) {
            let rule = || format!("`{field}[{index}]`");
            let (layers, chosen) = resolve(problem, &rule, &members.layers, &members.choices)?;
            for (layer, allowed) in allowed.iter_mut().enumerate() {
                if !layers[layer] {
                    continue;
                }
                for (allowed, &chosen) in allowed.iter_mut().zip(&chosen[layer]) {
                    *allowed &= chosen == (field == "forced");
                }
                if !allowed.contains(&true) {
                    return Err(Error::Contradiction {
                        layer: problem.layers[layer].name.clone(),
                        rule: rule(),
                    });
                }
            }
        }
        let caps = problem.caps.iter().enumerate();
        let counted = caps.map(|(index, cap)| {
            let name = || cap.label(index);
            let (_, counted) = resolve(problem, &|| format!("cap `{}`", name()), &cap.layers, &cap.choices)?;
            let most = counted.iter().filter(|counted| counted.contains(&true)).count();
            match (cap.min, cap.max) {
                (None, None) => Err(Error::EmptyCap { cap: name() }),
                (Some(min), Some(max)) if min > max => Err(Error::CrossedCap { cap: name(), min, max }),
                (Some(min), _) if min > most => Err(Error::CapTooHigh { cap: name(), min, most }),
                _ => Ok(counted),
            }
        });
        let counted = counted.collect::<Result<_, Error>>()?;
        Ok(Rules { allowed, counted })
    }
}

/// The layers that match one of the patterns, and in these the choices that do.
fn resolve(
    problem: &Problem,
    rule: &dyn Fn() -> String,
    layer_patterns: &[String],
    choice_patterns: &[String],
) -> Result<(Vec<bool>, Flags), Error> {
    for (field, patterns) in [("layers", layer_patterns), ("choices", choice_patterns)] {
        if patterns.is_empty() {
            return Err(Error::EmptyRule { rule: rule(), field });
        }
    }
    let mut layers = vec![false; problem.layers.len()];
    for pattern in layer_patterns {
        let mut found = false;
        for (matched, layer) in layers.iter_mut().zip(&problem.layers) {
            if matches(pattern, &layer.name) {
                (*matched, found) = (true, true);
            }
        }
        if !found {
            return Err(Error::UnmatchedLayer { rule: rule(), pattern: pattern.clone() });
        }
    }
    let mut chosen: Flags = problem.layers.iter().map(|layer| vec![false; layer.choices.len()]).collect();
    for pattern in choice_patterns {
        let mut found = false;
        for (index, layer) in problem.layers.iter().enumerate().filter(|(index, _)| layers[*index]) {
            for (chosen, choice) in chosen[index].iter_mut().zip(&layer.choices) {
                if matches(pattern, &choice.name) {
                    (*chosen, found) = (true, true);
                }
            }
        }
        if !found {
            return Err(Error::UnmatchedChoice { rule: rule(), pattern: pattern.clone() });
        }
    }
    Ok((layers, chosen))
}

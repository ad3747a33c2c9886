//! Random selections that cover everything between the teacher and a network of nothing but other operations.

use crate::random::Random;

/// `count` random selections: one of each layer's `choices` or none, the teacher's own. From one to the next more layers are
/// replaced, evenly from hardly any to all: tables fail in different ways at either end.
pub(crate) fn stratified(choices: &[Vec<usize>], count: usize, seed: u64) -> Vec<Vec<Option<usize>>> {
    let mut random = Random::new(seed ^ 0x7365_6c65_6374);
    let mut places: Vec<usize> = (0..choices.len()).filter(|&l| !choices[l].is_empty()).collect();
    if places.is_empty() {
        return Vec::new();
    }
    let mut selection = |number: usize| {
        random.shuffle(&mut places);
        let share = (number as f64 + random.uniform()) / count as f64;
        let replaced = ((share * places.len() as f64).ceil() as usize).clamp(1, places.len());
        let mut selection = vec![None; choices.len()];
        for &layer in &places[..replaced] {
            let at = random.next() % choices[layer].len() as u64;
            selection[layer] = choices[layer].get(at as usize).copied();
        }
        selection
    };
    (0..count).map(&mut selection).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_shares_of_layers_are_covered() {
        let choices = vec![vec![3, 5], vec![], vec![0], vec![1, 2, 4], vec![7]];
        let found = stratified(&choices, 8, 1);
        let replaced: Vec<usize> = found.iter().map(|s| s.iter().flatten().count()).collect();
        assert_eq!(replaced, [1, 1, 2, 2, 3, 3, 4, 4]);
        for selection in &found {
            for (choice, known) in selection.iter().zip(&choices) {
                assert!(choice.is_none_or(|c| known.contains(&c)));
            }
        }
        assert_eq!(found, stratified(&choices, 8, 1));
        assert_ne!(found, stratified(&choices, 8, 2));
        assert!(stratified(&[vec![], vec![]], 8, 1).is_empty());
    }
}

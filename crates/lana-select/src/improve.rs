//! Local search: what makes a solution presentable that no proof stands behind.

use crate::instance::Instance;

/// Exchanges looked at before it gives up; some tenths of a second.
const MOST_EXCHANGES: u64 = 30_000_000;

/// Improves a feasible selection by exchanging one item, or two in different layers, while that helps.
pub(crate) fn improve(instance: &Instance, selection: &mut [usize]) {
    let mut exchanges = 0;
    let layers = instance.layers();
    let mut sums: Vec<i64> = (0..instance.budgets())
        .map(|row| selection.iter().map(|&item| instance.weights(item)[row]).sum())
        .collect();
    let mut overlap = vec![0i64; instance.earlier];
    let count = |overlap: &mut [i64], item: usize, change: i64| {
        instance.uses[item].iter().for_each(|&row| overlap[row as usize] += change);
    };
    selection.iter().for_each(|&item| count(&mut overlap, item, 1));
    let exchange = |sums: &mut [i64], overlap: &mut [i64], old: usize, new: usize| {
        for (row, sum) in sums.iter_mut().enumerate() {
            *sum += instance.weights(new)[row] - instance.weights(old)[row];
        }
        count(overlap, old, -1);
        count(overlap, new, 1);
    };
    'again: loop {
        for first in 0..layers {
            for one in instance.range(first) {
                let old = selection[first];
                if one == old {
                    continue;
                }
                let gain = instance.score[one] - instance.score[old];
                exchange(&mut sums, &mut overlap, old, one);
                let fits = |sums: &[i64], overlap: &[i64]| {
                    sums.iter().zip(&instance.capacity).all(|(sum, capacity)| sum <= capacity)
                        && overlap.iter().all(|&count| count <= instance.overlap_limit)
                };
                if gain < 0 && fits(&sums, &overlap) {
                    selection[first] = one;
                    continue 'again;
                }
                for second in first + 1..layers {
                    exchanges += instance.range(second).len() as u64;
                    if exchanges > MOST_EXCHANGES {
                        return;
                    }
                    for two in instance.range(second) {
                        let other = selection[second];
                        if two == other || gain + instance.score[two] - instance.score[other] >= 0 {
                            continue;
                        }
                        let weights = instance.weights(two).iter().zip(instance.weights(other));
                        let light = weights
                            .zip(sums.iter().zip(&instance.capacity))
                            .all(|((new, old), (sum, capacity))| sum + new - old <= *capacity);
                        if !light {
                            continue;
                        }
                        exchange(&mut sums, &mut overlap, other, two);
                        if fits(&sums, &overlap) {
                            selection[first] = one;
                            selection[second] = two;
                            continue 'again;
                        }
                        exchange(&mut sums, &mut overlap, two, other);
                    }
                }
                exchange(&mut sums, &mut overlap, one, old);
            }
        }
        return;
    }
}

//! Mixup (Zhang et al., 2018) and CutMix (Yun et al., 2019) of a batch with itself in reverse, as timm's batch mode.

use crate::{augmentation::Augmentation, random::Random};

/// Mixes `n` images of `images` (n x 3 x size x size) and gives the share of each that is its own; `None` if the draw leaves them
/// alone.
pub(crate) fn mix(images: &mut [f32], n: usize, options: &Augmentation, random: &mut Random) -> Option<f32> {
    if n == 0 || random.unit64() >= options.mixup_prob {
        return None;
    }
    let cut = match (options.mixup > 0.0, options.cutmix > 0.0) {
        (true, true) => random.unit64() < options.mixup_switch_prob,
        (_, cutmix) => cutmix,
    };
    let lam = random.beta(if cut { options.cutmix } else { options.mixup });
    let size = ((images.len() / n / 3) as f64).sqrt() as usize;
    let lam = match cut {
        true => {
            let area = cut_area(size, lam, random);
            cutmix(images, n, size, area)
        }
        false => {
            mixup(images, n, lam as f32);
            lam as f32
        }
    };
    (lam != 1.0).then_some(lam)
}

/// Image i becomes `lam` of itself and `1 - lam` of image n - 1 - i.
fn mixup(images: &mut [f32], n: usize, lam: f32) {
    let values = images.len() / n;
    let (front, back) = images.split_at_mut(n / 2 * values);
    // The middle one of an odd number is mixed with itself.
    let back = &mut back[n % 2 * values..];
    for (a, b) in front.chunks_exact_mut(values).zip(back.chunks_exact_mut(values).rev()) {
        for (a, b) in a.iter_mut().zip(b) {
            (*a, *b) = (lam * *a + (1.0 - lam) * *b, lam * *b + (1.0 - lam) * *a);
        }
    }
}

/// Rows and columns of a square of the share `1 - lam` around a random place, cut off at the edges.
fn cut_area(size: usize, lam: f64, random: &mut Random) -> [std::ops::Range<usize>; 2] {
    let side = (size as f64 * (1.0 - lam).sqrt()) as usize;
    [(); 2].map(|()| {
        let middle = random.below(size as u32) as usize;
        middle.saturating_sub(side / 2)..(middle + side.div_ceil(2)).min(size)
    })
}

/// Exchanges an area between images i and n - 1 - i; gives the share that stays.
fn cutmix(images: &mut [f32], n: usize, size: usize, [rows, columns]: [std::ops::Range<usize>; 2]) -> f32 {
    let values = images.len() / n;
    let (front, back) = images.split_at_mut(n / 2 * values);
    let back = &mut back[n % 2 * values..];
    for (a, b) in front.chunks_exact_mut(values).zip(back.chunks_exact_mut(values).rev()) {
        for (a, b) in a.chunks_exact_mut(size * size).zip(b.chunks_exact_mut(size * size)) {
            for row in rows.clone() {
                let line = row * size + columns.start..row * size + columns.end;
                a[line.clone()].swap_with_slice(&mut b[line]);
            }
        }
    }
    1.0 - (rows.len() * columns.len()) as f32 / (size * size) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Purpose;

    /// n images of 4 x 4, all values of one the same.
    fn batch(n: usize) -> Vec<f32> {
        (0..n * 48).map(|i| (i / 48) as f32).collect()
    }

    #[test]
    fn mixup_takes_its_share_of_the_mirror_image() {
        for n in [2, 5, 6] {
            let mut images = batch(n);
            mixup(&mut images, n, 0.75);
            for (i, image) in images.chunks_exact(48).enumerate() {
                let expected = 0.75 * i as f32 + 0.25 * (n - 1 - i) as f32;
                assert!(image.iter().all(|v| (v - expected).abs() < 1e-6), "{i} of {n}: {image:?}");
            }
        }
    }

    #[test]
    fn cutmix_exchanges_an_area_and_counts_it() {
        let mut images = batch(5);
        let lam = cutmix(&mut images, 5, 4, [1..3, 0..3]);
        assert_eq!(lam, 1.0 - 6.0 / 16.0);
        for (i, image) in images.chunks_exact(48).enumerate() {
            for (at, &value) in image.iter().enumerate() {
                let inside = (1..3).contains(&(at / 4 % 4)) && at % 4 < 3;
                assert_eq!(value, if inside { 4.0 - i as f32 } else { i as f32 });
            }
        }
    }

    #[test]
    fn the_draw_decides_what_is_mixed() {
        let both = Augmentation { mixup: 0.5, cutmix: 1.0, mixup_prob: 0.6, ..Augmentation::default() };
        let (mut left, mut cut, mut mixed) = (0, 0, 0);
        for place in 0..400 {
            let mut images = batch(2);
            let lam = mix(&mut images, 2, &both, &mut Random::new(Purpose::Mix, [0, 0, place]));
            match (lam, images.iter().all(|v| v.fract() == 0.0)) {
                (None, _) => left += 1,
                (Some(_), true) => cut += 1,
                (Some(_), false) => mixed += 1,
            }
        }
        assert!(
            (120..200).contains(&left) && (80..160).contains(&cut) && (80..160).contains(&mixed),
            "{left} {cut} {mixed}"
        );
    }
}

//! Families of operations and how each is drawn: a colour of the Okabe-Ito palette, which colour-blind readers tell
//! apart, and always a letter and the shape of a marker beside it.

use super::svg::Marker;

/// How a family of operations is drawn.
#[derive(Debug, PartialEq)]
pub(super) struct Family {
    /// Its name: what stands before the first `-` of its operations.
    pub(super) name: &'static str,
    /// The letter on its cells.
    pub(super) letter: &'static str,
    /// Class that sets its colour, defined in `style.css`.
    pub(super) class: &'static str,
    /// Its marker in scatter plots.
    pub(super) marker: Marker,
    /// What it is, for the legend.
    pub(super) summary: &'static str,
}

const fn family(
    name: &'static str,
    letter: &'static str,
    class: &'static str,
    marker: Marker,
    summary: &'static str,
) -> Family {
    Family { name, letter, class, marker, summary }
}

static FAMILIES: [Family; 21] = [
    family("teacher", "T", "f-teacher", Marker::Star, "the teacher’s own block"),
    family("identity", "–", "f-identity", Marker::Cross, "the layer is skipped"),
    family("narrow", "N", "f-narrow", Marker::Circle, "the teacher’s block with fewer inner channels"),
    // Kin share a colour, each with a marker of its own. What starts from the teacher’s weights:
    family(
        "own",
        "W",
        "f-narrow",
        Marker::Square,
        "the teacher’s block without gates, with smaller kernels, or with ReLU",
    ),
    family("depth", "K", "f-narrow", Marker::Plus, "the first of the teacher’s blocks in the layer"),
    family("wide", "E", "f-narrow", Marker::Cross, "the teacher’s blocks in the layer side by side"),
    family("grouped", "G", "f-narrow", Marker::Triangle, "the teacher’s block with more groups"),
    family("lowrank", "D", "f-narrow", Marker::Diamond, "the teacher’s block with convolutions of low rank"),
    family("radix", "P", "f-narrow", Marker::Pentagon, "the teacher’s block with fewer splits"),
    // Inverted residuals and bottlenecks.
    family("mbconv", "M", "f-mbconv", Marker::Diamond, "inverted residual"),
    family("mixconv", "X", "f-mbconv", Marker::Circle, "inverted residual with kernels of several sizes"),
    family("fused", "F", "f-fused", Marker::Triangle, "fused inverted residual"),
    family("bottleneck", "B", "f-bottleneck", Marker::Square, "bottleneck"),
    // Convolutions.
    family("conv", "C", "f-conv", Marker::Plus, "one convolution"),
    family("stack", "S", "f-conv", Marker::Square, "two convolutions"),
    family("shuffle", "H", "f-conv", Marker::Triangle, "two convolutions in groups, shuffled between"),
    family("repvgg", "R", "f-conv", Marker::Diamond, "RepVGG: one convolution when deployed"),
    family("acnet", "Z", "f-conv", Marker::Circle, "ACNet: one convolution when deployed"),
    // Attention.
    family("vit", "V", "f-other", Marker::Circle, "transformer blocks"),
    family("botnet", "A", "f-other", Marker::Square, "bottleneck with attention"),
    family("lambda", "L", "f-other", Marker::Triangle, "bottleneck with a lambda layer"),
];

static OTHER: Family = family("other", "O", "f-other", Marker::Pentagon, "an operation of another family");

/// All families in the order of legends.
pub(super) fn families() -> impl Iterator<Item = &'static Family> {
    FAMILIES.iter().chain([&OTHER])
}

/// The family an operation belongs to.
pub(super) fn family_of(operation: &str) -> &'static Family {
    let name = operation.split('-').next().unwrap_or_default();
    FAMILIES.iter().find(|f| f.name == name).unwrap_or(&OTHER)
}

/// The letter of a family on its colour.
pub(super) fn chip(family: &Family) -> String {
    format!("<span class=\"chip {}\">{}</span>", family.class, family.letter)
}

/// What tells the operation from others of its family, short enough for a cell: `½` for `narrow-w0.5`, `e3k5s` for
/// `mbconv-e3-k5-se0.08`.
pub(super) fn detail(operation: &str) -> String {
    let parts = operation.split('-').skip(1).map(|part| match part {
        "w0.75" => "¾".to_string(),
        "w0.5" => "½".to_string(),
        "w0.25" => "¼".to_string(),
        "w0.125" => "⅛".to_string(),
        part if part.starts_with("se") => "s".to_string(),
        part => part.to_string(),
    });
    parts.collect::<String>().chars().take(6).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_have_families_and_short_names() {
        for (operation, name, short) in [
            ("teacher", "teacher", ""),
            ("identity", "identity", ""),
            ("narrow-w0.125", "narrow", "⅛"),
            ("mbconv-e3-k5-se0.08", "mbconv", "e3k5s"),
            ("fused-e1-k3", "fused", "e1k3"),
            ("ghost-r2", "other", "r2"),
            ("vit-d1-w64-h4", "vit", "d1w64h"),
            ("bottleneck-k5-w0.25", "bottleneck", "k5¼"),
            ("own-nogate-k3", "own", "nogate"),
            ("lowrank-r0.25", "lowrank", "r0.25"),
            ("mixconv-e3-k5", "mixconv", "e3k5"),
            ("", "other", ""),
        ] {
            assert_eq!((family_of(operation).name, detail(operation).as_str()), (name, short), "{operation}");
        }
    }

    #[test]
    fn every_family_is_drawn_in_its_own_way() {
        let all: Vec<&Family> = families().collect();
        for (index, family) in all.iter().enumerate() {
            for other in &all[..index] {
                assert_ne!(family.letter, other.letter, "{} and {}", family.name, other.name);
                let alike = family.class == other.class && family.marker == other.marker;
                assert!(!alike, "{} and {}", family.name, other.name);
            }
        }
        // Of every preset, no operation is of another family.
        for preset in ["compact", "paper", "extended"] {
            let pools = lana_models::pool::Pools::parse(preset, &[]).unwrap();
            let graph =
                lana_models::zoo::build("resnet20_cifar", &lana_models::zoo::ZooOptions::default()).unwrap();
            for layer in crate::context::pool_of(&pools, &graph).unwrap() {
                let left_out = layer.left_out.iter().map(|(name, _)| name.as_str());
                for name in layer.operations.iter().map(|(operation, _)| operation.name()).chain(left_out) {
                    assert_ne!(family_of(name).name, "other", "{name}");
                }
            }
        }
    }
}

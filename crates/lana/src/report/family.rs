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

static FAMILIES: [Family; 13] = [
    family("teacher", "T", "f-teacher", Marker::Star, "the teacher’s own block"),
    family("identity", "–", "f-identity", Marker::Cross, "the layer is skipped"),
    family("narrow", "N", "f-narrow", Marker::Circle, "the teacher’s block with fewer inner channels"),
    family("mbconv", "M", "f-mbconv", Marker::Diamond, "inverted residual"),
    family("fused", "F", "f-fused", Marker::Triangle, "fused inverted residual"),
    family("bottleneck", "B", "f-bottleneck", Marker::Square, "bottleneck"),
    family("conv", "C", "f-conv", Marker::Plus, "one convolution"),
    // Kin share a colour and a marker; the letter tells them apart.
    family("stack", "S", "f-conv", Marker::Plus, "two convolutions"),
    family("shuffle", "H", "f-conv", Marker::Plus, "two convolutions in groups, shuffled between"),
    family("repvgg", "R", "f-conv", Marker::Plus, "RepVGG: one convolution when deployed"),
    family("vit", "V", "f-other", Marker::Pentagon, "transformer blocks"),
    family("botnet", "A", "f-other", Marker::Pentagon, "bottleneck with attention"),
    family("lambda", "L", "f-other", Marker::Pentagon, "bottleneck with a lambda layer"),
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

/// What tells the operation from others of its family, short enough for a cell: `½` for `narrow-w0.5`, `e3k5s` for
/// `mbconv-e3-k5-se0.25`.
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
            ("mbconv-e3-k5-se0.25", "mbconv", "e3k5s"),
            ("fused-e1-k3", "fused", "e1k3"),
            ("ghost-r2", "other", "r2"),
            ("vit-d1-w64-h4", "vit", "d1w64h"),
            ("bottleneck-k5-w0.25", "bottleneck", "k5¼"),
            ("", "other", ""),
        ] {
            assert_eq!((family_of(operation).name, detail(operation).as_str()), (name, short), "{operation}");
        }
    }
}

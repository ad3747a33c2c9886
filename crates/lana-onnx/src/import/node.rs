//! Attributes of a node, and why a node cannot be read.

use crate::proto::{AttributeProto, NodeProto, attribute_type};
use crate::text::listed;

/// Sizes, strides and paddings beyond this are taken for damage; it keeps every shape computation far from overflow.
pub(super) const LARGEST: usize = 1 << 20;

/// Why a node cannot be read.
pub(super) enum Obstacle {
    /// It reads something that cannot be read either, which is reported there.
    Upstream,
    /// It reads this value, which no earlier node makes.
    Lost(String),
    /// It reads a tensor of the file that cannot be read.
    Tensor {
        /// The tensor.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Its type is unknown.
    Type,
    /// Its type is known, but not this use of it.
    Detail(String),
}

impl From<String> for Obstacle {
    fn from(reason: String) -> Self {
        Obstacle::Detail(reason)
    }
}

/// What reading a node or a part of one gives.
pub(super) type Read<T> = std::result::Result<T, Obstacle>;

/// The obstacle that says why.
pub(super) fn obstacle<T>(reason: impl Into<String>) -> Read<T> {
    Err(Obstacle::Detail(reason.into()))
}

pub(super) fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|a| a.name.as_deref() == Some(name))
}

/// An integer attribute; one that lacks both value and type counts as absent.
pub(super) fn int(node: &NodeProto, name: &str) -> Option<i64> {
    let found = attribute(node, name)?;
    // A writer of protocol buffers 3 leaves out a zero.
    found.i.or((found.r#type == Some(attribute_type::INT)).then_some(0))
}

/// An integer attribute that says yes or no.
pub(super) fn flag(node: &NodeProto, name: &str, default: bool) -> bool {
    int(node, name).map_or(default, |value| value != 0)
}

pub(super) fn ints<'a>(node: &'a NodeProto, name: &str) -> Option<&'a [i64]> {
    attribute(node, name).map(|a| a.ints.as_slice())
}

pub(super) fn float(node: &NodeProto, name: &str) -> Option<f32> {
    let found = attribute(node, name)?;
    found.f.or((found.r#type == Some(attribute_type::FLOAT)).then_some(0.0))
}

/// The letters of an attribute; what is no text is no word that anything is called.
pub(super) fn word<'a>(node: &'a NodeProto, name: &str, default: &'a str) -> &'a str {
    let letters = attribute(node, name).and_then(|a| a.s.as_deref());
    letters.map_or(default, |letters| std::str::from_utf8(letters).unwrap_or("\u{fffd}"))
}

/// A list attribute of as many sizes.
pub(super) fn sizes<const N: usize>(node: &NodeProto, name: &str) -> Read<Option<[usize; N]>> {
    let Some(found) = ints(node, name) else { return Ok(None) };
    let sizes = found.iter().map(|&v| size(v)).collect::<Read<Vec<_>>>()?;
    match sizes.try_into() {
        Ok(sizes) => Ok(Some(sizes)),
        Err(_) => obstacle(format!("{name} {}, only {N} of them", listed(found))),
    }
}

pub(super) fn size(value: i64) -> Read<usize> {
    match usize::try_from(value) {
        Ok(size) if size <= LARGEST => Ok(size),
        _ => obstacle(format!("a size of {value}")),
    }
}

/// The dimension that an attribute names, which counts backwards where it is negative.
pub(super) fn dimension(axis: i64, rank: usize) -> Read<usize> {
    let from_front = if axis < 0 { axis.saturating_add(rank as i64) } else { axis };
    match usize::try_from(from_front) {
        Ok(found) if found < rank => Ok(found),
        _ => obstacle(format!("axis {axis} of {rank} dimensions")),
    }
}

/// What stands there as the nearest 32-bit float was written as a decimal number by whoever chose it.
pub(super) fn decimal(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::from(x))
}

//! Arrays of any element type: what goes into a model and comes out of it.

use std::sync::Arc;

use half::{bf16, f16};

use crate::random::Random;

/// Declares [`Element`] and [`Data`] from one list.
macro_rules! elements {
    ($($name:ident: $type:ty, $text:literal;)*) => {
        /// What an input or output of a model holds.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Element {
            $(#[doc = concat!("ONNX's `", $text, "`.")] $name,)*
        }

        impl std::fmt::Display for Element {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(match self { $(Element::$name => $text,)* })
            }
        }

        /// The elements of an array in row-major order, shared: sessions that are measured together read the same memory.
        #[derive(Clone, Debug)]
        pub(crate) enum Data {
            $($name(Arc<[$type]>),)*
        }

        impl Data {
            fn len(&self) -> usize {
                match self { $(Data::$name(values) => values.len(),)* }
            }

            /// Bytes of one element.
            pub(crate) fn width(element: Element) -> usize {
                match element { $(Element::$name => size_of::<$type>(),)* }
            }
        }

        /// Evaluates an expression with `$values` bound to the elements, whatever their type.
        macro_rules! with_elements {
            ($data:expr, $values:ident => $result:expr) => {
                match $data { $(crate::array::Data::$name($values) => $result,)* }
            };
        }
        pub(crate) use with_elements;
    };
}

elements! {
    F32: f32, "float";
    F16: f16, "float16";
    Bf16: bf16, "bfloat16";
    F64: f64, "double";
    I8: i8, "int8";
    U8: u8, "uint8";
    I16: i16, "int16";
    U16: u16, "uint16";
    I32: i32, "int32";
    U32: u32, "uint32";
    I64: i64, "int64";
    U64: u64, "uint64";
    Bool: bool, "bool";
}

/// Elements with their dimensions.
#[derive(Clone, Debug)]
pub(crate) struct Array {
    dims: Vec<usize>,
    data: Data,
}

impl Array {
    /// None if there are more or fewer elements than the dimensions say.
    pub(crate) fn new(dims: Vec<usize>, data: Data) -> Option<Self> {
        (data.len() == dims.iter().product::<usize>()).then_some(Array { dims, data })
    }

    /// Numbers as a model may find them in use: floats normal with deviation 1, bytes uniform, as pixels are. Wider integers
    /// are 1 and booleans true, because such inputs are mostly indices, lengths and masks, among which 1 is never out of
    /// range where there is anything to choose from.
    pub(crate) fn sample(element: Element, dims: Vec<usize>, random: &mut Random) -> Self {
        let count = dims.iter().product();
        let mut normal = |_| random.normal() as f32;
        let data = match element {
            Element::F32 => Data::F32((0..count).map(normal).collect()),
            Element::F16 => Data::F16((0..count).map(|i| f16::from_f32(normal(i))).collect()),
            Element::Bf16 => Data::Bf16((0..count).map(|i| bf16::from_f32(normal(i))).collect()),
            Element::F64 => Data::F64((0..count).map(|i| normal(i).into()).collect()),
            Element::I8 => Data::I8((0..count).map(|_| random.next() as i8).collect()),
            Element::U8 => Data::U8((0..count).map(|_| random.next() as u8).collect()),
            Element::I16 => Data::I16(vec![1; count].into()),
            Element::U16 => Data::U16(vec![1; count].into()),
            Element::I32 => Data::I32(vec![1; count].into()),
            Element::U32 => Data::U32(vec![1; count].into()),
            Element::I64 => Data::I64(vec![1; count].into()),
            Element::U64 => Data::U64(vec![1; count].into()),
            Element::Bool => Data::Bool(vec![true; count].into()),
        };
        Array { dims, data }
    }

    pub(crate) fn dims(&self) -> &[usize] {
        &self.dims
    }

    pub(crate) fn data(&self) -> &Data {
        &self.data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_as_large_as_asked_for() {
        let mut random = Random::new(0);
        for element in [Element::F32, Element::F16, Element::U8, Element::I64, Element::Bool] {
            let array = Array::sample(element, vec![2, 3], &mut random);
            assert_eq!((array.dims(), array.data().len()), (&[2, 3][..], 6), "{element}");
        }
        assert_eq!(Array::sample(Element::F32, vec![], &mut random).data().len(), 1);
        assert!(Array::new(vec![2, 2], Data::U8(vec![0; 3].into())).is_none());
    }
}

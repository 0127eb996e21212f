//! Typed settings of a GGUF header.

/// The types a setting can have, by their numbers in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ValueType {
    /// Unsigned byte.
    U8 = 0,
    /// Signed byte.
    I8 = 1,
    /// Unsigned 16 bits.
    U16 = 2,
    /// Signed 16 bits.
    I16 = 3,
    /// Unsigned 32 bits.
    U32 = 4,
    /// Signed 32 bits.
    I32 = 5,
    /// Single precision.
    F32 = 6,
    /// One byte, 0 or 1.
    Bool = 7,
    /// A 64-bit length and that many bytes.
    String = 8,
    /// A type, a 64-bit count and that many elements.
    Array = 9,
    /// Unsigned 64 bits.
    U64 = 10,
    /// Signed 64 bits.
    I64 = 11,
    /// Double precision.
    F64 = 12,
}

impl ValueType {
    /// The type with a number.
    pub(crate) fn from_number(number: u32) -> Option<ValueType> {
        use ValueType::*;
        [
            U8, I8, U16, I16, U32, I32, F32, Bool, String, Array, U64, I64, F64,
        ]
        .get(usize::try_from(number).ok()?)
        .copied()
    }

    /// Bytes of one element; `None` for strings and arrays, whose elements differ.
    pub fn fixed_bytes(self) -> Option<u64> {
        use ValueType::*;
        match self {
            U8 | I8 | Bool => Some(1),
            U16 | I16 => Some(2),
            U32 | I32 | F32 => Some(4),
            U64 | I64 | F64 => Some(8),
            String | Array => None,
        }
    }
}

/// One setting. Numbers are widened; long strings and all arrays stay in the file.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Any unsigned integer.
    Unsigned(u64),
    /// Any signed integer.
    Signed(i64),
    /// Single or double precision.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// A string of at most 1 MiB.
    String(String),
    /// A longer string, left in the file.
    LongString {
        /// First byte of the text.
        offset: u64,
        /// Length in bytes.
        len: u64,
    },
    /// An array, left in the file.
    Array(ArrayRef),
}

/// Where an array's elements lie. The walk over the header has checked that they are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArrayRef {
    /// Type of the elements.
    pub element: ValueType,
    /// How many.
    pub count: u64,
    /// First byte of the first element.
    pub offset: u64,
    /// Bytes of all elements.
    pub bytes: u64,
}

impl Value {
    /// A few words for errors and listings.
    pub(crate) fn describe(&self) -> String {
        match self {
            Value::Unsigned(n) => n.to_string(),
            Value::Signed(n) => n.to_string(),
            Value::Float(x) => x.to_string(),
            Value::Bool(b) => b.to_string(),
            Value::String(s) => crate::error::quoted(s.as_bytes()),
            Value::LongString { len, .. } => format!("a string of {len} bytes"),
            Value::Array(a) => format!("an array of {} {:?}", a.count, a.element),
        }
    }
}

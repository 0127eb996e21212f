//! What happens to text before a model sees it: added tokens are cut out, the rest is normalised
//! and split into words.

pub(crate) mod added;
pub(crate) mod class;
pub(crate) mod normalize;
pub(crate) mod split;
pub(crate) mod unicode8;
pub(crate) mod words;

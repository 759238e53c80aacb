//! Parts that panes and overlays are built of.

pub mod gauge;
pub mod row;

pub use gauge::bar;
pub use row::Row;

//! Tests of the parts of the analysis that are not visible from outside.

mod scalars;
mod small_widths;

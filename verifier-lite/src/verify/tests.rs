//! Tests of the parts of the analysis.

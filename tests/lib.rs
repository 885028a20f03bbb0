//! What `system.rs`, the binary `hostile` and the fuzz targets in `fuzz/` share. The tests themselves
//! are in `system.rs`.

pub mod hostile;

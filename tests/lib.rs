//! The tests are in `system.rs`; this library is empty.

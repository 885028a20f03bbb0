//! The memory of a run, before it starts and where it was too little.
//!
//! | file | what it does |
//! |---|---|
//! | `hardware` | what a plan must know of a device |
//! | `planned` | estimates the memory of a run |
//! | `disk` | the bytes that a run has on disk |
//! | `fitting` | which flags make a run fit |
//! | `like_lora` | how many layers LISA trains in the memory of LoRA |
//! | `limits` | the longest rows and the largest batches that fit |
//! | `check` | whether there is as much memory as a run needs |
//! | `out_of_memory` | the error of a device that has no memory left |

pub(crate) mod hardware;

pub(crate) mod planned;

pub(crate) mod disk;
pub(crate) mod fitting;
pub(crate) mod like_lora;
pub(crate) mod limits;

pub(crate) mod check;
pub(crate) mod out_of_memory;

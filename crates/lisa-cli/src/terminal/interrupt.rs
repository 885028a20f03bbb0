//! Ctrl-C: the first one stops the run after the current step, the second one ends the program.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;

/// A flag that the first Ctrl-C sets. The second Ctrl-C ends the program with exit code 130, as
/// usual for Ctrl-C. Call this function only once.
pub fn stop_on_interrupt() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let asked = stop.clone();
    ctrlc::set_handler(move || {
        if asked.swap(true, Ordering::SeqCst) {
            // Files are replaced by renaming, so saved files are complete.
            std::process::exit(130);
        }
        eprintln!(
            "\nstopping after this step and saving a checkpoint; press Ctrl-C again to end now"
        );
    })?;
    Ok(stop)
}

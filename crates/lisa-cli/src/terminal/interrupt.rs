//! Ctrl-C: the first one asks the run to stop, the second one ends the program.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;

/// A flag that the first Ctrl-C sets. The second one ends the program with 130, the code of a
/// program that Ctrl-C ended. Call it once.
pub fn stop_on_interrupt() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let asked = stop.clone();
    ctrlc::set_handler(move || {
        if asked.swap(true, Ordering::SeqCst) {
            // Files are replaced by a rename, so those that were saved are complete.
            std::process::exit(130);
        }
        eprintln!(
            "\nstopping after this step and saving a checkpoint; press Ctrl-C again to end now"
        );
    })?;
    Ok(stop)
}

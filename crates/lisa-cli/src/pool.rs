//! [`in_pool`]: runs the program on a thread of rayon's pool.

/// Runs the function on a thread of rayon's global pool, which the flex backend computes with.
///
/// From any other thread each operation waits for the pool, which costs a few per cent of a step. Call
/// it once, in `main`. A pool that exists already is kept.
pub fn in_pool<R: Send>(run: impl FnOnce() -> R + Send) -> R {
    // As much stack as a main thread has.
    let pool = rayon::ThreadPoolBuilder::new().stack_size(8 << 20);
    if let Err(error) = pool.build_global() {
        log::warn!("{error}");
    }
    rayon::scope(|_| run())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_function_runs_on_a_thread_of_the_pool() {
        assert!(rayon::current_thread_index().is_none());
        assert!(super::in_pool(rayon::current_thread_index).is_some());
    }
}

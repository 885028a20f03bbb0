//! [`in_pool`]: runs a program where its work on the CPU is done.

/// Runs on a thread of rayon's pool, which flex computes on.
///
/// From any other thread each piece of work is handed over to the pool and waited for, which costs some
/// per cent of a step. Call it once, in `main`; whatever has set up the pool before stays.
pub(crate) fn in_pool<R: Send>(run: impl FnOnce() -> R + Send) -> R {
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
    fn what_runs_is_on_a_thread_of_the_pool() {
        assert!(rayon::current_thread_index().is_none());
        assert!(super::in_pool(rayon::current_thread_index).is_some());
    }
}

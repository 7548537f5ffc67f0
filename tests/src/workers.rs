//! Threads that share one piece of work.

use anyhow::{Result, anyhow};

/// Runs `work` on `count` threads at once, each until it returns; the work shares out its own parts.
///
/// # Errors
/// The first thread's that failed or panicked, in the order in which they were started.
pub fn workers(count: usize, work: impl Fn() -> Result<()> + Sync) -> Result<()> {
    std::thread::scope(|scope| {
        let started: Vec<_> = (0..count).map(|_| scope.spawn(&work)).collect();
        started
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|_| Err(anyhow!("a worker panicked"))))
    })
}

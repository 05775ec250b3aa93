//! Runtimes for what waits on networks, and how they live on where the system gives no more threads.
//!
//! tokio starts a thread for blocking work when some is there to do, and ends it when it has been idle; where the system refuses
//! another one just then (`TasksMax`, memory), it panics in the task that asked, be it for a verdict on disk or a host's address.
//! Here one is there from the start and stays: such work then waits for it. Not here: who does what in a runtime.

use std::io;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

/// Builds a runtime of `builder`'s kind that keeps a thread for blocking work.
///
/// # Errors
/// The system gives no more threads.
pub(crate) fn build(builder: &mut Builder) -> io::Result<Runtime> {
    // Asked first: tokio would panic instead of saying so.
    let _ended = thread::Builder::new().spawn(|| ())?.join();
    let runtime = builder.enable_all().thread_keep_alive(Duration::MAX).build()?;
    drop(runtime.spawn_blocking(|| ()));
    Ok(runtime)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Threads of this process with that name.
    fn threads(name: &str) -> usize {
        let named = |task: &fs::DirEntry| {
            fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
        };
        fs::read_dir("/proc/self/task").unwrap().flatten().filter(named).count()
    }

    #[test]
    fn a_thread_for_blocking_work_is_there_before_the_work() {
        let mut builder = Builder::new_current_thread();
        let runtime = build(builder.thread_name("kept")).unwrap();
        while threads("kept") == 0 {
            thread::yield_now();
        }
        let own = runtime.block_on(runtime.spawn_blocking(|| thread::current().name().map(str::to_owned)));
        assert_eq!((own.unwrap().as_deref(), threads("kept")), (Some("kept"), 1));
    }
}

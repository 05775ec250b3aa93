//! How a training's memory is asked of the system.
//!
//! For commands that train and end. Not here: how much it needs (`training`); and not for the daemon, which is to give back
//! what a large picture took.

/// Keeps what is freed, for the next step, which needs as much again.
///
/// glibc takes blocks of 32 MiB and more from the kernel and gives them back each time; every step would fault in hundreds of
/// megabytes of zeroed pages, a tenth of its time.
pub(super) fn keep() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [(libc::M_MMAP_MAX, 0), (libc::M_TRIM_THRESHOLD, -1), (libc::M_ARENA_MAX, 1)] {
        // SAFETY: the call takes two numbers; no thread of ours allocates yet, and it would be served all the same.
        let _older_systems_know_fewer = unsafe { libc::mallopt(parameter, value) };
    }
}

//! The workers that all detectors of the process share, and the order in which detectors get them.
//!
//! A section is a number of independent tasks; [`Pool::run`] returns when all are done. Sections of several detectors
//! take turns, first come, first served, so a frame waits for at most one section of each of the others at a time.
//! Between sections workers spin for a moment, because the next one is usually microseconds away, and then sleep.
//! Who runs which task is open; what a task computes never depends on it, and so results are deterministic.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;

/// Rounds of spinning before a thread sleeps: some 50 µs.
const SPINS: usize = 2_000;

/// `work(worker, task)`: `worker` numbers the threads of the pool, so that each can have memory of its own.
type Work<'a> = dyn Fn(usize, usize) + Sync + 'a;

pub(crate) struct Pool {
    shared: Arc<State>,
    workers: Vec<JoinHandle<()>>,
    turn: Turn,
}

struct State {
    section: Mutex<Section>,
    wake: Condvar,
    left: Condvar,
    /// Counts sections, for workers that spin.
    begun: AtomicUsize,
    /// Workers inside the section, for the caller that spins.
    inside: AtomicUsize,
    stop: AtomicBool,
}

#[derive(Default)]
struct Section {
    job: Option<Job>,
}

/// The section being run. The pointers are the caller's, who does not return before every worker has left.
#[derive(Clone, Copy)]
struct Job {
    work: *const Work<'static>,
    progress: *const Progress,
    tasks: usize,
}

// SAFETY: what the pointers lead to is Sync, and outlives the section (see `Pool::run`).
unsafe impl Send for Job {}

#[derive(Default)]
struct Progress {
    next: AtomicUsize,
    panic: Mutex<Option<Box<dyn std::any::Any + Send>>>,
}

impl Progress {
    fn work(&self, work: &Work<'_>, worker: usize, tasks: usize) {
        let all = AssertUnwindSafe(|| {
            loop {
                let task = self.next.fetch_add(1, Ordering::Relaxed);
                if task >= tasks {
                    break;
                }
                work(worker, task);
            }
        });
        if let Err(panic) = catch_unwind(all) {
            self.next.store(tasks, Ordering::Relaxed);
            *lock(&self.panic) = Some(panic);
        }
    }
}

/// Nothing that a panic could leave half done is ever under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// The process's pool of `threads` threads, the caller's included; made when first asked for.
    pub(crate) fn shared(threads: usize) -> Arc<Self> {
        static POOLS: Mutex<Vec<Weak<Pool>>> = Mutex::new(Vec::new());
        let mut pools = lock(&POOLS);
        pools.retain(|pool| pool.strong_count() > 0);
        let existing = pools.iter().filter_map(Weak::upgrade).find(|pool| pool.threads() == threads.max(1));
        existing.unwrap_or_else(|| {
            let pool = Arc::new(Self::new(threads));
            pools.push(Arc::downgrade(&pool));
            pool
        })
    }

    fn new(threads: usize) -> Self {
        let shared = Arc::new(State {
            section: Mutex::default(),
            wake: Condvar::new(),
            left: Condvar::new(),
            begun: AtomicUsize::new(0),
            inside: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let spawn = |worker| {
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name(format!("infer-{worker}"));
            // A box that cannot give one more thread still inspects, with fewer.
            thread.spawn(move || shared.serve(worker)).ok()
        };
        let workers = (1..threads).map_while(spawn).collect();
        Self { shared, workers, turn: Turn::default() }
    }

    /// Threads that work, the caller's included.
    pub(crate) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `work(worker, task)` for every task below `tasks`, and returns when all are done. Panics if a task does.
    pub(super) fn run(&self, tasks: usize, work: &Work<'_>) {
        let _turn = self.turn.take();
        let progress = Progress::default();
        if tasks > 1 && !self.workers.is_empty() {
            // SAFETY: only the lifetime changes. The job is withdrawn and every worker has left before this function
            // returns, and between here and there nothing unwinds: `Progress::work` catches.
            let work = unsafe { std::mem::transmute::<&Work<'_>, &Work<'static>>(work) };
            self.shared.begin(Job { work, progress: &raw const progress, tasks });
            progress.work(work, 0, tasks);
            self.shared.end();
        } else {
            progress.work(work, 0, tasks);
        }
        if let Some(panic) = progress.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.begun.fetch_add(1, Ordering::Release);
        drop(lock(&self.shared.section));
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            let _panicked = worker.join();
        }
    }
}

impl State {
    fn begin(&self, job: Job) {
        let mut section = lock(&self.section);
        section.job = Some(job);
        // Under the lock, or a worker that has just looked would sleep through the section.
        self.begun.fetch_add(1, Ordering::Release);
        drop(section);
        self.wake.notify_all();
    }

    /// Lets no further worker in, and waits for those inside.
    fn end(&self) {
        lock(&self.section).job = None;
        for _ in 0..SPINS {
            if self.inside.load(Ordering::Acquire) == 0 {
                return;
            }
            std::hint::spin_loop();
        }
        let mut section = lock(&self.section);
        while self.inside.load(Ordering::Acquire) != 0 {
            section = self.left.wait(section).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A worker's life.
    fn serve(&self, worker: usize) {
        let mut seen = 0;
        loop {
            let mut spins = 0;
            while self.begun.load(Ordering::Acquire) == seen && spins < SPINS {
                std::hint::spin_loop();
                spins += 1;
            }
            let mut section = lock(&self.section);
            while self.begun.load(Ordering::Acquire) == seen {
                section = self.wake.wait(section).unwrap_or_else(PoisonError::into_inner);
            }
            seen = self.begun.load(Ordering::Acquire);
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            let Some(job) = section.job else { continue };
            self.inside.fetch_add(1, Ordering::AcqRel);
            drop(section);
            // SAFETY: the job was there under the lock, so its caller waits in `end` until this worker has left.
            let (progress, work) = unsafe { (&*job.progress, &*job.work) };
            progress.work(work, worker, job.tasks);
            if self.inside.fetch_sub(1, Ordering::AcqRel) == 1 {
                drop(lock(&self.section));
                self.left.notify_all();
            }
        }
    }
}

/// A lock that is given in the order in which it was asked for.
#[derive(Default)]
struct Turn {
    /// The number to draw next, and the one being served.
    numbers: Mutex<(u64, u64)>,
    served: Condvar,
}

impl Turn {
    fn take(&self) -> Taken<'_> {
        let mut numbers = lock(&self.numbers);
        let mine = numbers.0;
        numbers.0 += 1;
        while numbers.1 != mine {
            numbers = self.served.wait(numbers).unwrap_or_else(PoisonError::into_inner);
        }
        Taken(self)
    }
}

struct Taken<'a>(&'a Turn);

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        lock(&self.0.numbers).1 += 1;
        self.0.served.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_is_run_once_by_a_worker_of_the_pool() {
        for threads in 1..4 {
            let pool = Pool::shared(threads);
            for tasks in [0, 1, 2, 3, 100] {
                let runs: Vec<_> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(tasks, &|worker, task| {
                    assert!(worker < threads);
                    runs[task].fetch_add(1, Ordering::Relaxed);
                });
                assert!(runs.iter().all(|r| r.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn detectors_share_a_pool_and_all_get_on() {
        let pool = Pool::shared(2);
        assert!(Arc::ptr_eq(&pool, &Pool::shared(2)));
        let done = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        Pool::shared(2).run(5, &|_, _| {
                            done.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(done.into_inner(), 3 * 200 * 5);
    }

    #[test]
    fn a_task_that_panics_panics_its_caller_and_nobody_else() {
        let pool = Pool::shared(2);
        let result = catch_unwind(AssertUnwindSafe(|| pool.run(8, &|_, task| assert_ne!(task, 3))));
        assert!(result.is_err());
        let sum = AtomicUsize::new(0);
        pool.run(4, &|_, task| {
            sum.fetch_add(task, Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), 6);
    }
}

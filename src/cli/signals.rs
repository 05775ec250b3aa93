//! SIGINT and SIGTERM for commands that have something to put in order before they end.

use std::thread;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::shutdown::Shutdown;

/// A stop signal that the first SIGINT or SIGTERM gives; the second ends the process at once.
pub(super) fn shutdown() -> anyhow::Result<Shutdown> {
    let shutdown = Shutdown::new();
    let asked = shutdown.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let runtime = runtime.context("cannot listen for signals")?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        let listen = |kind| signal(kind).context("cannot listen for signals");
        (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?)
    };
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            runtime.block_on(async {
                loop {
                    let code = tokio::select! {
                        _ = interrupt.recv() => 130,
                        _ = terminate.recv() => 143,
                    };
                    if asked.requested() {
                        std::process::exit(code);
                    }
                    asked.request();
                }
            });
        })
        .context("cannot start a thread")?;
    Ok(shutdown)
}

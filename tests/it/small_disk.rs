//! A small file system that a test can fill, where nobody else minds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::inspectord::wrapped;

/// A small file system for the store, in a mount namespace of its own that ends with its holder.
pub(crate) struct SmallDisk {
    holder: Result<Child, String>,
    store: PathBuf,
}

impl SmallDisk {
    /// Mounts one of so many MiB at `store`, for the processes that are started [`SmallDisk::inside`].
    pub(crate) fn mount(store: &Path, megabytes: u32) -> Self {
        let script = format!(
            "mount -t tmpfs -o size={megabytes}m none '{}' && echo mounted && exec sleep 1000000",
            store.display()
        );
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]);
        let holder = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let holder =
            holder.map_err(|error| format!("there is no unshare: {error}")).and_then(|mut holder| {
                let mut said = String::new();
                let _ended = std::io::BufRead::read_line(
                    &mut std::io::BufReader::new(holder.stdout.take().unwrap()),
                    &mut said,
                );
                if said.trim() == "mounted" {
                    return Ok(holder);
                }
                let _reaped = holder.wait();
                Err("this machine lets nobody mount in a namespace of their own".into())
            });
        Self { holder, store: store.to_owned() }
    }

    /// Why there is none, where that is so.
    pub(crate) fn why_not(&self) -> Option<&str> {
        self.holder.as_ref().err().map(String::as_str)
    }

    /// `command`, run where the store is the small file system.
    pub(crate) fn inside(&self, command: Command) -> Command {
        let Ok(holder) = &self.holder else { return command };
        let mut entered = Command::new("nsenter");
        entered.args([
            "--user",
            "--mount",
            "--preserve-credentials",
            "--target",
            &holder.id().to_string(),
            "--",
        ]);
        wrapped(entered, &command)
    }

    /// Leaves no byte free; tells how many more that took. Nothing where the store is on a disk of others.
    pub(crate) fn fill(&self) -> Option<u64> {
        let mut file = fs::File::options().create(true).append(true).open(self.filling()?).ok()?;
        let mut filled = 0;
        for size in [1 << 20, 4096] {
            let block = vec![0; size];
            while let Ok(written) = std::io::Write::write(&mut file, &block) {
                filled += written as u64;
            }
        }
        Some(filled)
    }

    /// Takes the filling away.
    pub(crate) fn make_room(&self) {
        if let Some(path) = self.filling() {
            fs::remove_file(path).unwrap();
        }
    }

    /// The length of the store's file `name`.
    pub(crate) fn holds(&self, name: &str) -> Option<u64> {
        Some(fs::metadata(self.inside_path(name)?).ok()?.len())
    }

    fn filling(&self) -> Option<PathBuf> {
        self.inside_path("filling")
    }

    fn inside_path(&self, name: &str) -> Option<PathBuf> {
        let holder = self.holder.as_ref().ok()?;
        let root = PathBuf::from(format!("/proc/{}/root", holder.id()));
        Some(root.join(self.store.strip_prefix("/").ok()?).join(name))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Ok(holder) = &mut self.holder {
            let _has_ended = holder.kill();
            let _reaped = holder.wait();
        }
    }
}

//! The `[store]` section: where the store lies and how long it keeps what.
//!
//! The one place of the store's defaults. Not here: what is done with them (`retention`, `evidence`, `journal`).

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The largest segment that may be asked for, in MiB; reading one back after a crash takes about its size in memory bandwidth.
const MAX_SEGMENT_MEGABYTES: u32 = 1024;
/// The largest reserve that may be asked for, in MiB.
const MAX_RESERVE_MEGABYTES: u64 = 65_536;
/// The longest queue that may be asked for.
const MAX_QUEUE: usize = 65_536;

/// How verdicts and evidence are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// The folder of journal, evidence and index. Default: the state folder that systemd makes for the unit. It should
    /// be a local disk: network file systems promise less about what is durable.
    pub path: PathBuf,
    /// Days for which verdicts and evidence are kept, by the time they were recorded; 0 keeps them until space runs
    /// out. Default 90: a quarter's complaints can be looked up.
    pub keep_days: u32,
    /// MiB that journal, index and evidence may take, 0 for no limit. Beyond it evidence goes first, oldest first, then whole
    /// journal segments. Not in it: the reserve, the lists of judged files, an index that was put aside as damaged. Default 20480 (20 GiB): some ten thousand pictures beside ten million verdicts.
    pub max_megabytes: u64,
    /// MiB that must stay free on the disk. Below it the oldest evidence and then the oldest segments go; below half
    /// of it no new evidence is written, so that verdicts still have room. Default 1024.
    pub min_free_megabytes: u64,
    /// MiB that are kept free for verdicts alone, for when somebody else has filled the disk; 0 for none, and never more
    /// than a sixteenth of the disk. Default 32: some forty thousand verdicts, more than an hour at ten a second.
    pub reserve_megabytes: u64,
    /// MiB of pictures that may wait to be written as evidence; while more wait, further verdicts are recorded without
    /// theirs. Default 256: a burst of a hundred large pictures, and a bound on memory when the disk is slow.
    pub evidence_queue_megabytes: u64,
    /// Verdicts that may wait to be recorded; when full, whoever records waits. Default 1024: two seconds at 500 a
    /// second.
    pub queue: usize,
    /// MiB after which a new journal segment begins; retention deletes whole segments. Default 16: some twenty thousand
    /// verdicts, read back in well under a second after a crash.
    pub segment_megabytes: u32,
    /// MiB that the index may keep in memory. Default 16: the index only serves queries.
    pub index_cache_megabytes: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            path: PathBuf::from("/var/lib/inspectord/store"),
            keep_days: 90,
            max_megabytes: 20_480,
            min_free_megabytes: 1024,
            reserve_megabytes: 32,
            evidence_queue_megabytes: 256,
            queue: 1024,
            segment_megabytes: 16,
            index_cache_megabytes: 16,
        }
    }
}

impl Options {
    /// Everything that is wrong with them, as (key path inside the section, what is wrong and the remedy).
    pub fn faults(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        let mut fault = |key: &str, message: String| faults.push((key.to_owned(), message));
        if self.path.as_os_str().is_empty() {
            fault("path", "is empty: name the folder in which verdicts are to be kept".into());
        }
        if self.keep_days > 36_500 {
            fault(
                "keep_days",
                format!("{} is more than a century: use 0 to keep them for ever", self.keep_days),
            );
        }
        let segment = u64::from(self.segment_megabytes);
        if !(1..=MAX_SEGMENT_MEGABYTES).contains(&self.segment_megabytes) {
            fault("segment_megabytes", format!("{segment} must be 1 to {MAX_SEGMENT_MEGABYTES}"));
        }
        // Retention never touches the segment being written, so less than a few of them cannot be kept to.
        if self.max_megabytes != 0 && self.max_megabytes < 4 * segment {
            let least = 4 * segment;
            fault(
                "max_megabytes",
                format!(
                    "{} is less than four segments ({least}): raise it, or lower segment_megabytes",
                    self.max_megabytes
                ),
            );
        }
        if self.reserve_megabytes > MAX_RESERVE_MEGABYTES {
            fault(
                "reserve_megabytes",
                format!("{} must be 0 to {MAX_RESERVE_MEGABYTES}", self.reserve_megabytes),
            );
        }
        if self.evidence_queue_megabytes == 0 {
            fault("evidence_queue_megabytes", "0 would keep no evidence at all: use at least 1".into());
        }
        if !(1..=MAX_QUEUE).contains(&self.queue) {
            fault("queue", format!("{} must be 1 to {MAX_QUEUE}", self.queue));
        }
        if !(1..=4096).contains(&self.index_cache_megabytes) {
            fault("index_cache_megabytes", format!("{} must be 1 to 4096", self.index_cache_megabytes));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_have_no_faults() {
        assert_eq!(Options::default().faults(), []);
    }

    #[test]
    fn all_faults_are_reported_at_once() {
        let options = Options {
            path: PathBuf::new(),
            queue: 0,
            segment_megabytes: 0,
            evidence_queue_megabytes: 0,
            ..Options::default()
        };
        let keys: Vec<_> = options.faults().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["path", "segment_megabytes", "evidence_queue_megabytes", "queue"]);
    }

    #[test]
    fn unknown_keys_are_refused_and_missing_ones_have_defaults() {
        assert!(toml::from_str::<Options>("pth = \"/tmp\"").is_err());
        assert_eq!(toml::from_str::<Options>("").unwrap(), Options::default());
    }
}

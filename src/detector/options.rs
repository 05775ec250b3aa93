//! How models are run: the `[inference]` section of the settings.
//!
//! In: what the operator wrote. Out: validated choices for [`super::Detector::open`]. Not here: what a model is (`efficientad`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::cuda;

/// The most threads that may be asked for; more is a slip of the keyboard.
const MAX_THREADS: usize = 1024;

/// `[inference]`: the device and the engine that run the models.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Where models run: `auto` (the default: the best there is), `cpu`, or `cuda:N` for the N-th NVIDIA card.
    pub device: Device,
    /// What runs them: `auto` (the default: the fastest for the device, and the CPU's where a card fails), `cpu` (the fast
    /// CPU engine), `cuda` (the one for NVIDIA cards and nothing else), or `reference` (slow; the yardstick for the others).
    pub engine: Engine,
    /// Threads that all models together may use on the CPU; 0, the default, takes every core, since one picture's
    /// latency is what counts.
    pub threads: usize,
}

/// A device to run models on; written `auto`, `cpu` or `cuda:N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Device {
    /// The best there is.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// The NVIDIA card of this number.
    Cuda(usize),
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|n| n.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| format!("`{text:.40}` is no device: use auto, cpu or cuda:N")),
        }
    }
}

impl TryFrom<String> for Device {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Device> for String {
    fn from(device: Device) -> Self {
        device.to_string()
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(n) => write!(f, "cuda:{n}"),
        }
    }
}

/// A program that runs models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// The fastest for the device.
    #[default]
    Auto,
    /// The plain one that the others are held against.
    Reference,
    /// The one made for CPUs.
    Cpu,
    /// The one made for NVIDIA cards.
    Cuda,
}

impl FromStr for Engine {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "reference" => Ok(Self::Reference),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda),
            _ => Err(format!("`{text:.40}` is no engine: use auto, reference, cpu or cuda")),
        }
    }
}

impl Engine {
    fn runs_on(self, device: Device) -> bool {
        !matches!((device, self), (Device::Cuda(_), Self::Cpu) | (Device::Cpu, Self::Cuda))
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Reference => "reference",
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        })
    }
}

impl Options {
    /// Everything that is wrong with them: the key inside the section, and what to do about it.
    pub fn faults(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        let mut fault = |key: &str, remedy| faults.push((key.to_owned(), remedy));
        let (device, engine) = (self.device, self.engine);
        match (device, engine) {
            _ if !engine.runs_on(device) => {
                fault(
                    "engine",
                    format!("the {engine} engine cannot run on {device}: set engine or device to auto"),
                );
            }
            (Device::Cuda(_), Engine::Reference) if !cfg!(feature = "cuda") => {
                let remedy = "this build's reference engine has no support for cards: use device = \"cpu\"";
                fault("device", remedy.to_owned());
            }
            _ => {}
        }
        let asks_for_a_card = matches!(device, Device::Cuda(_)) || engine == Engine::Cuda;
        if asks_for_a_card && !cuda::is_built_in() {
            let key = if engine == Engine::Cuda { "engine" } else { "device" };
            fault(
                key,
                format!(
                    "this build has no support for NVIDIA cards ({device}, {engine}): use cpu, or a build with the feature cuda-inference"
                ),
            );
        }
        if self.threads > MAX_THREADS {
            let remedy =
                format!("{} threads are too many: use 0 for every core, at most {MAX_THREADS}", self.threads);
            fault("threads", remedy);
        }
        faults
    }

    /// The same for another device and so many threads there: by the same engine if it runs there, or else by the best there is.
    pub fn moved_to(self, device: Device, threads: usize) -> Self {
        let engine = if self.engine.runs_on(device) { self.engine } else { Engine::Auto };
        Self { device, engine, threads }
    }

    /// The number of threads that 0 stands for, or the one that was asked for.
    pub fn thread_count(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n.min(MAX_THREADS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_as_they_are_written() {
        for device in [Device::Auto, Device::Cpu, Device::Cuda(1)] {
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        for bad in ["gpu", "cuda", "cuda:", "cuda:-1", "CPU"] {
            assert!(bad.parse::<Device>().unwrap_err().contains("use auto, cpu or cuda:N"), "{bad}");
        }
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let options = Options { device: Device::Cuda(0), engine: Engine::Cpu, threads: 5000 };
        let keys: Vec<_> = options.faults().into_iter().map(|(key, _)| key).collect();
        assert!(keys.contains(&"engine".to_owned()) && keys.contains(&"threads".to_owned()), "{keys:?}");
        assert!(Options::default().faults().is_empty());
        assert!(toml::from_str::<Options>("thread = 2").is_err());
    }
    #[test]
    fn elsewhere_an_engine_goes_along_where_it_can() {
        for (engine, device, expected) in [
            (Engine::Cuda, Device::Cpu, Engine::Auto),
            (Engine::Cpu, Device::Cuda(1), Engine::Auto),
            (Engine::Cuda, Device::Auto, Engine::Cuda),
            (Engine::Reference, Device::Cpu, Engine::Reference),
        ] {
            let moved = Options { engine, ..Options::default() }.moved_to(device, 3);
            assert_eq!(moved, Options { device, engine: expected, threads: 3 });
        }
    }
}

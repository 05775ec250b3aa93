//! `inspectord bench`: latency and throughput on this box, whole detector, from the picture to its full-size map.
//!
//! In: a bundle, or random weights of a stated size. Out: one line for each engine and size, for people or as JSON.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context as _;
use serde::Serialize;

use super::report::UsageError;
use crate::detector::options::{Device, Engine};
use crate::detector::{AnomalyMap, Cuda, Inspector, Options, measure, open_engine, untrained};
use crate::efficientad::{Architecture, CalibratedModel, PdnSize};
use crate::frame::{Picture, Size};

/// Measures how fast models run on this box.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  inspectord bench --size small --engine cpu --engine reference --frames 20
  inspectord bench --size small --engine cuda --against cpu --batch 32

GFLOP/s counts the direct convolutions that the networks state; engines that need fewer exceed the measured peak.
Run it on a machine that does nothing else.")]
pub struct Args {
    /// A model bundle; without one, random weights, which are as fast as trained ones.
    #[arg(long, value_name = "BUNDLE", conflicts_with = "size")]
    model: Option<PathBuf>,
    /// The network's size: tiny, small or medium; may be repeated [default: all three].
    #[arg(long, value_name = "SIZE")]
    size: Vec<PdnSize>,
    /// The size of the pictures that the networks read.
    #[arg(long, value_name = "WxH", default_value = "256x256", conflicts_with = "model")]
    image_size: Size,
    /// The device to run on: auto, cpu or cuda:N.
    #[arg(long, value_name = "DEVICE", default_value_t = Device::Auto)]
    device: Device,
    /// The engine: auto, cpu, cuda or reference; may be repeated.
    #[arg(long, value_name = "ENGINE", default_value = "auto")]
    engine: Vec<Engine>,
    /// Runs the CUDA engine with all convolutions in tiles of so many rows and columns, to try out which is best.
    #[arg(long, value_name = "RxC", conflicts_with = "engine")]
    tile: Option<Size>,
    /// Also tells how far each engine's maps are from those of this one.
    #[arg(long, value_name = "ENGINE")]
    against: Option<Engine>,
    /// Threads on the CPU; 0 takes every core.
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    /// Pictures handed over at once.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    batch: u16,
    /// Batches to measure, after three that warm up.
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    frames: u32,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

const WARM_UP: usize = 3;

#[derive(Serialize)]
struct Report {
    threads: usize,
    peak_gflops: f64,
    results: Vec<Measured>,
}

#[derive(Serialize)]
struct Measured {
    engine: String,
    model: String,
    input: String,
    batch: u16,
    frames: u32,
    latency_ms: Latency,
    pictures_per_second: f64,
    gflops: f64,
    share_of_peak: Option<f64>,
    peak_rss_mib: Option<f64>,
    /// Of the picture whose map is the worst: |map − other's map| / |other's map|.
    distance: Option<f64>,
}

/// Of one batch, in milliseconds.
#[derive(Serialize)]
struct Latency {
    min: f64,
    p50: f64,
    p99: f64,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    let options = Options { device: args.device, threads: args.threads, ..Options::default() };
    if let Some((key, fault)) = options.faults().into_iter().next() {
        return Err(UsageError(format!("--{key}: {fault}")).into());
    }
    let threads = options.thread_count();
    let peak_gflops = measure::cpu_peak_gflops(threads);
    let mut out = io::stdout().lock();
    if !args.json {
        writeln!(out, "{threads} threads, measured peak {peak_gflops:.0} GFLOP/s")?;
    }
    let mut results = Vec::new();
    for model in models(&args)? {
        let maps = args.against.map(|engine| yardstick(&args, &model, engine)).transpose()?;
        for &engine in &args.engine {
            let mut inspector = match args.tile {
                Some(tile) => tiled(&model, tile, args.device)?,
                None => open_engine(&model, &Options { engine, ..options.clone() })?,
            };
            let mut measured = measure(&args, &model, inspector.as_mut(), peak_gflops)?;
            if let Some(expected) = &maps {
                let got = maps_of(&args, inspector.as_mut())?;
                measured.distance =
                    Some(got.iter().zip(expected).map(|(a, b)| distance(a, b)).fold(0.0, f64::max));
            }
            if !args.json {
                writeln!(out, "{}", line(&measured))?;
            }
            results.push(measured);
        }
    }
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&Report { threads, peak_gflops, results })?)?;
    }
    Ok(())
}

/// The bundle, or models of the sizes asked for, made one at a time since PDN-M is large.
fn models(args: &Args) -> anyhow::Result<Box<dyn Iterator<Item = CalibratedModel>>> {
    if let Some(path) = &args.model {
        return Ok(Box::new(std::iter::once(CalibratedModel::load(path)?)));
    }
    let sizes = match args.size.as_slice() {
        [] => vec![PdnSize::Tiny, PdnSize::Small, PdnSize::Medium],
        sizes => sizes.to_vec(),
    };
    let architectures = sizes.into_iter().map(|size| Architecture::new(size, args.image_size));
    let architectures: Vec<_> =
        architectures.collect::<Result<_, _>>().map_err(|e| UsageError(e.to_string()))?;
    Ok(Box::new(architectures.into_iter().map(|architecture| untrained::model(&architecture, 1))))
}

/// The CUDA engine in one kind of tiles.
fn tiled(model: &CalibratedModel, tile: Size, device: Device) -> anyhow::Result<Box<dyn Inspector>> {
    let ordinal = if let Device::Cuda(n) = device { n } else { 0 };
    let mut engine = Cuda::new(model, ordinal)?;
    // Sizes are written with the width first, tiles with their rows.
    engine
        .use_tile(tile.width as usize, tile.height as usize)
        .map_err(|e| UsageError(format!("--tile: {e}")))?;
    Ok(Box::new(engine))
}

/// The maps that `--against` asks for, by an engine on the CPU.
fn yardstick(args: &Args, model: &CalibratedModel, engine: Engine) -> anyhow::Result<Vec<AnomalyMap>> {
    let options = Options { device: Device::Cpu, engine, threads: args.threads };
    if let Some((key, fault)) = options.faults().into_iter().next() {
        return Err(UsageError(format!("--against: {key}: {fault}")).into());
    }
    maps_of(args, open_engine(model, &options)?.as_mut())
}

fn pictures(args: &Args, input: Size) -> Vec<Picture> {
    (0..args.batch).map(|i| untrained::picture(input, u64::from(i) + 1)).collect()
}

fn maps_of(args: &Args, engine: &mut dyn Inspector) -> anyhow::Result<Vec<AnomalyMap>> {
    let pictures = pictures(args, engine.input());
    Ok(engine.infer(&pictures.iter().collect::<Vec<_>>())?)
}

/// |a − b| / |b|.
fn distance(a: &AnomalyMap, b: &AnomalyMap) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let difference = norm(&mut a.values.iter().zip(&b.values).map(|(a, b)| f64::from(a - b)));
    difference / norm(&mut b.values.iter().map(|&v| f64::from(v))).max(f64::MIN_POSITIVE)
}

fn measure(
    args: &Args,
    model: &CalibratedModel,
    engine: &mut dyn Inspector,
    peak_gflops: f64,
) -> anyhow::Result<Measured> {
    let (pictures, input) = (pictures(args, engine.input()), engine.input());
    let batch: Vec<&Picture> = pictures.iter().collect();
    let mut times = Vec::with_capacity(args.frames as usize);
    for i in 0..WARM_UP + args.frames as usize {
        let began = Instant::now();
        for both in engine.infer_enlarged(&batch, input).context("the engine cannot be measured")? {
            std::hint::black_box(both.highest);
        }
        if i >= WARM_UP {
            times.push(began.elapsed().as_secs_f64() * 1e3);
        }
    }
    let pictures_per_second = 1e3 * times.len() as f64 * f64::from(args.batch) / times.iter().sum::<f64>();
    times.sort_by(f64::total_cmp);
    let at = |q: f64| times[((times.len() as f64 * q) as usize).min(times.len() - 1)];
    let latency_ms = Latency { min: times[0], p50: at(0.5), p99: at(0.99) };
    let architecture = model.architecture();
    let operations = 2.0 * measure::multiply_accumulates(architecture) as f64 * f64::from(args.batch);
    let gflops = operations / latency_ms.p50 / 1e6;
    let name = engine.describe();
    let on_cpu = name.starts_with("CPU") || matches!(args.device, Device::Cpu);
    Ok(Measured {
        engine: name,
        model: architecture.size.to_string(),
        input: architecture.input.to_string(),
        batch: args.batch,
        frames: args.frames,
        latency_ms,
        pictures_per_second,
        gflops,
        share_of_peak: on_cpu.then_some(gflops / peak_gflops),
        peak_rss_mib: peak_rss_mib(),
        distance: None,
    })
}

fn line(m: &Measured) -> String {
    let Latency { min, p50, p99 } = m.latency_ms;
    let share = m.share_of_peak.map_or(String::new(), |s| format!(" ({:.0} % of peak)", 100.0 * s));
    let distance = m.distance.map_or(String::new(), |d| format!(", maps {d:.1e} apart"));
    let rss = m.peak_rss_mib.map_or(String::new(), |mib| format!(", peak memory {mib:.0} MiB"));
    format!(
        "{:6} {} batch {}: p50 {p50:.2} ms, p99 {p99:.2} ms, min {min:.2} ms, {:.1} pictures/s, {:.0} GFLOP/s{share}{rss}{distance}  [{}]",
        m.model, m.input, m.batch, m.pictures_per_second, m.gflops, m.engine
    )
}

/// The most memory this process has held, where the system tells.
fn peak_rss_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}

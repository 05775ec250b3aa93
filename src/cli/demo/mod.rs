//! `inspectord demo`: the whole daemon with nothing to set up.
//!
//! A simulated line instead of a camera, a model that ships with the program, a broker inside the program unless one is
//! named. Everything else is the real thing: [`Service`]. Not here: the line's drawings (`camera`), the broker
//! (`publish`).

mod score_card;
mod screen;

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;

use self::score_card::ScoreCard;
use self::screen::{Screen, Signposts};
use super::report::UsageError;
use super::shipped;
use crate::camera::{self, DatasetCounts, SimulatedOptions};
use crate::detector::{self, Detector};
use crate::efficientad::CalibratedModel;
use crate::frame::{CameraId, Planted, Size};
use crate::imaging::View;
use crate::pipeline::{
    BoxedError, CaptureMode, Keepers, LinePlan, Observer, Service, ServicePlan, Views, WhenFull,
};
use crate::publish;
use crate::publish::broker::Broker;
use crate::shutdown::Shutdown;
use crate::store;
use crate::verdict::Judgement;
use crate::web;

const BOX: &str = "demo";
const CAMERA: &str = "line";
/// The embedded broker's port, where it is free; the usual one, so that subscribers need not name it.
const PORT: u16 = 1883;

/// Shows everything at work: a simulated line, a shipped model, a broker of its own.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  inspectord demo
  inspectord demo --parts 100 --rate 0      a hundred parts as fast as this box can
  inspectord demo --broker localhost:1883   verdicts to a broker of yours
  inspectord demo --write-data ./flanges    a labelled data set of the line's parts")]
pub struct Args {
    /// Ends after this many parts; 0 goes on until Ctrl-C.
    #[arg(long, value_name = "N", default_value_t = 0)]
    parts: u64,
    /// Parts per second; 0 makes them as fast as they can be inspected.
    #[arg(long, value_name = "PARTS", default_value_t = 4.0)]
    rate: f64,
    /// The share of parts with a planted defect, 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.08)]
    defect_rate: f64,
    /// Which line: the same seed draws the same parts with the same defects.
    #[arg(long, value_name = "N", default_value_t = 7)]
    seed: u64,
    /// Publishes to this broker instead of the embedded one.
    #[arg(long, value_name = "HOST[:PORT]")]
    broker: Option<String>,
    /// Where verdicts and evidence are kept; they stay after the end.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Writes a labelled data set of the line's parts instead, to try `train` and `evaluate` with.
    #[arg(long, value_name = "DIR")]
    write_data: Option<PathBuf>,
}

/// Normal parts to train on, and parts to test with, in a data set of the line.
const DATA: DatasetCounts = DatasetCounts { train: 240, good: 60, per_defect: 15, size: Size::new(320, 320) };

/// Runs the command.
///
/// # Errors
/// The store's folder cannot be used, or the model cannot be run.
pub fn run(args: Args) -> anyhow::Result<()> {
    if let Some(folder) = &args.write_data {
        camera::write_dataset(folder, args.seed, &DATA)?;
        let (train, folder) = (DATA.train, folder.display());
        writeln!(
            io::stdout(),
            "{train} normal parts to train on, and parts to evaluate with, are in {folder}"
        )?;
        return Ok(());
    }
    let source = args.source()?;
    let named = args.broker.as_deref().map(named_broker).transpose()?;
    let shutdown = crate::cli::signals::shutdown()?;
    let store = args.store.clone().unwrap_or_else(|| std::env::temp_dir().join("inspectord-demo"));
    let model = shipped::demo_model()?;
    let (mqtt, embedded) = match named {
        Some(mqtt) => (mqtt, None),
        None => {
            let broker = EmbeddedBroker::start()?;
            (broker.options(), Some(broker))
        }
    };
    let page = page_options();
    let detector = Detector::open(model.clone(), &detector::Options::default())?;
    let screen = Arc::new(Screen::new());
    screen.welcome(&Signposts {
        broker: format!("{}:{}", mqtt.host, mqtt.port()),
        embedded: embedded.is_some(),
        prefix: &mqtt.prefix(BOX),
        store: &store,
        page: page.address,
        engine: detector.describe(),
        model: detector.model().name.clone(),
        program: std::env::args().next().unwrap_or_else(|| "inspectord".into()),
    });
    drop(detector);
    let card = Arc::new(Mutex::new(ScoreCard::default()));
    let plan = plan(source, model, (&store, mqtt), observer(card.clone(), screen.clone()))?;
    let service = Service::start(plan)?;
    let (service, web) = service.beside(|service| super::run::serve(&page, BOX.to_owned(), service))?;
    service.run(&shutdown, args.parts > 0);
    let unpublished = service.stop();
    drop((web, embedded));
    let published = match unpublished {
        0 => "Every verdict is on disk and acknowledged by the broker.".to_owned(),
        waiting => {
            format!("{waiting} verdicts are on disk and wait for the broker; the next start publishes them.")
        }
    };
    screen.farewell(&card.lock().unwrap_or_else(PoisonError::into_inner), &published, &store);
    Ok(())
}

/// The page's usual address where it is free, otherwise another.
fn page_options() -> web::Options {
    let free = |address: SocketAddr| TcpListener::bind(address).and_then(|socket| socket.local_addr()).ok();
    let usual = web::Options::default();
    let address = free(usual.address).or_else(|| free((Ipv4Addr::LOCALHOST, 0).into()));
    web::Options { address: address.unwrap_or(usual.address), ..usual }
}

fn observer(card: Arc<Mutex<ScoreCard>>, screen: Arc<Screen>) -> Observer {
    Arc::new(move |judgement: &Judgement, planted: Option<&Planted>| {
        let mut card = card.lock().unwrap_or_else(PoisonError::into_inner);
        let mark = card.count(judgement.outcome.decision(), planted.unwrap_or(&Planted::Normal));
        screen.part(card.parts(), judgement, &mark);
    })
}

impl Args {
    /// The line that is asked for.
    fn source(&self) -> Result<camera::Options, UsageError> {
        let source = camera::Options::Simulated(SimulatedOptions {
            seed: self.seed,
            rate: self.rate,
            defect_rate: self.defect_rate,
            parts: self.parts,
            ..SimulatedOptions::default()
        });
        match source.faults().into_iter().next() {
            Some((key, fault)) => Err(UsageError(format!("--{}: {fault}", key.replace('_', "-")))),
            None => Ok(source),
        }
    }
}

fn plan(
    source: camera::Options,
    model: CalibratedModel,
    (store, mqtt): (&Path, publish::Options),
    observer: Observer,
) -> anyhow::Result<ServicePlan> {
    let camera: CameraId = CAMERA.parse().context("the demo's camera has an illegal name: this is a bug")?;
    let open_detector = Box::new(move || -> Result<Detector, BoxedError> {
        Ok(Detector::open(model.clone(), &detector::Options::default())?)
    });
    let mode = CaptureMode::Free { when_full: WhenFull::Wait };
    let line = LinePlan {
        open_camera: camera::opener(camera.clone(), source),
        camera,
        view: View::default(),
        mode,
        views: Views::default(),
        deadline: None,
        golden_every: None,
        open_detector,
    };
    Ok(ServicePlan {
        box_name: BOX.to_owned(),
        lines: vec![line],
        store: store::Options { path: store.to_owned(), ..store::Options::default() },
        mqtt: Some(mqtt),
        observer: Some(observer),
        keepers: Keepers::default(),
    })
}

/// `HOST`, `HOST:PORT`, or an IPv6 address, in brackets where a port follows.
fn named_broker(address: &str) -> Result<publish::Options, UsageError> {
    let plain = |text: &str| text.trim_start_matches('[').trim_end_matches(']').to_owned();
    let (host, port) = match address.rsplit_once(':') {
        _ if plain(address).parse::<Ipv6Addr>().is_ok() => (plain(address), None),
        Some((host, port)) => match port.parse() {
            Ok(port) => (plain(host), Some(port)),
            Err(_) => return Err(UsageError(format!("--broker: `{port}` is no port number"))),
        },
        None => (address.to_owned(), None),
    };
    let options = publish::Options { host, port, ..publish::Options::default() };
    match options.faults().into_iter().next() {
        Some((_, fault)) => Err(UsageError(format!("--broker: {fault}"))),
        None => Ok(options),
    }
}

/// The broker inside this program, on a thread of its own, until it is dropped.
struct EmbeddedBroker {
    port: u16,
    stop: Shutdown,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl EmbeddedBroker {
    fn start() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the embedded broker")?;
        let broker = runtime.block_on(async {
            match Broker::bind((Ipv4Addr::LOCALHOST, PORT).into()).await {
                Ok(broker) => Ok(broker),
                Err(_taken) => Broker::bind((Ipv4Addr::LOCALHOST, 0).into()).await,
            }
        });
        let broker = broker.context("cannot listen on 127.0.0.1; name a broker with --broker")?;
        let port = broker.local_addr().port();
        let stop = Shutdown::new();
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name("embedded broker".into())
            .spawn(move || runtime.block_on(broker.run(stopped)))
            .context("cannot start the embedded broker")?;
        Ok(Self { port, stop, thread: Some(thread) })
    }

    fn options(&self) -> publish::Options {
        publish::Options {
            host: "127.0.0.1".into(),
            port: Some(self.port),
            back_off_min_ms: 10,
            ..publish::Options::default()
        }
    }
}

impl Drop for EmbeddedBroker {
    fn drop(&mut self) {
        self.stop.request();
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_named_by_host_and_perhaps_port() {
        for (address, host, port) in [
            ("plant", "plant", None),
            ("plant:1884", "plant", Some(1884)),
            ("::1", "::1", None),
            ("[::1]", "::1", None),
            ("[fd00::7]:1884", "fd00::7", Some(1884)),
        ] {
            let options = named_broker(address).unwrap();
            assert_eq!((options.host.as_str(), options.port), (host, port), "{address}");
        }
        for wrong in ["h:abc", "h:70000", "", ":1883"] {
            assert!(named_broker(wrong).unwrap_err().to_string().contains("--broker"), "{wrong}");
        }
    }
}

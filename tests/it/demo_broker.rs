//! The demo's broker with the clients that newcomers will use, and with the session itself.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use inspectord::publish::broker::{Broker, BrokerError};
use inspectord::publish::{Incoming, Link, Outgoing};
use inspectord::shutdown::Shutdown;
use rumqttc::{LastWill, MqttOptions, QoS};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::mosquitto::PATIENCE;
use crate::session_rig::{Rig, options, verdict};
use crate::subscriber::{Subscriber, eventually};

struct Demo {
    address: SocketAddr,
    shutdown: Shutdown,
    task: JoinHandle<()>,
}

impl Demo {
    async fn start() -> Self {
        let broker = Broker::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let (address, shutdown) = (broker.local_addr(), Shutdown::new());
        let task = tokio::spawn(broker.run(shutdown.clone()));
        Self { address, shutdown, task }
    }

    fn port(&self) -> u16 {
        self.address.port()
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(["-h", "127.0.0.1", "-p", &self.port().to_string()]).args(arguments);
        command
    }

    /// Runs `mosquitto_pub` to its end.
    async fn publish(&self, arguments: &[&str]) {
        let mut command = self.command("mosquitto_pub", arguments);
        let status = tokio::task::spawn_blocking(move || command.status()).await.unwrap();
        assert!(status.unwrap_or_else(|e| panic!("{e}: {INSTALL}")).success());
    }

    fn subscribe(&self, arguments: &[&str]) -> Listener {
        let mut command = self.command("mosquitto_sub", &[&["-v"], arguments].concat());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap_or_else(|e| panic!("{e}: {INSTALL}"));
        let (sender, lines) = mpsc::unbounded_channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Listener { child, lines }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.shutdown.request();
        self.task.abort();
    }
}

const INSTALL: &str = "these tests need mosquitto's clients, `apt-get install mosquitto-clients`";

/// A running `mosquitto_sub`, killed when dropped.
struct Listener {
    child: Child,
    lines: mpsc::UnboundedReceiver<String>,
}

impl Listener {
    async fn line(&mut self) -> String {
        tokio::time::timeout(PATIENCE, self.lines.recv())
            .await
            .expect("no message came")
            .expect("mosquitto_sub ended")
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[tokio::test]
async fn mosquittos_clients_can_use_it() {
    let demo = Demo::start().await;
    demo.publish(&["-t", "a/retained", "-m", "old", "-r", "-q", "1"]).await;
    for quality in ["0", "1", "2"] {
        // The retained message shows that the subscription stands.
        let mut listener = demo.subscribe(&["-q", quality, "-t", "a/+", "-t", "b/#"]);
        assert_eq!(listener.line().await, "a/retained old");
        demo.publish(&["-t", "c/none", "-m", "not for you"]).await;
        demo.publish(&["-t", "a/x", "-m", "zero", "-q", "0"]).await;
        assert_eq!(listener.line().await, "a/x zero");
        demo.publish(&["-t", "b/x/ä", "-m", "one", "-q", "1"]).await;
        assert_eq!(listener.line().await, "b/x/ä one");
    }
    let mut listener = demo.subscribe(&["-c", "-i", "keeper", "-q", "1", "-t", "a/+", "-k", "5"]);
    assert_eq!(listener.line().await, "a/retained old", "persistent sessions are accepted, and not kept");
}

#[tokio::test]
async fn a_session_works_with_it() {
    let demo = Demo::start().await;
    let mut status = demo.subscribe(&["-q", "1", "-t", "inspectord/box/status"]);
    let plc = Subscriber::start(demo.port(), "inspectord/#").await;
    let mut rig = Rig::start(&options(demo.port()), 16);
    assert!(status.line().await.contains("\"online\""));
    for position in 1..=3000 {
        rig.outgoing.send(Outgoing { position, verdict: verdict("top", position) }).await.unwrap();
    }
    rig.acknowledged_to(3000).await;
    let verdicts = plc.wait_for("/verdict", 3000).await;
    assert!(verdicts.iter().zip(1u64..).all(|(v, sequence)| v["sequence"] == sequence));
    plc.wait_for("/alarm", 300).await;
    plc.publish("inspectord/box/top/trigger", "{\"part_id\":\"p\"}").await;
    assert!(matches!(rig.next_incoming().await, Incoming::Trigger { late: false, .. }));
    assert_eq!(rig.link(), Link::Up);
    rig.stop().await;
    assert!(status.line().await.contains("\"stopped\""));
}

#[tokio::test]
async fn a_will_is_published_when_a_client_is_lost_and_only_then() {
    let demo = Demo::start().await;
    let watcher = Subscriber::start(demo.port(), "will/#").await;
    let with_will = |id: &str| {
        let mut options = MqttOptions::new(id, "127.0.0.1", demo.port());
        options.set_last_will(LastWill::new(format!("will/{id}"), "lost", QoS::AtLeastOnce, true));
        options
    };
    let lost = Subscriber::with(with_will("lost"), "x").await;
    let takeover = Subscriber::with(with_will("twice"), "x").await;
    drop(lost);
    eventually("the will", || watcher.count("will/lost") == 1).await;
    demo.publish(&["-t", "y", "-m", "1", "--will-topic", "will/polite"]).await;
    demo.publish(&["-i", "twice", "-t", "y", "-m", "1"]).await;
    eventually("the will of the connection that was taken over", || watcher.count("will/twice") >= 1).await;
    assert_eq!(watcher.count("will/polite"), 0);
    drop(takeover);
}

#[tokio::test]
async fn nobody_outside_this_machine_is_served() {
    let error = Broker::bind("0.0.0.0:0".parse().unwrap()).await.unwrap_err();
    assert!(matches!(error, BrokerError::NotLoopback(_)), "{error}");
    let demo = Demo::start().await;
    let error = Broker::bind(demo.address).await.unwrap_err();
    assert!(matches!(error, BrokerError::Bind { .. }), "{error}");
}

#[tokio::test]
async fn nonsense_ends_its_own_connection_only() {
    let demo = Demo::start().await;
    let watcher = Subscriber::start(demo.port(), "ok").await;
    let connect = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01n";
    let empty: &[u8] = b"";
    for (introduce, bytes) in [
        (
            empty,
            b"GET / HTTP/1.1\r\nHost: 127.0.0.1:1883\r\nUser-Agent: a-browser-that-got-lost/1.0\r\n\r\n"
                .as_slice(),
        ),
        (empty, b"\x10\xff\xff\xff\x7f"),
        (empty, b"\x30\x03\x00\x01a"),
        (connect, b"\x30\xff\xff\xff\x7f"),
        (connect, b"\xf0\x00"),
        (connect, b"\x30\x05\x00\x03a/#"),
        (connect, b"\x82\x02\x00\x01"),
        (connect, b"\xa2\x01\x00"),
        (connect, b"\x34\x05\x00\x01a\x00\x01"),
        (connect, connect),
    ] {
        let mut socket = TcpStream::connect(demo.address).await.unwrap();
        socket.write_all(&[introduce, bytes].concat()).await.unwrap();
        let mut answer = Vec::new();
        // However it ends, it must end.
        let read = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "still connected after {bytes:?}");
    }
    let mut newer = TcpStream::connect(demo.address).await.unwrap();
    newer.write_all(b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01n").await.unwrap();
    let mut answer = [0; 4];
    newer.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, [0x20, 2, 0, 1], "MQTT 5 is refused in words that its clients understand");
    demo.publish(&["-t", "ok", "-m", "1"]).await;
    watcher.wait_for("ok", 1).await;
}

#[tokio::test]
async fn a_client_that_falls_silent_is_let_go() {
    let demo = Demo::start().await;
    let mut socket = TcpStream::connect(demo.address).await.unwrap();
    socket.write_all(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x01\x00\x01s").await.unwrap();
    let mut answer = Vec::new();
    let began = tokio::time::Instant::now();
    tokio::time::timeout(PATIENCE, socket.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1), "it had one and a half seconds");
    assert_eq!(answer, [0x20, 2, 0, 0]);
}

#[tokio::test]
async fn clients_are_limited_in_number() {
    let demo = Demo::start().await;
    let mut open = Vec::new();
    let mut closed = 0;
    for _ in 0..80 {
        let mut socket = TcpStream::connect(demo.address).await.unwrap();
        let introduced = socket.write_all(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00").await;
        let mut answer = [0; 4];
        match introduced.is_ok() && socket.read_exact(&mut answer).await.is_ok() {
            true => open.push(socket),
            false => closed += 1,
        }
    }
    assert_eq!((open.len(), closed), (64, 16));
    open.clear();
    eventually("a place is free again", || {
        let socket = std::net::TcpStream::connect(demo.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        // Nothing comes to one who was let in and has said nothing; the others get an end.
        std::io::Read::read(&mut &socket, &mut [0]).is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock)
    })
    .await;
}

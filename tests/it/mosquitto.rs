//! A real mosquitto on a port of its own, in a folder of its own, killed when dropped.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::subscriber::eventually;

/// How clients may come in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Anybody.
    Open,
    /// Anybody, within the bounds that mosquitto has unless told otherwise: 20 messages under way, 1000 waiting.
    Bounded,
    /// User `box`, password `right`.
    Password,
    /// Anybody, who may publish everything and read triggers only; what else they ask for is silently kept from them.
    TriggersOnly,
    /// Anybody, over TLS, with a certificate for `broker.test` from the authority in [`Mosquitto::ca`].
    Tls,
}

pub(crate) struct Mosquitto {
    folder: TempDir,
    port: u16,
    child: Option<Child>,
}

impl Mosquitto {
    /// Starts one and waits until it answers.
    pub(crate) async fn start(access: Access) -> Self {
        // A port that was free may be taken by another test before mosquitto has it.
        for _ in 0..5 {
            let mut mosquitto = Self { folder: tempfile::tempdir().unwrap(), port: free_port(), child: None };
            mosquitto.configure(access);
            if mosquitto.answers().await {
                return mosquitto;
            }
        }
        panic!("mosquitto does not start: try `mosquitto -c FILE` by hand");
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The authority behind a [`Access::Tls`] broker's certificate.
    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// SIGKILL: nothing is saved, nothing is said.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts it again, on the same port with the same folder.
    pub(crate) async fn run(&mut self) {
        assert!(self.answers().await, "mosquitto ended at once");
    }

    /// Starts it and waits until it answers; `false` when it ends instead.
    async fn answers(&mut self) -> bool {
        assert!(self.child.is_none(), "it runs already");
        let mut command = Command::new(program());
        command
            .arg("-c")
            .arg(self.folder.path().join("mosquitto.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn();
        let child = self.child.insert(child.unwrap_or_else(|e| {
            panic!("cannot start mosquitto ({e}): these tests need it, `apt-get install mosquitto mosquitto-clients`")
        }));
        let mut ended = false;
        eventually("mosquitto answers", || {
            ended = child.try_wait().unwrap().is_some();
            ended || std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok()
        })
        .await;
        if ended {
            self.child = None;
        }
        !ended
    }

    fn configure(&self, access: Access) {
        let folder = self.folder.path();
        // Unlimited, so that a subscriber gets a message before its publisher gets the acknowledgement; otherwise
        // mosquitto, when killed, loses what it has acknowledged, which no client can mend.
        let bounds = match access {
            Access::Bounded => "",
            _ => "max_inflight_messages 0\nmax_queued_messages 0\n",
        };
        let mut config = format!(
            "listener {} 127.0.0.1\n{bounds}persistence true\npersistence_location {}/\n",
            self.port,
            folder.display()
        );
        if is_root() {
            config += "user root\n";
        }
        match access {
            Access::Open | Access::Bounded => config += "allow_anonymous true\n",
            Access::TriggersOnly => {
                let file = folder.join("rules");
                std::fs::write(&file, "topic write #\ntopic read inspectord/+/+/trigger\n").unwrap();
                config += &format!("allow_anonymous true\nacl_file {}\n", file.display());
            }
            Access::Password => {
                let file = folder.join("passwords");
                run("mosquitto_passwd", &["-c", "-b", file.to_str().unwrap(), "box", "right"], folder);
                config += &format!("allow_anonymous false\npassword_file {}\n", file.display());
            }
            Access::Tls => {
                certificates(folder);
                let file = |name: &str| folder.join(name).display().to_string();
                config += &format!(
                    "allow_anonymous true\ncafile {}\ncertfile {}\nkeyfile {}\n",
                    file("ca.pem"),
                    file("broker.pem"),
                    file("broker.key")
                );
            }
        }
        std::fs::write(folder.join("mosquitto.conf"), config).unwrap();
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that nobody listened on a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// An authority, and a certificate from it for `broker.test`.
pub(crate) fn certificates(folder: &Path) {
    std::fs::write(
        folder.join("broker.ext"),
        "subjectAltName=DNS:broker.test\nextendedKeyUsage=serverAuth\n",
    )
    .unwrap();
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let ca = ["req", "-x509", "-days", "30", "-subj", "/CN=Test CA", "-keyout", "ca.key", "-out", "ca.pem"];
    run("openssl", &[&ca[..], &key[..]].concat(), folder);
    let request = ["req", "-new", "-subj", "/CN=broker.test", "-keyout", "broker.key", "-out", "broker.csr"];
    run("openssl", &[&request[..], &key[..]].concat(), folder);
    let sign = ["x509", "-req", "-in", "broker.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
    let out = ["-days", "30", "-extfile", "broker.ext", "-out", "broker.pem"];
    run("openssl", &[&sign[..], &out[..]].concat(), folder);
}

fn run(program: &str, arguments: &[&str], folder: &Path) {
    let output = Command::new(program).args(arguments).current_dir(folder).output();
    let output =
        output.unwrap_or_else(|e| panic!("cannot run {program} ({e}): `apt-get install mosquitto openssl`"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Debian keeps it where only root's path leads.
fn program() -> &'static str {
    if Path::new("/usr/sbin/mosquitto").exists() { "/usr/sbin/mosquitto" } else { "mosquitto" }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

/// Long enough for anything on a busy machine; no test waits for it to pass.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

//! `inspectord distill` through the binary: a teacher comes out, and a run that is killed and resumed makes the same.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use image::{Rgb, RgbImage};
use inspectord::efficientad::{Architecture, PdnSize, Weights, parse_teacher};
use inspectord::frame::Size;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use tempfile::TempDir;

use crate::backbones::Drawn;

const PATIENCE: Duration = Duration::from_secs(300);

struct Workshop {
    folder: TempDir,
}

impl Workshop {
    fn new() -> Self {
        let workshop = Self { folder: tempfile::tempdir().unwrap() };
        write(&workshop.path("backbone.safetensors"), &Drawn::lite0().0);
        let pictures = workshop.path("pictures/below");
        std::fs::create_dir_all(&pictures).unwrap();
        for n in 0..6u32 {
            let picture = RgbImage::from_fn(150, 120, |x, y| {
                let wave = |a: u32, b: u32| ((x * a + y * b) * (n + 2) / 4 % 256) as u8;
                Rgb([wave(3, 1), wave(1, 5), if (x / 17 + y / 11 + n) % 3 == 0 { 220 } else { 30 }])
            });
            picture.save(pictures.join(format!("{n}.png"))).unwrap();
        }
        workshop
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, out: &str, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_inspectord"));
        command.arg("distill").arg("--out").arg(self.path(out));
        let short = ["--size", "tiny", "--batch", "2", "--measured", "4", "--device", "cpu"];
        let side = if more.contains(&"--no-padding") { "128" } else { "64" };
        command
            .args(short)
            .args(["--side", side])
            .args(["--learning-rate", "0.003", "--images"])
            .arg(self.path("pictures"));
        if !more.contains(&"--backbone") {
            command.arg("--backbone").arg(self.path("backbone.safetensors"));
        }
        command.args(more);
        command
    }

    fn run(&self, out: &str, more: &[&str]) -> (bool, String, String) {
        let output = self.command(out, more).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    }

    fn losses(&self, out: &str) -> Vec<(u64, f64)> {
        let text = std::fs::read_to_string(self.path(out).with_extension("loss.csv")).unwrap();
        let line = |line: &str| {
            let mut fields = line.split(',');
            (fields.next().unwrap().parse().unwrap(), fields.next().unwrap().parse().unwrap())
        };
        text.lines().skip(1).map(line).collect()
    }
}

fn write(path: &Path, weights: &Weights) {
    let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let data: Vec<_> = weights.iter().map(|(name, w)| (name, w.dims.clone(), bytes(&w.values))).collect();
    let views =
        data.iter().map(|(name, dims, b)| (*name, TensorView::new(Dtype::F32, dims.clone(), b).unwrap()));
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn wait_until(what: &str, child: &mut Child, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(child.try_wait().unwrap().is_none(), "ended before {what}");
        assert!(began.elapsed() < PATIENCE, "no {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_short_distillation_lowers_the_loss_and_writes_a_teacher() {
    let workshop = Workshop::new();
    let (done, out, err) =
        workshop.run("t.safetensors", &["--steps", "60", "--json", "--note", "pictures: CC0"]);
    assert!(done, "{err}");
    let losses = workshop.losses("t.safetensors");
    let mean = |part: &[(u64, f64)]| part.iter().map(|l| l.1).sum::<f64>() / part.len() as f64;
    let (first, last) = (mean(&losses[..10]), mean(&losses[50..]));
    assert!(last < 0.9 * first, "{first} to {last}");
    assert!(losses.iter().map(|l| l.0).eq(1..=60));

    let last: serde_json::Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!((&last["event"], &last["note"]), (&"done".into(), &"pictures: CC0".into()));
    let architecture = Architecture::new(PdnSize::Tiny, Size::new(256, 256)).unwrap();
    let file = workshop.path("t.safetensors");
    parse_teacher(&file, &fs::read(&file).unwrap(), &architecture).unwrap();
    assert!(!workshop.path("t.safetensors.checkpoint").exists());
}

#[test]
fn a_distillation_goes_on_from_a_teacher_that_is_there() {
    let workshop = Workshop::new();
    let first_loss = |out: &str, more: &[&str]| {
        let (done, said, err) = workshop.run(out, &[&["--no-padding", "--json"], more].concat());
        assert!(done, "{err}");
        let last: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
        (workshop.losses(out)[0].1, last["start"].clone())
    };
    let (fresh, start) = first_loss("t.safetensors", &["--steps", "60"]);
    assert!(start.is_null());
    let teacher = workshop.path("t.safetensors");
    let from = ["--from", teacher.to_str().unwrap(), "--steps", "1"];
    let (taught, start) = first_loss("u.safetensors", &from);
    assert!(taught < 0.9 * fresh, "{fresh} and {taught}");
    assert_eq!(start.as_str().map(str::len), Some(64));
    let small = concat!(env!("CARGO_MANIFEST_DIR"), "/models/teacher-small.safetensors");
    let (done, _, err) = workshop.run("v.safetensors", &["--from", small, "--steps", "1"]);
    assert!(!done && err.contains("conv1"), "{err}");
}

#[test]
fn a_killed_distillation_resumes_to_the_same_teacher() {
    let workshop = Workshop::new();
    let steps = ["--steps", "40", "--checkpoint-seconds", "0"];
    let (done, _, err) = workshop.run("whole.safetensors", &steps);
    assert!(done, "{err}");

    let mut child = workshop
        .command("cut.safetensors", &steps)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let checkpoint = workshop.path("cut.safetensors.checkpoint");
    wait_until("checkpoint", &mut child, || checkpoint.exists());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!workshop.path("cut.safetensors").exists(), "the run was over before it was killed");

    let (done, _, err) = workshop.run("cut.safetensors", &steps);
    assert!(!done && err.contains("--resume"), "{err}");
    let resume = [&steps[..], &["--resume"]].concat();
    let (done, _, err) = workshop.run("cut.safetensors", &[&resume[..], &["--seed", "9"]].concat());
    assert!(!done && err.contains("`seed` was 0 and is 9"), "{err}");
    let (done, _, err) = workshop.run("cut.safetensors", &resume);
    assert!(done, "{err}");

    let read = |name: &str| std::fs::read(workshop.path(name)).unwrap();
    assert!(read("whole.safetensors") == read("cut.safetensors"), "the teachers differ");
    assert_eq!(workshop.losses("whole.safetensors"), workshop.losses("cut.safetensors"));
}

#[test]
fn what_cannot_be_distilled_is_refused_with_the_remedy() {
    let workshop = Workshop::new();
    let refusal = |more: &[&str]| {
        let (done, _, err) = workshop.run("t.safetensors", &[&["--steps", "1"], more].concat());
        assert!(!done);
        err
    };
    let text = workshop.path("text.safetensors");
    std::fs::write(&text, "no weights").unwrap();
    assert!(refusal(&["--backbone", text.to_str().unwrap()]).contains("no safetensors file"));
    let missing = workshop.path("missing");
    assert!(refusal(&["--images", missing.to_str().unwrap()]).contains("missing"));
    let errors = refusal(&["--stretch", "9", "--grey", "2"]);
    assert!(errors.contains("--stretch") && errors.contains("--grey"), "{errors}");
    let output = workshop.command("t.safetensors", &[]).args(["--no-padding"]).output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && errors.contains("--side: 64"), "{errors}");

    let empty = workshop.path("pictures");
    std::fs::remove_dir_all(&empty).unwrap();
    std::fs::create_dir(&empty).unwrap();
    assert!(refusal(&[]).contains("there is no picture in"));
    std::fs::write(empty.join("a.png"), "no picture").unwrap();
    assert!(refusal(&[]).contains("1 of 1 pictures cannot be read"));
}

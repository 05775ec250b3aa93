//! `inspectord cameras`: the cameras that can be opened, and their modes.
//!
//! Out: a list for people, or JSON. Not here: opening them.

use std::fmt::Write as _;
use std::io::{self, Write};

use crate::camera::{self, CameraListing, Mode};

/// Lists the cameras that can be opened: V4L2 with their modes, and GigE Vision and USB3 Vision.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
What stands at the beginning of a line goes into the settings:
  [camera.source]
  kind = \"v4l2\"                         kind = \"genicam\"
  device = \"/dev/v4l/by-id/…\"           camera = \"SERIAL\"

Folders (kind = \"folder\") and the simulated line (kind = \"simulated\") can be opened anywhere and are not listed.")]
pub struct Args {
    /// Prints one JSON array.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    let cameras = camera::list();
    let text = if args.json { format!("{}\n", serde_json::to_string(&cameras)?) } else { table(&cameras) };
    Ok(io::stdout().lock().write_all(text.as_bytes())?)
}

/// A paragraph for each camera, with a line for each format and size.
fn table(cameras: &[CameraListing]) -> String {
    if cameras.is_empty() {
        let built = match camera::HARDWARE {
            [] => "no kind of hardware".to_owned(),
            kinds => kinds.join(" and "),
        };
        return format!(
            "No camera was found, or this program may not see it: a container needs its device or network passed in.\n\
             This program was built for {built}.\n"
        );
    }
    let mut text = String::new();
    for camera in cameras {
        let CameraListing { kind, device, node, name, modes, problem } = camera;
        let kind = format!("{kind:?}").to_lowercase();
        let node = if device == node { String::new() } else { format!(" ({node})") };
        let _infallible = writeln!(text, "{device}{node}  {kind}: {name}");
        if let Some(problem) = problem {
            let _infallible = writeln!(text, "    {problem}");
        }
        let mut lines: Vec<(String, Vec<String>)> = Vec::new();
        for mode in modes {
            let format = format!("{:?}", mode.format).to_lowercase();
            let head = format!("    {format:<6} {:>11}", mode.size.to_string());
            let rate = match mode.interval {
                Mode::UNKNOWN_RATE => "an unknown number of".to_owned(),
                _ => format!("{}", (mode.rate() * 100.0).round() / 100.0),
            };
            match lines.last_mut() {
                Some((last, rates)) if *last == head => rates.push(rate),
                _ => lines.push((head, vec![rate])),
            }
        }
        for (head, rates) in lines {
            let _infallible = writeln!(text, "{head}  {} frames/s", rates.join(", "));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::camera::{CameraKind, V4l2Format};
    use crate::frame::Size;

    #[test]
    fn a_camera_is_listed_with_what_to_write_and_its_modes() {
        let mode = |interval| Mode { format: V4l2Format::Mjpeg, size: Size::new(1920, 1080), interval };
        let camera = CameraListing {
            kind: CameraKind::V4l2,
            device: "/dev/v4l/by-id/usb-Cam".into(),
            node: "/dev/video0".into(),
            name: "Cam".into(),
            modes: vec![mode((1001, 30_000)), mode((1, 15))],
            problem: None,
        };
        let text = table(&[camera]);
        assert_eq!(
            text,
            "/dev/v4l/by-id/usb-Cam (/dev/video0)  v4l2: Cam\n    mjpeg    1920x1080  29.97, 15 frames/s\n"
        );
        assert!(table(&[]).contains("No camera was found"));
    }
}

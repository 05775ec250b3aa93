//! Writing the settings into a camera: after every opening, since a camera that lost its power forgot them.
//!
//! In: an opened camera and what the settings want. Out: the camera ready to stream, or which setting it refuses and what
//! it said. Features come first, in their order, because they may change what the others can be (binning, user sets).

use aravis::PixelFormat;
use aravis::prelude::*;

use super::pixels;
use crate::camera::{Edge, Exposure, FeatureValue, GenicamOptions};

/// Writes everything; the camera is not streaming. Returns the name of the pixel format.
///
/// # Errors
/// The refused setting and the camera's own words.
pub(super) fn write(camera: &aravis::Camera, options: &GenicamOptions) -> Result<&'static str, String> {
    // A camera that was streaming to a program that died refuses most settings until it is stopped.
    let _was_not_streaming = camera.stop_acquisition();
    for (name, value) in options.features.iter() {
        feature(camera, name, value).map_err(|e| refusal(&format!("features: {name}"), value, &e))?;
    }
    let offered = camera.dup_available_pixel_formats().map_err(|e| refusal("format", "auto", &e))?;
    let offered: Vec<u32> = offered.into_iter().filter_map(|number| u32::try_from(number).ok()).collect();
    let format = pixels::choose(&offered, &options.format)?;
    camera
        .set_pixel_format(PixelFormat::from_raw(format))
        .map_err(|e| refusal("format", &options.format, &e))?;
    if let Some(sensor) = options.sensor {
        let [x, y, width, height] =
            [sensor.x, sensor.y, sensor.width, sensor.height].map(|v| i32::try_from(v).unwrap_or(i32::MAX));
        let written = format!("{width}x{height} at ({x}, {y})");
        camera.set_region(x, y, width, height).map_err(|e| refusal("sensor", &written, &e))?;
        let got = camera.region().map_err(|e| refusal("sensor", &written, &e))?;
        if got != (x, y, width, height) {
            return Err(format!(
                "turned `sensor` = {written} into {}x{} at ({}, {}): write what it can do",
                got.2, got.3, got.0, got.1
            ));
        }
    }
    exposure(camera, options)?;
    if let Some(balance) = options.white_balance {
        let _has_no_automatic = camera.set_string("BalanceWhiteAuto", "Off");
        for (channel, ratio) in [("Red", balance.red), ("Blue", balance.blue)] {
            camera
                .set_string("BalanceRatioSelector", channel)
                .and_then(|()| camera.set_float("BalanceRatio", ratio))
                .map_err(|e| refusal("white_balance", ratio, &e))?;
        }
    }
    if camera.is_gv_device() {
        match options.packet_size {
            // Cameras that cannot negotiate keep the size that they have.
            0 => drop(camera.gv_auto_packet_size()),
            size => camera
                .gv_set_packet_size(size.try_into().unwrap_or(i32::MAX))
                .map_err(|e| refusal("packet_size", size, &e))?,
        }
    }
    Ok(pixels::name(format).unwrap_or("?"))
}

fn exposure(camera: &aravis::Camera, options: &GenicamOptions) -> Result<(), String> {
    if let Some(microseconds) = options.exposure_us {
        let _has_no_automatic = camera.set_exposure_time_auto(aravis::Auto::Off);
        camera.set_exposure_time(microseconds).map_err(|e| refusal("exposure_us", microseconds, &e))?;
    }
    if let Some(gain) = options.gain {
        let _has_no_automatic = camera.set_gain_auto(aravis::Auto::Off);
        camera.set_gain(gain).map_err(|e| refusal("gain", gain, &e))?;
    }
    match &options.expose {
        Exposure::Free => {
            // Cameras without triggers have none to clear.
            let _has_no_triggers = camera.clear_triggers();
            if options.rate > 0.0 {
                camera.set_frame_rate(options.rate).map_err(|e| refusal("rate", options.rate, &e))?;
            }
        }
        Exposure::Software => {
            camera.set_trigger("Software").map_err(|e| refusal("expose", "software", &e))?
        }
        Exposure::Line(line) => {
            camera.set_trigger(line).map_err(|e| {
                let sources = camera.dup_available_trigger_sources().unwrap_or_default();
                let sources: Vec<_> = sources.iter().map(|source| source.as_str()).collect();
                format!("{}; its lines are {}", refusal("expose", line, &e), sources.join(", "))
            })?;
            let edge = match options.edge {
                Edge::Rising => "RisingEdge",
                Edge::Falling => "FallingEdge",
                Edge::Any => "AnyEdge",
            };
            camera.set_string("TriggerActivation", edge).map_err(|e| refusal("edge", edge, &e))?;
        }
    }
    Ok(())
}

/// Any feature by its name; a whole number may be meant for a feature that takes fractions, `true` for a command.
fn feature(camera: &aravis::Camera, name: &str, value: &FeatureValue) -> Result<(), glib::Error> {
    match value {
        FeatureValue::Switch(on) => {
            let set = camera.set_boolean(name, *on);
            if *on { set.or_else(|_| camera.execute_command(name)) } else { set }
        }
        FeatureValue::Whole(whole) => {
            camera.set_integer(name, *whole).or_else(|_| camera.set_float(name, *whole as f64))
        }
        FeatureValue::Real(real) => camera.set_float(name, *real),
        FeatureValue::Text(text) => camera.set_string(name, text),
    }
}

fn refusal(key: &str, value: impl std::fmt::Display, error: &glib::Error) -> String {
    format!("refuses `{key}` = {value}: {}", error.message())
}

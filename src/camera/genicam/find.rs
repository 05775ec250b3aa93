//! Finding GigE Vision and USB3 Vision cameras: listing them, and opening one by any of its names.
//!
//! In: what the settings call a camera. Out: Aravis' handle of it, or which cameras there are. Aravis keeps one list for
//! the whole program, hence the lock. Listing asks every network and takes a second.

use std::ffi::{CStr, c_char};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::camera::{CameraError, CameraKind, CameraListing};

/// Held while Aravis' list of cameras is renewed or read.
static LIST: Mutex<()> = Mutex::new(());

/// One camera of Aravis' list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// What Aravis opens it by.
    id: String,
    serial: String,
    /// Its MAC address, or its place on the USB.
    physical: String,
    address: String,
    vendor: String,
    model: String,
    protocol: String,
}

impl Found {
    fn is_called(&self, name: &str) -> bool {
        [&self.id, &self.serial, &self.physical, &self.address].into_iter().any(|known| known == name)
    }

    /// What to write into the settings.
    fn name(&self) -> &str {
        if self.serial.is_empty() { &self.id } else { &self.serial }
    }
}

fn lock() -> MutexGuard<'static, ()> {
    LIST.lock().unwrap_or_else(PoisonError::into_inner)
}

fn found() -> Vec<Found> {
    let _guard = lock();
    // SAFETY: the guard keeps others from renewing the list while its entries are read.
    unsafe { aravis_sys::arv_update_device_list() };
    // SAFETY: as above.
    let count = unsafe { aravis_sys::arv_get_n_devices() };
    let text = |of: unsafe extern "C" fn(u32) -> *const c_char, index: u32| {
        // SAFETY: the index is below the number of devices, and the guard is held.
        let text = unsafe { of(index) };
        if text.is_null() {
            return String::new();
        }
        // SAFETY: Aravis returns a string that ends in zero and stays until the list is renewed.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    };
    let device = |index| Found {
        id: text(aravis_sys::arv_get_device_id, index),
        serial: text(aravis_sys::arv_get_device_serial_nbr, index),
        physical: text(aravis_sys::arv_get_device_physical_id, index),
        address: text(aravis_sys::arv_get_device_address, index),
        vendor: text(aravis_sys::arv_get_device_vendor, index),
        model: text(aravis_sys::arv_get_device_model, index),
        protocol: text(aravis_sys::arv_get_device_protocol, index),
    };
    (0..count).map(device).filter(|found| found.protocol != "V4l2").collect()
}

/// The cameras that can be reached now.
pub(super) fn list() -> Vec<CameraListing> {
    let listing = |found: Found| CameraListing {
        kind: CameraKind::Genicam,
        device: found.name().to_owned(),
        node: found.address.clone(),
        name: format!("{} {}, {}", found.vendor, found.model, found.protocol),
        modes: Vec::new(),
        problem: None,
    };
    found().into_iter().map(listing).collect()
}

/// Opens the camera that `name` means: an address, a serial number, a MAC address, Aravis' id, or the name that was
/// given to it.
///
/// # Errors
/// [`CameraError::NotFound`] with those that there are, or [`CameraError::Unusable`] with why it does not open.
pub(super) fn open(name: &str) -> Result<aravis::Camera, CameraError> {
    let address = name.parse::<IpAddr>().is_ok();
    let there = if address { Vec::new() } else { found() };
    let id = there.iter().find(|found| found.is_called(name)).map_or(name, |found| &found.id);
    let _guard = lock();
    aravis::Camera::new(Some(id)).map_err(|error| {
        let names: Vec<_> = there.iter().map(Found::name).collect();
        let known = there.iter().any(|found| found.is_called(name));
        if known {
            let message = format!("it does not open: {}; only one program can control it at a time", error.message());
            return CameraError::Unusable { name: name.to_owned(), message };
        }
        let hint = match (address, names.is_empty()) {
            (true, _) => format!("no camera answers at this address: {}", error.message()),
            (false, true) => {
                "no camera answers: look at its power, cable and network, and that nothing blocks UDP port 3956".into()
            }
            (false, false) => format!("there are {}", names.join(", ")),
        };
        CameraError::NotFound { name: name.to_owned(), hint }
    })
}

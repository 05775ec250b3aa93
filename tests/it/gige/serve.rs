//! The camera process: Aravis' fake camera, with the pixel formats and features of a real one, a world in front of it, and a
//! line whose signals come over standard input. Runs in a child of the test process and ends with it.

use std::ffi::{CString, c_void};
use std::io::{BufRead, stdin};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use aravis_sys as sys;
use inspectord::camera::part;
use inspectord::frame::Size;

use super::chart::{self, Layout};
use super::{ANSWER, ORDERS, Order, Scene};

/// Names in the GenICam Pixel Format Naming Convention, and Aravis' numbers for them.
const FORMATS: &[(&str, u32)] = &[
    ("Mono8", sys::ARV_PIXEL_FORMAT_MONO_8),
    ("Mono10", sys::ARV_PIXEL_FORMAT_MONO_10),
    ("Mono10Packed", sys::ARV_PIXEL_FORMAT_MONO_10_PACKED),
    ("Mono10p", 0x010a_0046),
    ("Mono12", sys::ARV_PIXEL_FORMAT_MONO_12),
    ("Mono12Packed", sys::ARV_PIXEL_FORMAT_MONO_12_PACKED),
    ("Mono12p", 0x010c_0047),
    ("Mono16", sys::ARV_PIXEL_FORMAT_MONO_16),
    ("BayerRG8", sys::ARV_PIXEL_FORMAT_BAYER_RG_8),
    ("BayerBG8", sys::ARV_PIXEL_FORMAT_BAYER_BG_8),
    ("BayerGR8", sys::ARV_PIXEL_FORMAT_BAYER_GR_8),
    ("BayerGB8", sys::ARV_PIXEL_FORMAT_BAYER_GB_8),
    ("BayerRG10", sys::ARV_PIXEL_FORMAT_BAYER_RG_10),
    ("BayerBG10", sys::ARV_PIXEL_FORMAT_BAYER_BG_10),
    ("BayerGR10", sys::ARV_PIXEL_FORMAT_BAYER_GR_10),
    ("BayerGB10", sys::ARV_PIXEL_FORMAT_BAYER_GB_10),
    ("BayerRG10p", sys::ARV_PIXEL_FORMAT_BAYER_RG_10P),
    ("BayerBG10p", sys::ARV_PIXEL_FORMAT_BAYER_BG_10P),
    ("BayerGR10p", sys::ARV_PIXEL_FORMAT_BAYER_GR_10P),
    ("BayerGB10p", sys::ARV_PIXEL_FORMAT_BAYER_GB_10P),
    ("BayerRG10Packed", sys::ARV_PIXEL_FORMAT_BAYER_RG_10_PACKED),
    ("BayerBG10Packed", sys::ARV_PIXEL_FORMAT_BAYER_BG_10_PACKED),
    ("BayerGR10Packed", sys::ARV_PIXEL_FORMAT_BAYER_GR_10_PACKED),
    ("BayerGB10Packed", sys::ARV_PIXEL_FORMAT_BAYER_GB_10_PACKED),
    ("BayerRG12", sys::ARV_PIXEL_FORMAT_BAYER_RG_12),
    ("BayerBG12", sys::ARV_PIXEL_FORMAT_BAYER_BG_12),
    ("BayerGR12", sys::ARV_PIXEL_FORMAT_BAYER_GR_12),
    ("BayerGB12", sys::ARV_PIXEL_FORMAT_BAYER_GB_12),
    ("BayerRG12p", sys::ARV_PIXEL_FORMAT_BAYER_RG_12P),
    ("BayerBG12p", sys::ARV_PIXEL_FORMAT_BAYER_BG_12P),
    ("BayerGR12p", sys::ARV_PIXEL_FORMAT_BAYER_GR_12P),
    ("BayerGB12p", sys::ARV_PIXEL_FORMAT_BAYER_GB_12P),
    ("BayerRG12Packed", sys::ARV_PIXEL_FORMAT_BAYER_RG_12_PACKED),
    ("BayerBG12Packed", sys::ARV_PIXEL_FORMAT_BAYER_BG_12_PACKED),
    ("BayerGR12Packed", sys::ARV_PIXEL_FORMAT_BAYER_GR_12_PACKED),
    ("BayerGB12Packed", sys::ARV_PIXEL_FORMAT_BAYER_GB_12_PACKED),
    ("RGB8", sys::ARV_PIXEL_FORMAT_RGB_8_PACKED),
    ("BGR8", sys::ARV_PIXEL_FORMAT_BGR_8_PACKED),
    ("YUV422_8", sys::ARV_PIXEL_FORMAT_YUV_422_YUYV_PACKED),
    ("YUV422_8_UYVY", sys::ARV_PIXEL_FORMAT_YUV_422_PACKED),
];

/// Where a camera that speaks GigE Vision keeps the name that its user gave it.
const USER_NAME: u32 = 0xe8;
const WIDTH: u32 = sys::ARV_FAKE_CAMERA_REGISTER_WIDTH as u32;
const HEIGHT: u32 = sys::ARV_FAKE_CAMERA_REGISTER_HEIGHT as u32;
const SOFTWARE_TRIGGER: u32 = 0x30c;

/// What is in front of the camera.
struct World {
    scene: Mutex<Scene>,
    /// Frames that were counted and never sent.
    skipped: AtomicU32,
    /// Frames drawn.
    drawn: AtomicU32,
}

impl World {
    fn picture(&self, size: (u32, u32), layout: Layout, exposure_us: u32) -> Vec<u8> {
        let n = self.drawn.fetch_add(1, Ordering::Relaxed);
        let n = match *self.scene.lock().unwrap() {
            Scene::Chart => return layout.write(size, chart::colour),
            Scene::Frozen => 0,
            Scene::Line => u64::from(n),
        };
        let drawn = part(1, n, Size::new(size.0.max(64), size.1.max(64)), 0.0).0;
        let row = drawn.size().width;
        let light = |v: u8| (u64::from(v) * u64::from(exposure_us) / 10_000).min(255) as u8;
        layout.write(size, |x, y| {
            let at = (y * row + x) as usize * 3;
            [drawn.rgb()[at], drawn.rgb()[at + 1], drawn.rgb()[at + 2]].map(light)
        })
    }
}

unsafe extern "C" fn draw(
    buffer: *mut sys::ArvBuffer,
    world: *mut c_void,
    exposure_us: u32,
    _: u32,
    format: u32,
) {
    // SAFETY: Aravis hands back what it was given, which is never freed.
    let world = unsafe { &*world.cast::<World>() };
    // SAFETY: the buffer is the one that Aravis wants filled.
    let side = |of: unsafe extern "C" fn(*mut sys::ArvBuffer) -> i32| unsafe { of(buffer) } as u32;
    let size = (side(sys::arv_buffer_get_image_width), side(sys::arv_buffer_get_image_height));
    let Some((name, _)) = FORMATS.iter().find(|(_, number)| *number == format) else { return };
    let bytes = world.picture(size, Layout::named(name), exposure_us);
    let mut used = 0;
    // SAFETY: as above.
    let to = unsafe { sys::arv_buffer_get_data(buffer, &mut used) };
    // SAFETY: Aravis made the buffer for a payload of so many rows and columns of this format.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    // SAFETY: as above.
    let id = unsafe { sys::arv_buffer_get_frame_id(buffer) };
    let skipped = u64::from(world.skipped.load(Ordering::Relaxed));
    // SAFETY: as above. Numbers go from 1 to 65535 and begin anew.
    unsafe { sys::arv_buffer_set_frame_id(buffer, (id + skipped + 65_534) % 65_535 + 1) };
}

/// Aravis' own description, with further formats, a line `Line1` and some features that real cameras have. The line has the
/// software trigger's value, so that writing its register is a signal on the line.
fn description(folder: &Path) -> CString {
    // SAFETY: makes a camera that nobody else knows.
    let camera = unsafe { sys::arv_fake_camera_new(c"X".as_ptr()) };
    let mut size = 0;
    // SAFETY: the camera was just made.
    let xml = unsafe { sys::arv_fake_camera_get_genicam_xml(camera, &mut size) };
    // SAFETY: so many bytes are there, for as long as the camera, which is never freed.
    let xml = unsafe { std::slice::from_raw_parts(xml.cast::<u8>(), size) };
    let xml = String::from_utf8_lossy(xml).trim_end_matches('\0').to_owned();
    let entry =
        |name: &str, value: u32| format!("<EnumEntry Name=\"{name}\"><Value>{value}</Value></EnumEntry>");
    let formats: String = FORMATS
        .iter()
        .filter(|(name, _)| !xml.contains(&format!("\"{name}\"")))
        .map(|(name, number)| entry(name, *number))
        .collect();
    let register = |name: &str, at: u32, more: &str| {
        format!(
            "<IntReg Name=\"{name}\"><Address>{at}</Address>{more}<Length>4</Length><AccessMode>RW</AccessMode>\
             <pPort>Device</pPort><Sign>Unsigned</Sign><Endianess>BigEndian</Endianess></IntReg>"
        )
    };
    let more = [
        format!(
            "<Enumeration Name=\"BalanceWhiteAuto\">{}{}<pValue>BalanceAutoRegister</pValue></Enumeration>",
            entry("Off", 0),
            entry("Continuous", 2)
        ),
        register("BalanceAutoRegister", 0x2000, ""),
        format!(
            "<Enumeration Name=\"BalanceRatioSelector\">{}{}<pValue>BalanceSelected</pValue></Enumeration>",
            entry("Red", 0),
            entry("Blue", 1)
        ),
        "<Integer Name=\"BalanceSelected\"><Value>0</Value></Integer>".into(),
        "<Float Name=\"BalanceRatio\"><pValue>BalanceConverter</pValue></Float>\
         <Converter Name=\"BalanceConverter\"><FormulaTo>FROM * 1000</FormulaTo><FormulaFrom>TO / 1000.0</FormulaFrom>\
         <pValue>BalanceRegister</pValue></Converter>"
            .into(),
        register("BalanceRegister", 0x2010, "<pIndex Offset=\"4\">BalanceSelected</pIndex>"),
        "<Boolean Name=\"ReverseX\"><pValue>ReverseXRegister</pValue><OnValue>1</OnValue><OffValue>0</OffValue></Boolean>"
            .into(),
        register("ReverseXRegister", 0x2020, ""),
    ]
    .concat();
    let after = |xml: String, mark: &str, insert: &str| {
        assert!(xml.contains(mark), "Aravis' description has no `{mark}`");
        xml.replacen(mark, &format!("{mark}{insert}"), 1)
    };
    let xml = after(xml, "<DisplayName>Pixel format</DisplayName>", &formats);
    let xml = after(xml, "<DisplayName>Trigger source</DisplayName>", &entry("Line1", 1));
    let xml = after(xml, "<DisplayName>Trigger activation</DisplayName>", &entry("FallingEdge", 1));
    let xml = xml.replacen("<Port Name=\"Device\"", &format!("{more}<Port Name=\"Device\""), 1);
    let path = folder.join("camera.xml");
    std::fs::write(&path, xml).unwrap();
    CString::new(path.to_str().unwrap()).unwrap()
}

#[expect(clippy::print_stderr, reason = "standard error is how the camera answers")]
fn answer(text: impl std::fmt::Display) {
    eprintln!("{ANSWER}{text}");
}

#[test]
#[ignore = "is the process behind the other tests' camera"]
fn a_process_that_is_a_camera() {
    let Ok(order) = std::env::var(ORDERS) else { return };
    let order: Order = serde_json::from_str(&order).unwrap();
    let world: &'static World = Box::leak(Box::new(World {
        scene: Mutex::new(order.scene),
        skipped: AtomicU32::new(0),
        drawn: AtomicU32::new(0),
    }));
    let [address, serial] = [&order.address, &order.serial].map(|text| CString::new(text.as_str()).unwrap());
    let xml = description(Path::new(&order.folder));
    // SAFETY: all three are strings that end in zero.
    let gige = unsafe { sys::arv_gv_fake_camera_new_full(address.as_ptr(), serial.as_ptr(), xml.as_ptr()) };
    // SAFETY: the camera was just made and is never freed.
    let serves = unsafe { sys::arv_gv_fake_camera_is_running(gige) } != 0;
    assert!(serves, "{} port 3956 is taken", order.address);
    // SAFETY: the property is one of that type, and names and values end in zero.
    unsafe {
        glib::gobject_ffi::g_object_set(
            gige.cast(),
            c"gvsp-lost-ratio".as_ptr(),
            f64::from(order.lost) / 1000.0,
            std::ptr::null::<u8>(),
        );
    }
    // SAFETY: as above.
    let camera = unsafe { sys::arv_gv_fake_camera_get_fake_camera(gige) };
    let mut name = [0u8; 16];
    name[..order.user_name.len()].copy_from_slice(order.user_name.as_bytes());
    // SAFETY: sixteen bytes are there, and the world is never freed.
    unsafe {
        sys::arv_fake_camera_write_memory(camera, USER_NAME, 16, name.as_mut_ptr().cast());
        sys::arv_fake_camera_write_register(camera, WIDTH, order.width);
        sys::arv_fake_camera_write_register(camera, HEIGHT, order.height);
        sys::arv_fake_camera_set_fill_pattern(
            camera,
            Some(draw),
            std::ptr::from_ref(world).cast_mut().cast(),
        );
    }
    answer("serving");
    for line in stdin().lock().lines().map_while(Result::ok) {
        let (verb, object) = line.split_once(' ').unwrap_or((&line, ""));
        match verb {
            "skip" => drop(world.skipped.fetch_add(object.parse().unwrap(), Ordering::Relaxed)),
            "show" => *world.scene.lock().unwrap() = serde_json::from_str(object).unwrap(),
            // SAFETY: the camera is never freed.
            "pulse" => unsafe {
                sys::arv_fake_camera_write_register(camera, SOFTWARE_TRIGGER, 1);
            },
            "read" => {
                let mut value = 0;
                // SAFETY: as above.
                unsafe { sys::arv_fake_camera_read_register(camera, object.parse().unwrap(), &mut value) };
                answer(value);
                continue;
            }
            other => panic!("{other} is no order"),
        }
        answer("done");
    }
    // The process that wanted a camera is gone.
    std::process::exit(0);
}

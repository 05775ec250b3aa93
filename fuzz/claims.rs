//! What must hold of any bytes that come from outside: no panic, no bound broken. One claim per way in; the fuzz targets
//! and `tests/it/fuzzed.rs` put them to the test. Uses the public interface only.

use std::path::Path;

use inspectord::efficientad::{Architecture, CalibratedModel, PdnSize, parse_teacher};
use inspectord::frame::{CameraId, Size, check_picture_size};
use inspectord::imaging;
use inspectord::publish::{self, MAX_DEADLINE_MS, MAX_FIELDS, MAX_PART_ID_BYTES, MAX_REQUEST_BYTES};
use inspectord::settings::{MAX_CAMERAS, Settings, Sources};
use inspectord::store::evidence_folder;
use inspectord::verdict::{Trigger, Verdict};
use sha2::{Digest as _, Sha256};

/// Settings: faults are told, and what passes is within its bounds. The last line of the bytes is a flag.
pub(crate) fn settings(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (file, flag) = text.rsplit_once('\n').unwrap_or((&text, ""));
    let path = std::env::temp_dir().join(format!("inspectord-fuzz-{}.toml", std::process::id()));
    std::fs::write(&path, file).expect("the temporary folder takes a file");
    let flags = if flag.is_empty() { Vec::new() } else { vec![flag.to_owned()] };
    let sources = Sources { file: Some(path), environment: Vec::new(), flags };
    match Settings::load(&sources) {
        Ok(settings) => {
            assert!((1..=MAX_CAMERAS).contains(&settings.cameras.len()));
            assert!(settings.store.faults().is_empty() && settings.mqtt.faults().is_empty());
        }
        Err(faults) => assert!(!faults.to_string().is_empty()),
    }
}

/// A model bundle: the first two bytes say where the manifest ends and the tensors begin. The digest is made to fit, since
/// whoever forges a bundle can do that.
pub(crate) fn bundle(bytes: &[u8]) {
    let [low, high, rest @ ..] = bytes else { return };
    let at = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
    let (manifest, tensors) = rest.split_at(at);
    let mut forged = manifest.to_vec();
    if let Ok(mut value) = serde_json::from_slice::<serde_json::Value>(manifest)
        && value.is_object()
    {
        let digest: String = Sha256::digest(tensors).iter().map(|b| format!("{b:02x}")).collect();
        value["tensors_sha256"] = digest.into();
        forged = value.to_string().into_bytes();
    }
    let path = Path::new("fuzzed");
    if let Ok(model) = CalibratedModel::from_bytes(path, &forged, tensors) {
        assert!(model.threshold().0.is_finite());
    }
    if let Ok(architecture) = Architecture::new(PdnSize::Tiny, Size::new(256, 256)) {
        let _may_be_refused = parse_teacher(path, tensors, &architecture);
    }
}

/// Triggers and commands: what is taken is within its bounds and keeps its form; refusals stay short.
pub(crate) fn request(bytes: &[u8]) {
    match publish::read_trigger(bytes) {
        Ok(trigger) => {
            assert!(bytes.len() <= MAX_REQUEST_BYTES && trigger.fields.len() <= MAX_FIELDS);
            assert!(trigger.part_id.as_ref().is_none_or(|id| (1..=MAX_PART_ID_BYTES).contains(&id.len())));
            assert!(trigger.deadline_ms.is_none_or(|ms| (1..=MAX_DEADLINE_MS).contains(&ms)));
            let json = serde_json::to_vec(&trigger).expect("a trigger has a JSON form");
            let again: Trigger = serde_json::from_slice(&json).expect("and is read back");
            assert_eq!(again, trigger);
        }
        Err(refusal) => assert!(refusal.to_string().len() < 2000),
    }
    if let Err(refusal) = publish::read_command(bytes) {
        assert!(refusal.to_string().len() < 2000);
    }
}

/// A recorded verdict: the evidence that it names lies below the store, and its camera's name is safe as a folder's.
pub(crate) fn evidence(bytes: &[u8]) {
    let store = std::env::temp_dir();
    if let Ok(verdict) = serde_json::from_slice::<Verdict>(bytes) {
        if let Some(folder) = evidence_folder(&store, &verdict) {
            assert!(folder.starts_with(&store) && !folder.iter().any(|part| part == ".."));
        }
        let json = serde_json::to_vec(&verdict).expect("a verdict has a JSON form");
        let again: Verdict = serde_json::from_slice(&json).expect("and is read back");
        assert_eq!(again, verdict);
    }
    if let Ok(camera) = String::from_utf8_lossy(bytes).parse::<CameraId>() {
        let name = camera.as_str();
        assert!(!name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0', '+', '#']));
    }
}

/// A picture: what is decoded is whole and within the bounds of pictures.
pub(crate) fn picture(bytes: &[u8]) {
    let _may_be_half_written = imaging::looks_complete(bytes);
    if let Ok(picture) = imaging::decode_bytes(bytes) {
        let size = picture.size();
        assert!(check_picture_size(size).is_ok());
        assert_eq!(picture.rgb().len(), 3 * size.width as usize * size.height as usize);
    }
}

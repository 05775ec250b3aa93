//! The folder camera, over real folders.

use std::collections::HashSet;
use std::path::Path;

use super::*;
use crate::camera::none_judged;

const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes that begin and end as a JPEG, with `mark` in between.
fn picture(mark: &str) -> Vec<u8> {
    [&[0xff, 0xd8, 0xff, 0xe0][..], mark.as_bytes(), &[0xff, 0xd9]].concat()
}

fn drop_in(folder: &Path, name: &str, modified_s: u64) {
    let path = folder.join(name);
    std::fs::write(&path, picture(name)).unwrap();
    let time = std::time::UNIX_EPOCH + Duration::from_secs(modified_s);
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
}

fn camera(folder: &Path, mode: FolderMode, seen: &[Frame]) -> FolderCamera {
    let options =
        FolderOptions { path: folder.to_owned(), mode, look_every_ms: 10, ..FolderOptions::default() };
    let seen: HashSet<_> = seen.iter().filter_map(|frame| Some(frame.source.as_ref()?.key())).collect();
    FolderCamera::open(&"top".parse().unwrap(), &options, &|there| &seen & there).unwrap()
}

/// Asks until a frame comes or the camera says that none will.
fn next(camera: &mut FolderCamera) -> Option<Frame> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        match camera.next(Duration::from_millis(50)).unwrap() {
            Next::Frame(frame) => return Some(*frame),
            Next::Nothing => {}
            Next::End => return None,
        }
    }
    panic!("no frame came");
}

fn name(frame: &Frame) -> &str {
    &frame.source.as_ref().unwrap().name
}

/// Whether `rounds` further looks find nothing.
fn is_quiet(camera: &mut FolderCamera, rounds: usize) -> bool {
    (0..rounds).all(|_| matches!(camera.next(Duration::from_millis(15)).unwrap(), Next::Nothing))
}

#[test]
fn a_replay_goes_by_name_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["b.jpg", "a.jpg", "c.png"] {
        drop_in(folder.path(), file, 1_000);
    }
    std::fs::write(folder.path().join("notes.txt"), "no picture").unwrap();
    std::fs::create_dir(folder.path().join("d.png")).unwrap();
    let mut played = camera(folder.path(), FolderMode::Replay, &[]);
    let frames: Vec<_> = std::iter::from_fn(|| next(&mut played)).collect();
    assert_eq!(frames.iter().map(name).collect::<Vec<_>>(), ["a.jpg", "b.jpg", "c.png"]);
    assert!(matches!(played.next(Duration::ZERO).unwrap(), Next::End));

    let mut resumed = camera(folder.path(), FolderMode::Replay, &frames[..2]);
    assert_eq!(name(&next(&mut resumed).unwrap()), "c.png");
    assert!(next(&mut resumed).is_none());
}

#[test]
fn a_replay_without_end_begins_anew_and_settles_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["a.jpg", "b.jpg"] {
        drop_in(folder.path(), file, 1_000);
    }
    let options = FolderOptions {
        path: folder.path().to_owned(),
        mode: FolderMode::Replay,
        repeat: true,
        ..FolderOptions::default()
    };
    let mut camera = FolderCamera::open(&"top".parse().unwrap(), &options, &none_judged).unwrap();
    let frames: Vec<_> = (0..5).map(|_| next(&mut camera).unwrap()).collect();
    assert!(frames.iter().all(|f| f.source.is_none()));
    std::fs::remove_file(folder.path().join("a.jpg")).unwrap();
    std::fs::remove_file(folder.path().join("b.jpg")).unwrap();
    assert!(std::iter::from_fn(|| next(&mut camera)).count() < 2, "an emptied folder ends the replay");
}

#[test]
fn watched_files_come_once_oldest_first() {
    let folder = tempfile::tempdir().unwrap();
    drop_in(folder.path(), "z.jpg", 1_000);
    drop_in(folder.path(), "b.jpg", 2_000);
    drop_in(folder.path(), "a.jpg", 2_000);
    let mut camera = camera(folder.path(), FolderMode::Watch, &[]);
    let first: Vec<_> = (0..3).map(|_| next(&mut camera).unwrap()).collect();
    assert_eq!(first.iter().map(name).collect::<Vec<_>>(), ["z.jpg", "a.jpg", "b.jpg"]);
    assert!(is_quiet(&mut camera, 5));
    drop_in(folder.path(), "c.jpg", 500);
    assert_eq!(name(&next(&mut camera).unwrap()), "c.jpg");
    // The same name written anew is another file.
    drop_in(folder.path(), "c.jpg", 501);
    assert_eq!(name(&next(&mut camera).unwrap()), "c.jpg");
    assert!(is_quiet(&mut camera, 5));
}

#[test]
fn files_judged_before_a_restart_are_skipped() {
    let folder = tempfile::tempdir().unwrap();
    drop_in(folder.path(), "a.jpg", 1_000);
    drop_in(folder.path(), "b.jpg", 2_000);
    let mut before = camera(folder.path(), FolderMode::Watch, &[]);
    let seen = next(&mut before).unwrap();
    let mut after = camera(folder.path(), FolderMode::Watch, &[seen]);
    assert_eq!(name(&next(&mut after).unwrap()), "b.jpg");
    assert!(is_quiet(&mut after, 5));
}

#[test]
fn a_file_that_still_grows_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("slow.jpg");
    let whole = picture("first half, second half");
    std::fs::write(&path, &whole[..10]).unwrap();
    let mut camera = camera(folder.path(), FolderMode::Watch, &[]);
    camera.doubt = PATIENCE * 1000;
    assert!(is_quiet(&mut camera, 10), "stable but unfinished");
    std::fs::write(&path, &whole).unwrap();
    let frame = next(&mut camera).unwrap();
    assert!(matches!(frame.pixels, Pixels::Encoded(bytes) if bytes == whole));
}

#[test]
fn a_file_that_never_becomes_whole_is_delivered_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("text.png"), "hello").unwrap();
    let mut camera = camera(folder.path(), FolderMode::Watch, &[]);
    camera.doubt = Duration::from_millis(50);
    assert_eq!(name(&next(&mut camera).unwrap()), "text.png");
    assert!(is_quiet(&mut camera, 5));
}

#[test]
fn a_file_too_large_for_a_picture_gets_its_verdict_unread() {
    let folder = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(folder.path().join("huge.png")).unwrap();
    file.set_len(MAX_ENCODED_BYTES + 1).unwrap();
    let mut camera = camera(folder.path(), FolderMode::Watch, &[]);
    let error = failure(&mut camera);
    let CameraError::BadFrame { origin: Some(origin), .. } = error else { panic!("{error}") };
    assert_eq!(origin.name, "huge.png");
    assert!(is_quiet(&mut camera, 5));
}

#[test]
fn a_folder_that_goes_away_for_a_while_is_no_reason_to_forget() {
    let parent = tempfile::tempdir().unwrap();
    let (folder, elsewhere) = (parent.path().join("in"), parent.path().join("away"));
    std::fs::create_dir(&folder).unwrap();
    drop_in(&folder, "a.jpg", 1_000);
    let mut camera = camera(&folder, FolderMode::Watch, &[]);
    assert_eq!(name(&next(&mut camera).unwrap()), "a.jpg");
    std::fs::rename(&folder, &elsewhere).unwrap();
    let error = failure(&mut camera);
    assert!(matches!(error, CameraError::File { .. }), "{error}");
    std::fs::rename(&elsewhere, &folder).unwrap();
    assert!(is_quiet(&mut camera, 5));
    drop_in(&folder, "b.jpg", 1_000);
    assert_eq!(name(&next(&mut camera).unwrap()), "b.jpg");
}

/// Makes `name` a link that the system refuses to follow, also for root: a part of its target is too long for any name.
fn hide(folder: &Path, name: &str) {
    link(folder, name, Path::new(&"x".repeat(300)));
}

/// Makes `name` a link to `target`, without a moment when there is none.
fn link(folder: &Path, name: &str, target: &Path) {
    let made = folder.join("link.tmp");
    std::os::unix::fs::symlink(target, &made).unwrap();
    std::fs::rename(&made, folder.join(name)).unwrap();
}

/// Asks until the camera fails.
fn failure(camera: &mut FolderCamera) -> CameraError {
    let began = Instant::now();
    loop {
        match camera.next(Duration::from_millis(50)) {
            Err(error) => break error,
            Ok(got) => assert!(began.elapsed() < PATIENCE, "{got:?}"),
        }
    }
}

/// A folder and, elsewhere, the files that its links lead to.
fn linked(names: &[&str]) -> (tempfile::TempDir, tempfile::TempDir) {
    let (folder, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for name in names {
        drop_in(files.path(), name, 1_000);
        link(folder.path(), name, &files.path().join(name));
    }
    (folder, files)
}

#[test]
fn a_judged_file_that_cannot_be_looked_at_for_a_while_is_not_judged_again() {
    let (folder, files) = linked(&["a.jpg", "b.jpg"]);
    let mut camera = camera(folder.path(), FolderMode::Watch, &[]);
    for name_of_it in ["a.jpg", "b.jpg"] {
        assert_eq!(name(&next(&mut camera).unwrap()), name_of_it);
    }
    // One of them: the others are watched on.
    hide(folder.path(), "a.jpg");
    assert!(is_quiet(&mut camera, 5));
    drop_in(folder.path(), "c.jpg", 1_000);
    assert_eq!(name(&next(&mut camera).unwrap()), "c.jpg");
    link(folder.path(), "a.jpg", &files.path().join("a.jpg"));
    assert!(is_quiet(&mut camera, 5));
    // All of them: that is told.
    for name in ["a.jpg", "b.jpg", "c.jpg"] {
        hide(folder.path(), name);
    }
    let error = failure(&mut camera);
    assert!(matches!(error, CameraError::File { .. }), "{error}");
    for name in ["a.jpg", "b.jpg"] {
        link(folder.path(), name, &files.path().join(name));
    }
    assert!(is_quiet(&mut camera, 5));
}

#[test]
fn a_file_that_could_not_be_looked_at_when_the_folder_was_opened_is_asked_after_when_it_can() {
    let (folder, files) = linked(&["a.jpg", "b.jpg"]);
    let mut before = camera(folder.path(), FolderMode::Watch, &[]);
    let seen = [next(&mut before).unwrap(), next(&mut before).unwrap()];
    hide(folder.path(), "a.jpg");
    let mut after = camera(folder.path(), FolderMode::Watch, &seen);
    assert!(is_quiet(&mut after, 5));
    link(folder.path(), "a.jpg", &files.path().join("a.jpg"));
    let error = failure(&mut after);
    assert!(matches!(error, CameraError::Lost { .. }) && error.to_string().contains("a.jpg"), "{error}");
    assert!(is_quiet(&mut camera(folder.path(), FolderMode::Watch, &seen), 5));
}

#[test]
fn a_replay_passes_over_no_file_that_cannot_be_looked_at() {
    let (folder, files) = linked(&["a.jpg", "b.jpg"]);
    hide(folder.path(), "b.jpg");
    let opened = |seen: &[Frame]| {
        let seen: HashSet<_> = seen.iter().map(|frame| frame.source.as_ref().unwrap().key()).collect();
        let (path, mode) = (folder.path().to_owned(), FolderMode::Replay);
        let options = FolderOptions { path, mode, ..FolderOptions::default() };
        FolderCamera::open(&"top".parse().unwrap(), &options, &|there| &seen & there)
    };
    let error = opened(&[]).err().unwrap().to_string();
    assert!(error.contains("b.jpg"), "{error}");
    link(folder.path(), "b.jpg", &files.path().join("b.jpg"));
    let mut played = opened(&[]).unwrap();
    hide(folder.path(), "b.jpg");
    assert!(matches!(failure(&mut played), CameraError::File { .. }));
    link(folder.path(), "b.jpg", &files.path().join("b.jpg"));
    let mut played = opened(&[]).unwrap();
    assert_eq!(std::iter::from_fn(|| next(&mut played)).count(), 2);
}

#[test]
fn links_to_nothing_and_in_a_circle_are_no_files() {
    let folder = tempfile::tempdir().unwrap();
    link(folder.path(), "nothing.jpg", Path::new("nowhere"));
    link(folder.path(), "circle.jpg", Path::new("circle.jpg"));
    for mode in [FolderMode::Watch, FolderMode::Replay] {
        let mut camera = camera(folder.path(), mode, &[]);
        for _ in 0..5 {
            let next = camera.next(Duration::from_millis(15)).unwrap();
            assert!(matches!(next, Next::Nothing | Next::End), "{next:?}");
        }
    }
}

#[test]
fn what_cannot_be_watched_is_said_with_its_remedy() {
    let parent = tempfile::tempdir().unwrap();
    let file = parent.path().join("file");
    std::fs::write(&file, "").unwrap();
    for (path, said) in [(parent.path().join("none"), "create it"), (file, "not a folder")] {
        let options = FolderOptions { path, ..FolderOptions::default() };
        let opened = FolderCamera::open(&"top".parse().unwrap(), &options, &none_judged);
        let error = opened.err().unwrap().to_string();
        assert!(error.contains(said) && error.contains("top"), "{error}");
    }
}

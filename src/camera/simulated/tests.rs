//! The simulated line.

use super::*;
use crate::imaging::load;

const SIZE: Size = Size::new(96, 96);

fn white(mask: &Picture) -> usize {
    mask.rgb().iter().step_by(3).filter(|&&v| v == 255).count()
}

#[test]
fn a_part_is_decided_by_its_line_and_number() {
    let of = |seed, n| normal_part(seed, n, SIZE);
    assert_eq!(of(1, 5), of(1, 5));
    assert_ne!(of(1, 5), of(1, 6));
    assert_ne!(of(1, 5), of(2, 5));
}

#[test]
fn every_defect_shows_and_only_there() {
    for kind in DefectKind::ALL {
        for n in 0..12 {
            let (_, mask) = defective_part(3, n, Size::new(160, 160), kind);
            let share = white(&mask) as f64 / (160.0 * 160.0);
            assert!((0.0004..0.12).contains(&share), "{} of part {n}: {share}", kind.name());
        }
    }
}

#[test]
fn the_line_plants_as_many_defects_as_it_is_told_and_every_kind() {
    let kinds: Vec<_> = (0..2000).filter_map(|n| scene::planted(1, n, 0.1)).collect();
    assert!((150..250).contains(&kinds.len()), "{}", kinds.len());
    assert!(DefectKind::ALL.iter().all(|kind| kinds.contains(kind)));
    assert!((0..200).all(|n| scene::planted(1, n, 0.0).is_none() && scene::planted(1, n, 1.0).is_some()));
}

#[test]
fn the_camera_delivers_its_parts_and_ends() {
    let options =
        SimulatedOptions { rate: 0.0, defect_rate: 0.5, size: SIZE, parts: 8, ..Default::default() };
    let mut camera = SimulatedCamera::open(&options);
    for n in 0..8 {
        let Next::Frame(frame) = camera.next(Duration::from_secs(1)).unwrap() else { panic!("no frame {n}") };
        let (picture, planted) = part(options.seed, n, SIZE, 0.5);
        assert_eq!(crate::imaging::decode(&frame.pixels).unwrap(), picture);
        assert_eq!(frame.planted, Some(planted));
    }
    assert!(matches!(camera.next(Duration::ZERO).unwrap(), Next::End));
}

#[test]
fn a_data_set_has_the_layout_of_mvtec_and_overwrites_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let counts = DatasetCounts { train: 2, good: 1, per_defect: 1, size: SIZE };
    write_dataset(folder.path(), 1, &counts).unwrap();
    for path in ["train/good/001.png", "test/good/000.png", "test/burr/000.png"] {
        assert_eq!(load(&folder.path().join(path)).unwrap().size(), SIZE, "{path}");
    }
    assert!(white(&load(&folder.path().join("ground_truth/burr/000_mask.png")).unwrap()) > 0);
    assert!(matches!(write_dataset(folder.path(), 1, &counts), Err(DatasetError::NotEmpty(_))));
}

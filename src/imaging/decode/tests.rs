//! Decoding, against Pillow and against damage.

use proptest::prelude::*;

use super::*;
use crate::imaging::tests::{golden, golden_path};

fn file(name: &str) -> Vec<u8> {
    std::fs::read(golden_path(name)).unwrap()
}

/// The largest difference of two pictures in any channel.
fn difference(a: &Picture, b: &Picture) -> u8 {
    assert_eq!(a.size(), b.size());
    a.rgb().iter().zip(b.rgb()).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

// The files come from `tests/goldens/pictures.py`, written and read by Pillow.
#[test]
fn lossless_formats_read_as_pillow_reads_them() {
    let (rgb, grey) = (golden("rgb.png"), golden("grey.png"));
    for name in ["rgb_lzw.tiff", "rgb.bmp", "alpha.png"] {
        assert_eq!(difference(&golden(name), &rgb), 0, "{name}");
    }
    for name in ["grey16.png", "grey16.tiff"] {
        assert_eq!(difference(&golden(name), &grey), 0, "{name}");
    }
    for name in ["palette.png", "palette.bmp"] {
        assert_eq!(difference(&golden(name), &golden("palette_as_rgb.png")), 0, "{name}");
    }
}

// Decoders may round their inverse transforms and colours differently, by a level or two each.
#[test]
fn jpegs_read_as_pillow_reads_them() {
    for name in ["444", "422", "420", "restarts", "progressive", "optimized"] {
        let (ours, pillows) = (golden(&format!("{name}.jpg")), golden(&format!("{name}_as_rgb.png")));
        assert!(difference(&ours, &pillows) <= 4, "{name}: {}", difference(&ours, &pillows));
    }
    assert!(difference(&golden("grey.jpg"), &golden("grey.png")) < 60);
}

#[test]
fn what_is_not_read_is_named() {
    for (name, what) in [
        ("cmyk.jpg", "CMYK"),
        ("cmyk.tiff", "CMYK"),
        ("float.tiff", "32"),
        ("palette.tiff", "holds a palette"),
        ("jpeg_rgb.tiff", "JPEG inside TIFF"),
        ("jpeg_l.tiff", "JPEG inside TIFF"),
    ] {
        let error = load(&golden_path(name)).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(what), "{error}");
    }
    // The entry for bits a sample: its tag, a short, one of it, 16.
    let mut narrow = file("grey16.tiff");
    let bits = narrow.windows(10).position(|w| w == [2, 1, 3, 0, 1, 0, 0, 0, 16, 0]).unwrap();
    narrow[bits + 8] = 4;
    assert!(decode_bytes(&narrow).unwrap_err().to_string().contains("samples of 4 bits"));
}

#[test]
fn a_jpeg_that_is_damaged_inside_its_tiff_is_no_picture() {
    for name in ["jpeg_rgb.tiff", "jpeg_l.tiff"] {
        let mut bytes = file(name);
        // The strip: from its frame header on, half of it is lost.
        let strip = bytes.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
        let lost = strip + 60..strip + 200;
        bytes[lost].fill(0);
        assert!(decode_bytes(&bytes).is_err(), "{name}");
    }
}

#[test]
fn what_takes_too_much_memory_is_not_called_damaged() {
    let kind = image::error::LimitErrorKind::InsufficientMemory;
    let error = refusal(Format::Png, &ImageError::Limits(image::error::LimitError::from_kind(kind)));
    assert!(error.to_string().contains("save it smaller"), "{error}");
}

#[test]
fn what_is_no_picture_is_called_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let zeros = [0; 100];
    let contents: [(&[u8], &str); 5] = [
        ("Prüfbericht, Seite 1\n".as_bytes(), "a text file"),
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (&zeros, "interrupted copy"),
        (&[1, 2, 3, 0], "something unknown"),
    ];
    for (content, said) in contents {
        let path = folder.path().join("part.png");
        std::fs::write(&path, content).unwrap();
        let error = crate::telemetry::chain(&load(&path).unwrap_err());
        assert!(error.contains("part.png") && error.contains(said), "{error}");
    }
    assert!(matches!(load(folder.path()), Err(LoadError::NotAFile(_))));
    assert!(matches!(load(&folder.path().join("none")), Err(LoadError::File { .. })));
}

#[test]
fn a_picture_of_30000_by_30000_is_refused_on_its_header() {
    let mut png = file("rgb.png");
    png[16..24].copy_from_slice(&[0, 0, 0x75, 0x30, 0, 0, 0x75, 0x30]);
    let mut bmp = file("rgb.bmp");
    bmp[18..26].copy_from_slice(&[0x30, 0x75, 0, 0, 0x30, 0x75, 0, 0]);
    let mut jpeg = file("420.jpg");
    let frame = jpeg.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0x75, 0x30, 0x75, 0x30]);
    let mut tiff = file("grey16.tiff");
    // The values of its entries for width, height and rows per strip.
    for value in [18, 30, 90] {
        tiff[value..value + 2].copy_from_slice(&[0x30, 0x75]);
    }
    for bytes in [png, bmp, jpeg, tiff] {
        let format = Format::of(&bytes).unwrap();
        let error = decode_bytes(&bytes).unwrap_err();
        assert!(error.to_string().contains("30000x30000"), "{format:?}: {error}");
    }
}

#[test]
fn a_file_that_was_cut_off_is_refused_wherever_the_cut_is() {
    for name in ["rgb.png", "rgb.bmp", "rgb_lzw.tiff", "420.jpg", "restarts.jpg", "progressive.jpg"] {
        let bytes = file(name);
        for cut in 0..bytes.len() {
            let Ok(picture) = decode_bytes(&bytes[..cut]) else { continue };
            // The tail of a TIFF may hold nothing that the picture needs.
            assert_eq!(difference(&picture, &golden(name)), 0, "{name} cut at {cut}");
            assert!(name.ends_with("tiff"), "{name} cut at {cut}");
        }
    }
}

proptest! {
    #[test]
    fn damaged_files_never_panic(
        which in 0usize..8,
        at in any::<prop::sample::Index>(),
        noise in prop::collection::vec(any::<u8>(), 1..6),
    ) {
        let names = ["rgb.png", "palette.png", "rgb.bmp", "palette.bmp", "rgb_lzw.tiff", "420.jpg",
            "restarts.jpg", "progressive.jpg"];
        let mut bytes = file(names[which]);
        let at = at.index(bytes.len());
        let end = (at + noise.len()).min(bytes.len());
        bytes[at..end].copy_from_slice(&noise[..end - at]);
        let _either_way = decode_bytes(&bytes);
    }
}

//! Backbones against an independent computation in PyTorch: `tests/goldens/backbones.py` made the file.
//!
//! Tolerance: f32 on both sides, summed in another order and with batch normalisation folded, through up to 90
//! convolutions.

use std::path::Path;

use candle_core::{Device, Tensor};
use inspectord::efficientad::{Backbone, BackboneError, BackboneKind, Describer, Weight, Weights};
use inspectord::frame::{Picture, Size};

use crate::goldens::{hashed, read};

const SIDE: u32 = 64;
const TOLERANCE: f64 = 2e-5;

fn uniform(name: &str, dims: &[usize], [low, high]: [f64; 2]) -> Weight {
    let unit = |i: u32| (hashed(name, i) >> 8) as f32 / (1 << 24) as f32;
    let count = dims.iter().product::<usize>() as u32;
    let values = (0..count).map(|i| low as f32 + unit(i) * (high - low) as f32).collect();
    Weight { dims: dims.to_vec(), values }
}

/// A network's weights, drawn as the generator draws them.
pub(crate) struct Drawn(pub(crate) Weights);

impl Drawn {
    fn conv(&mut self, conv: &str, norm: &str, dims: [usize; 4]) {
        let name = format!("{conv}.weight");
        let bound = f64::from((6.0 / (dims[1] * dims[2] * dims[3]) as f64).sqrt() as f32);
        let weight = uniform(&name, &dims, [-bound, bound]);
        self.0.insert(name, weight);
        let parts = [
            ("running_mean", [-0.2, 0.2]),
            ("running_var", [0.6, 1.6]),
            ("weight", [0.4, 1.0]),
            ("bias", [-0.2, 0.4]),
        ];
        for (part, range) in parts {
            let name = format!("{norm}.{part}");
            let weight = uniform(&name, &dims[..1], range);
            self.0.insert(name, weight);
        }
    }

    pub(crate) fn lite0() -> Self {
        let mut drawn = Self(Weights::new());
        drawn.conv("_conv_stem", "_bn0", [32, 3, 3, 3]);
        let (mut input, mut block) = (32, 0);
        for (repeats, kernel, expand, output) in
            [(1, 3, 1, 16), (2, 3, 6, 24), (2, 5, 6, 40), (3, 3, 6, 80), (3, 5, 6, 112)]
        {
            for _ in 0..repeats {
                let (n, wide) = (format!("_blocks.{block}."), input * expand);
                if expand > 1 {
                    drawn.conv(&format!("{n}_expand_conv"), &format!("{n}_bn0"), [wide, input, 1, 1]);
                }
                drawn.conv(&format!("{n}_depthwise_conv"), &format!("{n}_bn1"), [wide, 1, kernel, kernel]);
                drawn.conv(&format!("{n}_project_conv"), &format!("{n}_bn2"), [output, wide, 1, 1]);
                (input, block) = (output, block + 1);
            }
        }
        drawn
    }

    fn resnet(bottleneck: bool, blocks: [usize; 3], width: usize) -> Self {
        let mut drawn = Self(Weights::new());
        drawn.conv("conv1", "bn1", [64, 3, 7, 7]);
        let mut input = 64;
        for (layer, count) in blocks.into_iter().enumerate() {
            let (inner, outer) = (width << layer, (64 << layer) * if bottleneck { 4 } else { 1 });
            for block in 0..count {
                let n = format!("layer{}.{block}.", layer + 1);
                let shapes = if bottleneck {
                    vec![[inner, input, 1, 1], [inner, inner, 3, 3], [outer, inner, 1, 1]]
                } else {
                    vec![[outer, input, 3, 3], [outer, outer, 3, 3]]
                };
                for (i, dims) in shapes.into_iter().enumerate() {
                    drawn.conv(&format!("{n}conv{}", i + 1), &format!("{n}bn{}", i + 1), dims);
                }
                if block == 0 && (layer > 0 || input != outer) {
                    let dims = [outer, input, 1, 1];
                    drawn.conv(&format!("{n}downsample.0"), &format!("{n}downsample.1"), dims);
                }
                input = outer;
            }
        }
        drawn
    }
}

fn picture() -> Picture {
    let value = |i: u32| (hashed("picture", i) >> 25) + i / 3 % SIDE + i / 3 / SIDE;
    Picture::new(Size::new(SIDE, SIDE), (0..SIDE * SIDE * 3).map(|i| value(i) as u8).collect()).unwrap()
}

fn check(name: &str, part: &str, got: &Tensor) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/backbones.safetensors");
    let expected = read(&file).remove(&format!("{name}.{part}")).unwrap().values;
    let got: Vec<f32> = got.flatten_all().unwrap().to_vec1().unwrap();
    let step = got.len().div_ceil(1500);
    let got: Vec<f32> = got.into_iter().step_by(step).collect();
    assert_eq!(got.len(), expected.len(), "{name}.{part}");
    let square = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum::<f64>();
    let difference = square(&mut got.iter().zip(&expected).map(|(a, b)| a - b));
    let error = (difference / square(&mut expected.iter().copied())).sqrt();
    assert!(error <= TOLERANCE, "{name}.{part}: relative error {error:.1e} above {TOLERANCE:.0e}");
}

fn hold(name: &str, kind: BackboneKind, drawn: Drawn) {
    let backbone = Backbone::new(drawn.0, &Device::Cpu).unwrap();
    assert_eq!(backbone.kind(), kind);
    let x = backbone.input(&[&picture()]).unwrap();
    let [first, second] = backbone.features(&x).unwrap();
    check(name, "first", &first);
    check(name, "second", &second);
    for features in [384, 96] {
        let describer = Describer::new(backbone.clone(), features).unwrap();
        let descriptors = describer.describe(&[&picture(), &picture()]).unwrap();
        assert_eq!(descriptors.dims(), [2, features, 8, 8]);
        check(name, &format!("descriptors_{features}"), &descriptors.narrow(0, 1, 1).unwrap());
    }
}

#[test]
fn efficientnet_lite0_is_pytorchs() {
    hold("efficientnet_lite0", BackboneKind::EfficientNetLite0, Drawn::lite0());
}

#[test]
fn resnets_are_pytorchs() {
    hold("resnet18", BackboneKind::ResNet18, Drawn::resnet(false, [2, 2, 2], 64));
    hold("resnet50", BackboneKind::ResNet50, Drawn::resnet(true, [3, 4, 6], 64));
}

#[test]
fn wide_resnets_are_pytorchs() {
    hold("wide_resnet50", BackboneKind::WideResNet50, Drawn::resnet(true, [3, 4, 6], 128));
    hold("wide_resnet101", BackboneKind::WideResNet101, Drawn::resnet(true, [3, 4, 23], 128));
}

#[test]
fn other_weights_are_refused_by_name() {
    let refusal = |weights: Weights| Backbone::new(weights, &Device::Cpu).unwrap_err().to_string();
    assert!(refusal(Weights::new()).contains("found no f32 or f16 tensor"));

    let mut vgg = Weights::new();
    vgg.insert("features.0.weight", uniform("vgg", &[64, 3, 3, 3], [-1.0, 1.0]));
    assert!(refusal(vgg).contains("expected EfficientNet-Lite0"));

    // ResNet-34 has ResNet-18's blocks, but more of them.
    let deep = Drawn::resnet(false, [3, 4, 6], 64).0;
    assert!(matches!(Backbone::new(deep, &Device::Cpu), Err(BackboneError::Unknown { .. })));

    let mut short = Drawn::lite0().0;
    short.remove("_blocks.7._bn1.running_var");
    let message = refusal(short);
    assert!(
        message.contains("EfficientNet-Lite0") && message.contains("`_blocks.7._bn1.running_var` is missing")
    );

    let mut wrong = Drawn::lite0().0;
    wrong.insert("_blocks.3._depthwise_conv.weight", uniform("w", &[144, 1, 3, 3], [-1.0, 1.0]));
    assert!(refusal(wrong).contains("[144, 1, 5, 5]"));

    let mut damaged = Drawn::lite0().0;
    damaged.insert("_bn0.bias", Weight { dims: vec![32], values: vec![f32::NAN; 32] });
    assert!(refusal(damaged).contains("not finite"));
}

#[test]
fn files_that_hold_no_weights_are_refused_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let refusal = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        Backbone::load(&path, &Device::Cpu).unwrap_err().to_string()
    };
    assert!(refusal("resnet18.pth", b"PK\x03\x04 and more").contains("safetensors.torch.save_file"));
    assert!(refusal("text.safetensors", b"not weights").contains("no safetensors file"));
    let missing = Backbone::load(&folder.path().join("missing"), &Device::Cpu).unwrap_err();
    assert!(missing.to_string().contains("missing"));
    let directory = Backbone::load(folder.path(), &Device::Cpu).unwrap_err();
    assert!(directory.to_string().contains(folder.path().to_str().unwrap()));
}

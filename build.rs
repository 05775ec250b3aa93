//! Compiles the CUDA engine's kernels, where the feature `cuda-inference` asks for them, and training's, where `cuda` does.
//!
//! Out: PTX of training's for candle to load; of the engine's, one image with machine code for each generation of cards since
//! Ampere, and PTX for later ones. Needs `nvcc` of CUDA 12 or 13: from `NVCC`, below `CUDA_HOME` or `CUDA_PATH`, on the
//! path, or in /usr/local/cuda.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const KERNELS: &str = "src/detector/cuda/kernels";
/// What both include.
const SHARED: &str = "src/cuda";
/// Training's, and what their PTX is called.
const TRAINING: [(&str, &str); 2] = [
    ("src/efficientad/ops/cuda/kernels/training.cu", "training.ptx"),
    ("src/training/adam/adam.cu", "adam.ptx"),
];
/// Generations that get machine code; the last one gets PTX, too.
const GENERATIONS: &[&str] = &["80", "86", "89", "90"];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_CUDA_INFERENCE").is_none() {
        return;
    }
    for sources in [KERNELS, SHARED, "src/efficientad/ops/cuda/kernels", "src/training/adam"] {
        println!("cargo:rerun-if-changed={sources}");
    }
    for variable in ["NVCC", "CUDA_HOME", "CUDA_PATH", "NVCC_CCBIN"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    let nvcc = nvcc();
    let version = run(Command::new(&nvcc).arg("--version"), &nvcc);
    let release = version.split("release ").nth(1).and_then(|rest| rest.split(',').next());
    println!("cargo:rustc-env=INSPECTORD_CUDA_TOOLKIT={}", release.unwrap_or("unknown").trim());

    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let mut command = Command::new(&nvcc);
    command.args(["-fatbin", "-O3", "-std=c++17"]);
    for generation in GENERATIONS {
        command.arg(format!("-gencode=arch=compute_{generation},code=sm_{generation}"));
    }
    let last = GENERATIONS[GENERATIONS.len() - 1];
    command.arg(format!("-gencode=arch=compute_{last},code=compute_{last}"));
    // A loop of one turn or none comes of a template's parameter.
    command.arg("-diag-suppress=128");
    command.arg("-o").arg(out.join("kernels.fatbin")).arg(Path::new(KERNELS).join("kernels.cu"));
    run(&mut command, &nvcc);
    if env::var_os("CARGO_FEATURE_CUDA").is_some() {
        let oldest = format!("-arch=compute_{}", GENERATIONS[0]);
        for (source, ptx) in TRAINING {
            let mut command = Command::new(&nvcc);
            command.args(["-ptx", "-O3", "-std=c++17", "-diag-suppress=128", &oldest, "-o"]);
            run(command.arg(out.join(ptx)).arg(source), &nvcc);
        }
    }
}

fn nvcc() -> PathBuf {
    if let Some(nvcc) = env::var_os("NVCC") {
        return nvcc.into();
    }
    let homes = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(env::var_os).map(PathBuf::from);
    let named = homes.map(|home| home.join("bin/nvcc"));
    let on_path = env::var_os("PATH")
        .into_iter()
        .flat_map(|path| env::split_paths(&path).map(|folder| folder.join("nvcc")).collect::<Vec<_>>());
    let usual = ["/usr/local/cuda/bin/nvcc".into(), "/opt/cuda/bin/nvcc".into()];
    let mut candidates = named.chain(on_path).chain(usual);
    candidates.find(|nvcc| nvcc.is_file()).unwrap_or_else(|| {
        panic!(
            "the feature `cuda-inference` needs nvcc of CUDA 12 or 13: install the CUDA toolkit, set CUDA_HOME to where \
             it is, or build without the feature"
        )
    })
}

fn run(command: &mut Command, nvcc: &Path) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("cannot run {}: {e}", nvcc.display()));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{} failed:\n{text}{}",
        nvcc.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

//! The CPU engine layer by layer: PDN-S at 256×256 on every core.
//!
//! `cargo bench --bench cpu_layers`, on a machine that does nothing else; whole detectors are `inspectord bench`'s.

use criterion::{Criterion, criterion_group, criterion_main};
use inspectord::detector::{Cpu, Inspector, Options, untrained};
use inspectord::efficientad::{Architecture, PdnSize};
use inspectord::frame::Size;

fn layers(criterion: &mut Criterion) {
    let architecture = Architecture::new(PdnSize::Small, Size::new(256, 256)).expect("a legal size");
    let mut engine = Cpu::new(&untrained::model(&architecture, 1), Options::default().thread_count());
    let picture = untrained::picture(engine.input(), 1);
    engine.infer(&[&picture]).expect("the picture fits");
    let mut group = criterion.benchmark_group(engine.describe());
    group.sample_size(20);
    for step in engine.steps().to_vec() {
        group.bench_function(format!("{step:?}"), |b| b.iter(|| engine.run_step(step, &picture)));
    }
    group.finish();
}

criterion_group!(benches, layers);
criterion_main!(benches);

//! Sixteen lanes of f32 on whatever the processor has: the vocabulary that every kernel is written in.
//!
//! A [`Kernel`] is written once, generic over [`Simd`], and compiled for each instruction set; [`Isa`] is the proof
//! that the processor has one, so that running a kernel is safe. Not here: the kernels.

#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

/// Lanes of a [`Block`].
pub(super) const LANES: usize = 16;

/// Sixteen neighbouring channels of one position: a cache line, the unit of all the engine's memory.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(64))]
pub(super) struct Block(pub(super) [f32; LANES]);

impl Block {
    pub(super) const ZERO: Self = Self([0.0; LANES]);
}

/// The scalars of `blocks`, in order.
pub(super) fn scalars(blocks: &[Block]) -> &[f32] {
    // SAFETY: a Block is exactly sixteen f32 without padding, and f32 needs less alignment.
    unsafe { std::slice::from_raw_parts(blocks.as_ptr().cast(), blocks.len() * LANES) }
}

/// Arithmetic on a [`Block`]'s worth of lanes held in registers. A value is the proof that the processor can do it.
pub(super) trait Simd: Copy {
    /// The registers that hold a block.
    type V: Copy;
    /// Blocks of output channels that a micro-kernel keeps in registers.
    const GROUP: usize;

    fn splat(self, x: f32) -> Self::V;
    fn load(self, block: &Block) -> Self::V;
    fn store(self, v: Self::V, block: &mut Block);
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a·b + c`
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The larger of `a` and 0.
    fn relu(self, a: Self::V) -> Self::V;
    /// Asks for a block that will be read soon; nothing more than a hint.
    fn prefetch(self, block: &Block) {
        let _no_hint = block;
    }
}

/// Work written once for all instruction sets. `run` must be `#[inline(always)]`, or it is compiled for the plainest.
pub(super) trait Kernel {
    fn run<S: Simd>(self, simd: S);
}

/// An instruction set that this processor has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Isa(Kind);

#[derive(Debug, Clone, Copy)]
enum Kind {
    Portable(portable::Portable),
    #[cfg(target_arch = "x86_64")]
    Avx2(x86::Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(x86::Avx512),
    #[cfg(target_arch = "aarch64")]
    Neon(neon::Neon),
}

impl Isa {
    /// Every instruction set that this processor has and the engine knows, the fastest first.
    pub(crate) fn available() -> Vec<Self> {
        let mut kinds = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            kinds.extend(x86::Avx512::detect().map(Kind::Avx512));
            kinds.extend(x86::Avx2::detect().map(Kind::Avx2));
        }
        #[cfg(target_arch = "aarch64")]
        kinds.extend(neon::Neon::detect().map(Kind::Neon));
        kinds.push(Kind::Portable(portable::Portable));
        kinds.into_iter().map(Self).collect()
    }

    /// The fastest.
    pub(crate) fn best() -> Self {
        Self::available()[0]
    }

    /// Its name, for people.
    pub(crate) fn name(self) -> &'static str {
        match self.0 {
            Kind::Portable(_) => "portable",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2(_) => "AVX2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512(_) => "AVX-512",
            #[cfg(target_arch = "aarch64")]
            Kind::Neon(_) => "NEON",
        }
    }

    /// Blocks of output channels that a micro-kernel keeps in registers: what weights are packed for.
    pub(super) fn group(self) -> usize {
        match self.0 {
            Kind::Portable(_) => portable::Portable::GROUP,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2(_) => x86::Avx2::GROUP,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512(_) => x86::Avx512::GROUP,
            #[cfg(target_arch = "aarch64")]
            Kind::Neon(_) => neon::Neon::GROUP,
        }
    }

    /// How many rows a micro-kernel may keep in registers beside a group, the best first.
    pub(super) fn rows(self) -> &'static [usize] {
        match self.0 {
            Kind::Portable(_) => &[4],
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2(_) => &[6, 5, 4],
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512(_) => &[12, 14, 10, 8, 4],
            #[cfg(target_arch = "aarch64")]
            Kind::Neon(_) => &[6, 5, 4],
        }
    }

    /// Runs `kernel` as it was compiled for this instruction set.
    pub(super) fn run(self, kernel: impl Kernel) {
        match self.0 {
            Kind::Portable(simd) => kernel.run(simd),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2(simd) => simd.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512(simd) => simd.run(kernel),
            #[cfg(target_arch = "aarch64")]
            Kind::Neon(simd) => simd.run(kernel),
        }
    }
}

//! A card in use: memory, streams, graphs and kernels with owners, so that nothing outlives what it needs.
//!
//! Everything here belongs to one engine and thereby to one thread at a time; each entry point makes the card current for
//! the thread that calls. Not here: networks.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_int, c_void};
use std::sync::Arc;

use super::driver::{Address, CudaError, Driver, Handle, call};

// Numbers of cuda.h.
const MULTIPROCESSORS: c_int = 16;
const CAPABILITY_MAJOR: c_int = 75;
const CAPABILITY_MINOR: c_int = 76;
const MOST_SHARED_MEMORY: c_int = 97;
const SHARED_MEMORY: c_int = 8;
const SHARED_MEMORY_FIRST: c_int = 9;
const PER_CENT: c_int = 100;
const NON_BLOCKING: u32 = 1;
const NO_TIMING: u32 = 2;
const CAPTURE_THREAD_LOCAL: c_int = 1;

/// The oldest generation with asynchronous copies and the matrix instruction that the kernels use.
const OLDEST: (i32, i32) = (8, 0);

/// What a card is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CardInfo {
    /// Its number, from 0.
    pub ordinal: usize,
    /// Its maker's name for it.
    pub name: String,
    /// Its generation, such as (9, 0).
    pub capability: (i32, i32),
    /// Bytes of its memory.
    pub memory: u64,
    /// Processors that run blocks of threads.
    pub multiprocessors: usize,
    /// Bytes of shared memory that a block may have.
    pub shared_memory: usize,
    /// The CUDA version that the driver is made for.
    pub driver: (i32, i32),
}

/// One card, with the kernels loaded on it.
pub(super) struct Card {
    driver: Arc<Driver>,
    device: c_int,
    context: Handle,
    module: Handle,
    functions: HashMap<&'static str, Handle>,
    pub(super) info: CardInfo,
}

// SAFETY: the driver may be called from any thread; the handles are not tied to the one that made them.
unsafe impl Send for Card {}
// SAFETY: as above; `functions` is not changed once the card is shared.
unsafe impl Sync for Card {}

/// What the driver says of its card `ordinal`.
pub(super) fn info(driver: &Driver, ordinal: usize) -> Result<CardInfo, CudaError> {
    let (mut device, mut name, mut memory) = (0, [0; 256], 0);
    let number = c_int::try_from(ordinal).unwrap_or(c_int::MAX);
    // Each call below writes to one local variable of the type that cuda.h states, the name within its length.
    call!(driver, cuDeviceGet(&mut device, number))?;
    call!(driver, cuDeviceGetName(name.as_mut_ptr(), 255, device))?;
    call!(driver, cuDeviceTotalMem_v2(&mut memory, device))?;
    let attribute = |which| {
        let mut value = 0;
        call!(driver, cuDeviceGetAttribute(&mut value, which, device)).map(|()| value)
    };
    // SAFETY: the driver ends the name with a zero, as does the array's last element.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
    Ok(CardInfo {
        ordinal,
        name,
        capability: (attribute(CAPABILITY_MAJOR)?, attribute(CAPABILITY_MINOR)?),
        memory: memory as u64,
        multiprocessors: usize::try_from(attribute(MULTIPROCESSORS)?).unwrap_or(1).max(1),
        shared_memory: usize::try_from(attribute(MOST_SHARED_MEMORY)?).unwrap_or(0),
        driver: driver.version()?,
    })
}

impl Card {
    /// The card `ordinal` with the kernels of `image`.
    pub(super) fn open(
        driver: Arc<Driver>,
        ordinal: usize,
        image: &[u8],
        kernels: &[&'static str],
    ) -> Result<Arc<Self>, CudaError> {
        let info = info(&driver, ordinal)?;
        if info.capability < OLDEST {
            let (major, minor) = info.capability;
            let why = format!(
                "its generation is {major}.{minor}, and the engine needs {}.{} or later",
                OLDEST.0, OLDEST.1
            );
            return Err(CudaError::Unfit { card: info.name, why });
        }
        let device = c_int::try_from(ordinal).unwrap_or(c_int::MAX);
        let mut context = std::ptr::null_mut();
        // Writes one handle.
        call!(driver, cuDevicePrimaryCtxRetain(&mut context, device))?;
        let mut card =
            Self { driver, device, context, module: std::ptr::null_mut(), functions: HashMap::new(), info };
        card.load(image, kernels)?;
        Ok(Arc::new(card))
    }

    fn load(&mut self, image: &[u8], kernels: &[&'static str]) -> Result<(), CudaError> {
        self.enter()?;
        // The image is one that nvcc made, which says its own length; it is copied by the call.
        call!(self.driver, cuModuleLoadData(&mut self.module, image.as_ptr().cast()))?;
        for &name in kernels {
            let symbol = CString::new(name).expect("kernels' names hold no zero: this is a bug");
            let mut function = std::ptr::null_mut();
            call!(self.driver, cuModuleGetFunction(&mut function, self.module, symbol.as_ptr()))?;
            self.functions.insert(name, function);
        }
        Ok(())
    }

    /// Makes the card the calling thread's.
    pub(super) fn enter(&self) -> Result<(), CudaError> {
        // The context lives as long as `self`.
        call!(self.driver, cuCtxSetCurrent(self.context))
    }

    /// Lets a kernel have so much shared memory.
    pub(super) fn allow_shared(&self, kernel: &'static str, bytes: usize) -> Result<(), CudaError> {
        if bytes > self.info.shared_memory {
            let why =
                format!("it gives a block {} bytes of shared memory of {bytes}", self.info.shared_memory);
            return Err(CudaError::Unfit { card: self.info.name.clone(), why });
        }
        // The function belongs to the module, which lives as long as `self`. The cache it takes from is of little use here.
        let function = self.functions[kernel];
        call!(self.driver, cuFuncSetAttribute(function, SHARED_MEMORY_FIRST, PER_CENT))?;
        call!(self.driver, cuFuncSetAttribute(function, SHARED_MEMORY, bytes as c_int))
    }

    /// Bytes that are free, and all there are.
    pub(super) fn memory(&self) -> Result<(usize, usize), CudaError> {
        self.enter()?;
        let (mut free, mut total) = (0, 0);
        // Writes two integers.
        call!(self.driver, cuMemGetInfo_v2(&mut free, &mut total))?;
        Ok((free, total))
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        let _gone = self.enter();
        if !self.module.is_null() {
            let _gone = call!(self.driver, cuModuleUnload(self.module));
        }
        let _gone = call!(self.driver, cuDevicePrimaryCtxRelease_v2(self.device));
    }
}

/// Memory of a card.
pub(super) struct Buffer {
    card: Arc<Card>,
    pub(super) address: Address,
    pub(super) bytes: usize,
}

impl Buffer {
    /// So many bytes, of any content.
    pub(super) fn new(card: &Arc<Card>, bytes: usize) -> Result<Self, CudaError> {
        card.enter()?;
        let mut address = 0;
        // Writes one address.
        call!(card.driver, cuMemAlloc_v2(&mut address, bytes.max(1)))?;
        Ok(Self { card: card.clone(), address, bytes })
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // A card that has died frees nothing, and its memory is gone with it.
        let _gone = self.card.enter().and_then(|()| call!(self.card.driver, cuMemFree_v2(self.address)));
    }
}

/// Memory of the machine that a card reads and writes by itself.
pub(super) struct Pinned {
    card: Arc<Card>,
    start: *mut u8,
    bytes: usize,
}

// SAFETY: it is memory of the process, owned by this value.
unsafe impl Send for Pinned {}

impl Pinned {
    /// So many bytes, zero.
    pub(super) fn new(card: &Arc<Card>, bytes: usize) -> Result<Self, CudaError> {
        card.enter()?;
        let mut start: *mut c_void = std::ptr::null_mut();
        // Writes one pointer, to so many bytes.
        call!(card.driver, cuMemHostAlloc(&mut start, bytes.max(1), 0))?;
        // SAFETY: just allocated.
        unsafe { start.cast::<u8>().write_bytes(0, bytes) };
        Ok(Self { card: card.clone(), start: start.cast(), bytes })
    }

    /// The numbers that the card has left here, as many as fit; not to be called while it is at it.
    pub(super) fn floats(&self) -> &[f32] {
        // SAFETY: allocated and zeroed in `new`, aligned as pages are, and any bits make a float.
        unsafe { std::slice::from_raw_parts(self.start.cast(), self.bytes / size_of::<f32>()) }
    }

    /// To be read or written while the card is not at it.
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: allocated and zeroed in `new`, owned by this value.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.bytes) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _gone =
            self.card.enter().and_then(|()| call!(self.card.driver, cuMemFreeHost(self.start.cast())));
    }
}

/// What the card does in order.
pub(super) struct Stream {
    card: Arc<Card>,
    handle: Handle,
}

// SAFETY: as for `Card`.
unsafe impl Send for Stream {}

impl Stream {
    pub(super) fn new(card: &Arc<Card>) -> Result<Self, CudaError> {
        card.enter()?;
        let mut handle = std::ptr::null_mut();
        // Writes one handle.
        call!(card.driver, cuStreamCreate(&mut handle, NON_BLOCKING))?;
        Ok(Self { card: card.clone(), handle })
    }

    /// Until everything is done.
    pub(super) fn wait(&self) -> Result<(), CudaError> {
        call!(self.card.driver, cuStreamSynchronize(self.handle))
    }

    /// What is asked of this stream from now on waits for what was asked of `other` until now.
    pub(super) fn wait_for(&self, other: &Self) -> Result<(), CudaError> {
        let driver = &self.card.driver;
        let mut event = std::ptr::null_mut();
        // The event is made, recorded and waited for before it goes; the driver keeps what is still needed of it.
        call!(driver, cuEventCreate(&mut event, NO_TIMING))?;
        let waited = call!(driver, cuEventRecord(event, other.handle))
            .and_then(|()| call!(driver, cuStreamWaitEvent(self.handle, event, 0)));
        let destroyed = call!(driver, cuEventDestroy_v2(event));
        waited.and(destroyed)
    }

    /// Fills the buffer with zeros.
    pub(super) fn clear(&self, buffer: &Buffer) -> Result<(), CudaError> {
        // The buffer's own length.
        call!(self.card.driver, cuMemsetD8Async(buffer.address, 0, buffer.bytes, self.handle))
    }

    /// Copies to the card; `from` stays as it is until the stream has been waited for.
    pub(super) fn upload(&self, to: &Buffer, from: &mut Pinned, bytes: usize) -> Result<(), CudaError> {
        assert!(bytes <= to.bytes && bytes <= from.bytes, "a copy beyond its ends: this is a bug");
        // Inside both.
        call!(self.card.driver, cuMemcpyHtoDAsync_v2(to.address, from.start.cast(), bytes, self.handle))
    }

    /// Copies from the card; `to` is not touched until the stream has been waited for.
    pub(super) fn download(&self, to: &mut Pinned, from: &Buffer, bytes: usize) -> Result<(), CudaError> {
        assert!(bytes <= to.bytes && bytes <= from.bytes, "a copy beyond its ends: this is a bug");
        // Inside both.
        call!(self.card.driver, cuMemcpyDtoHAsync_v2(to.start.cast(), from.address, bytes, self.handle))
    }

    /// Copies all of `values` to a new buffer, and waits.
    pub(super) fn place(&self, values: &[u8]) -> Result<Buffer, CudaError> {
        let buffer = Buffer::new(&self.card, values.len())?;
        let mut staged = Pinned::new(&self.card, values.len())?;
        staged.bytes().copy_from_slice(values);
        self.upload(&buffer, &mut staged, values.len())?;
        self.wait()?;
        Ok(buffer)
    }

    /// Runs a kernel; `parameters` is the structure that it takes.
    ///
    /// # Safety
    /// The structure is the kernel's own, and what it points to lives until the stream, or the last graph that was made
    /// of this, has been waited for.
    pub(super) unsafe fn launch<P: Copy>(&self, launch: &Launch, parameters: &P) -> Result<(), CudaError> {
        let mut pointers: [*mut c_void; 1] = [std::ptr::from_ref(parameters).cast_mut().cast()];
        let function = self.card.functions[launch.kernel];
        let [x, y] = launch.grid;
        // The driver copies the parameters before it returns.
        call!(
            self.card.driver,
            cuLaunchKernel(
                function,
                x,
                y,
                1,
                launch.threads,
                1,
                1,
                launch.shared,
                self.handle,
                pointers.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        )
    }

    /// Takes down what `work` asks of this stream, and of those that it makes wait for it, instead of doing it.
    pub(super) fn capture(&self, work: impl FnOnce() -> Result<(), CudaError>) -> Result<Graph, CudaError> {
        let driver = &self.card.driver;
        call!(driver, cuStreamBeginCapture_v2(self.handle, CAPTURE_THREAD_LOCAL))?;
        let done = work();
        let mut graph = std::ptr::null_mut();
        // Writes one handle; ends the capture even where the work failed.
        let ended = call!(driver, cuStreamEndCapture(self.handle, &mut graph));
        if let Err(error) = done.and(ended) {
            if !graph.is_null() {
                let _gone = call!(driver, cuGraphDestroy(graph));
            }
            return Err(error);
        }
        let mut executable = std::ptr::null_mut();
        // Writes one handle, made of the graph, which is not needed any more.
        let made = call!(driver, cuGraphInstantiateWithFlags(&mut executable, graph, 0));
        let _gone = call!(driver, cuGraphDestroy(graph));
        made?;
        Ok(Graph { card: self.card.clone(), handle: executable })
    }

    /// Does what the graph holds.
    pub(super) fn run(&self, graph: &Graph) -> Result<(), CudaError> {
        // Both are alive.
        call!(self.card.driver, cuGraphLaunch(graph.handle, self.handle))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _gone = self.card.enter().and_then(|()| call!(self.card.driver, cuStreamDestroy_v2(self.handle)));
    }
}

/// How a kernel is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Launch {
    pub(super) kernel: &'static str,
    pub(super) grid: [u32; 2],
    pub(super) threads: u32,
    /// Bytes of shared memory.
    pub(super) shared: u32,
}

/// Work that was taken down once and is asked for with one call.
pub(super) struct Graph {
    card: Arc<Card>,
    handle: Handle,
}

// SAFETY: as for `Card`.
unsafe impl Send for Graph {}

impl Drop for Graph {
    fn drop(&mut self) {
        let _gone = self.card.enter().and_then(|()| call!(self.card.driver, cuGraphExecDestroy(self.handle)));
    }
}

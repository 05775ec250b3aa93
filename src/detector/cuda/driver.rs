//! The NVIDIA driver's interface, as far as the engine calls it, looked up when first needed.
//!
//! The driver is loaded at run time, so that one program starts on boxes with a card and without. Not here: what is done
//! with it (`card`), and what runs on the card (`kernels/`).

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::path::Path;
use std::sync::Arc;

use libloading::Library;
use thiserror::Error;

/// Where the driver is, by the names that its packages install.
const NAMES: &[&str] = &["libcuda.so.1", "libcuda.so", "nvcuda.dll"];
const OK: c_int = 0;

/// Why a card cannot be used, or no longer.
#[derive(Debug, Error)]
pub enum CudaError {
    /// There is no driver.
    #[error("there is no NVIDIA driver: {0}")]
    NoDriver(String),
    /// The driver is older than what the engine calls.
    #[error("the NVIDIA driver lacks `{0}`: update it to one for CUDA 12 or later")]
    OldDriver(&'static str),
    /// It shows no card.
    #[error(
        "the NVIDIA driver shows no card: none is fitted, or this program may not open it; a service needs \
         `DeviceAllow=char-nvidia rw`, `DeviceAllow=char-nvidia-uvm rw` and `MemoryDenyWriteExecute=no` in its unit"
    )]
    NoCard,
    /// The driver refused a call.
    #[error("{call} failed: {text} (CUDA error {code})")]
    Call {
        /// Which call.
        call: &'static str,
        /// The driver's number for it.
        code: c_int,
        /// The driver's words for it.
        text: String,
    },
    /// The card cannot run the engine.
    #[error("{card} cannot run the engine: {why}")]
    Unfit {
        /// Its name.
        card: String,
        /// What it lacks.
        why: String,
    },
    /// The program was built without kernels.
    #[error("this build has no kernels for NVIDIA cards: use one with the feature `cuda-inference`")]
    NoKernels,
}

/// The driver's number for a machine without cards.
const NO_DEVICE: c_int = 100;
/// And for a card without so much free memory.
const OUT_OF_MEMORY: c_int = 2;

impl CudaError {
    /// Whether it says that nothing here speaks to cards, rather than that one is at fault or hidden.
    pub(super) fn means_no_card(&self) -> bool {
        matches!(self, Self::NoDriver(_))
    }

    /// Whether the card works and is full.
    pub(in crate::detector) fn means_no_room(&self) -> bool {
        matches!(self, Self::Call { code: OUT_OF_MEMORY, .. })
    }
}

/// Whether the kernel has NVIDIA's driver, as far as a service sees of it, whose library may be missing all the same.
pub(super) fn is_loaded() -> bool {
    ["/sys/module/nvidia", "/proc/driver/nvidia"].iter().any(|path| Path::new(path).exists())
}

/// Opaque things of the driver's.
pub(super) type Handle = *mut c_void;
/// An address in a card's memory.
pub(super) type Address = u64;

macro_rules! functions {
    ($($call:ident: fn($($kind:ty),* $(,)?);)*) => {
        /// The driver's functions.
        #[expect(non_snake_case, reason = "they are the driver's own names")]
        pub(super) struct Driver {
            $(pub(super) $call: unsafe extern "C" fn($($kind),*) -> c_int,)*
            /// Keeps the functions where they are.
            _library: Library,
        }

        impl Driver {
            fn look_up(library: Library) -> Result<Self, CudaError> {
                // SAFETY: the types are those of the driver's public header cuda.h, and the library outlives the pointers.
                unsafe {
                    Ok(Self {
                        $($call: *library
                            .get(concat!(stringify!($call), "\0").as_bytes())
                            .map_err(|_| CudaError::OldDriver(stringify!($call)))?,)*
                        _library: library,
                    })
                }
            }
        }
    };
}

functions! {
    cuInit: fn(c_uint);
    cuDriverGetVersion: fn(*mut c_int);
    cuGetErrorString: fn(c_int, *mut *const c_char);
    cuDeviceGetCount: fn(*mut c_int);
    cuDeviceGet: fn(*mut c_int, c_int);
    cuDeviceGetName: fn(*mut c_char, c_int, c_int);
    cuDeviceGetAttribute: fn(*mut c_int, c_int, c_int);
    cuDeviceTotalMem_v2: fn(*mut usize, c_int);
    cuDevicePrimaryCtxRetain: fn(*mut Handle, c_int);
    cuDevicePrimaryCtxRelease_v2: fn(c_int);
    cuCtxSetCurrent: fn(Handle);
    cuMemGetInfo_v2: fn(*mut usize, *mut usize);
    cuModuleLoadData: fn(*mut Handle, *const c_void);
    cuModuleUnload: fn(Handle);
    cuModuleGetFunction: fn(*mut Handle, Handle, *const c_char);
    cuFuncSetAttribute: fn(Handle, c_int, c_int);
    cuMemAlloc_v2: fn(*mut Address, usize);
    cuMemFree_v2: fn(Address);
    cuMemHostAlloc: fn(*mut *mut c_void, usize, c_uint);
    cuMemFreeHost: fn(*mut c_void);
    cuMemsetD8Async: fn(Address, u8, usize, Handle);
    cuMemcpyHtoDAsync_v2: fn(Address, *const c_void, usize, Handle);
    cuMemcpyDtoHAsync_v2: fn(*mut c_void, Address, usize, Handle);
    cuStreamCreate: fn(*mut Handle, c_uint);
    cuStreamDestroy_v2: fn(Handle);
    cuStreamSynchronize: fn(Handle);
    cuStreamWaitEvent: fn(Handle, Handle, c_uint);
    cuEventCreate: fn(*mut Handle, c_uint);
    cuEventRecord: fn(Handle, Handle);
    cuEventDestroy_v2: fn(Handle);
    cuStreamBeginCapture_v2: fn(Handle, c_int);
    cuStreamEndCapture: fn(Handle, *mut Handle);
    cuGraphInstantiateWithFlags: fn(*mut Handle, Handle, u64);
    cuGraphLaunch: fn(Handle, Handle);
    cuGraphExecDestroy: fn(Handle);
    cuGraphDestroy: fn(Handle);
    cuLaunchKernel: fn(
        Handle, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Handle, *mut *mut c_void, *mut *mut c_void,
    );
}

impl Driver {
    /// The machine's driver, ready to be called.
    pub(super) fn load() -> Result<Arc<Self>, CudaError> {
        let mut reason = String::new();
        for name in NAMES {
            match Self::load_from(Path::new(name)) {
                Err(CudaError::NoDriver(why)) if reason.is_empty() => reason = why,
                Err(CudaError::NoDriver(_)) => {}
                other => return other,
            }
        }
        Err(CudaError::NoDriver(reason))
    }

    /// The driver in this file.
    pub(super) fn load_from(path: &Path) -> Result<Arc<Self>, CudaError> {
        // SAFETY: loading the driver runs its initialisers, which is what NVIDIA's own runtime does.
        let library = unsafe { Library::new(path) }.map_err(|e| CudaError::NoDriver(e.to_string()))?;
        let driver = Self::look_up(library)?;
        // SAFETY: takes no pointers.
        driver.check("cuInit", unsafe { (driver.cuInit)(0) })?;
        Ok(Arc::new(driver))
    }

    /// What a call returned, as a result.
    pub(super) fn check(&self, call: &'static str, code: c_int) -> Result<(), CudaError> {
        match code {
            OK => return Ok(()),
            NO_DEVICE => return Err(CudaError::NoCard),
            _ => {}
        }
        let mut text: *const c_char = std::ptr::null();
        // SAFETY: the driver points `text` to a constant string, or leaves it null.
        let text = unsafe {
            (self.cuGetErrorString)(code, &mut text);
            if text.is_null() { None } else { Some(CStr::from_ptr(text).to_string_lossy().into_owned()) }
        };
        Err(CudaError::Call { call, code, text: text.unwrap_or_else(|| "an unknown error".into()) })
    }

    /// The CUDA version that the driver is made for, such as (13, 0).
    pub(super) fn version(&self) -> Result<(i32, i32), CudaError> {
        let mut version = 0;
        // SAFETY: writes one integer.
        self.check("cuDriverGetVersion", unsafe { (self.cuDriverGetVersion)(&mut version) })?;
        Ok((version / 1000, version % 1000 / 10))
    }

    /// How many cards there are.
    pub(super) fn count(&self) -> Result<usize, CudaError> {
        let mut count = 0;
        // SAFETY: writes one integer.
        self.check("cuDeviceGetCount", unsafe { (self.cuDeviceGetCount)(&mut count) })?;
        Ok(usize::try_from(count).unwrap_or(0))
    }
}

/// Calls a function of the driver's and turns its code into a result.
macro_rules! call {
    ($driver:expr, $call:ident($($argument:expr),* $(,)?)) => {
        // SAFETY: see the comment at the use.
        $driver.check(stringify!($call), unsafe { ($driver.$call)($($argument),*) })
    };
}
pub(super) use call;

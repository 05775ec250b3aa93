//! The planned launches on candle's tensors: differentiable operations on a card.
//!
//! All of candle's work on a device is in one stream, so that what is launched later sees what was launched before, and memory that is
//! given back is used again only after. Not here: what is launched (`layer` and its neighbours).

use std::sync::OnceLock;

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{
    CudaSlice, DevicePtr, DeviceRepr, LaunchConfig, PushKernelArg,
};
use candle_core::op::BackpropOp;
use candle_core::{
    CpuStorage, CudaDevice, CudaStorage, CustomOp1, CustomOp3, DType, Layout, Result, Shape, Storage, Tensor,
    bail,
};

use super::layer::{self, Gradients, Sizes, Tensors};
use super::parameters::{self as p, Address, Parameters};
use super::{Launch, Machine, dropout, resize, select};
use crate::efficientad::ops::Layer;
use crate::efficientad::ops::dropout::Dropout;

const KERNELS: &str = include_str!(concat!(env!("OUT_DIR"), "/training.ptx"));

/// Whether the kernels can begin with `x [batch, channels, rows, columns]`.
pub(in super::super) fn fits(x: &Tensor) -> Result<bool> {
    let channels = x.dims4()?.1;
    Ok(x.device().is_cuda() && x.dtype() == DType::F32 && (channels == 3 || channels.is_multiple_of(4)))
}

/// `[b, c, h, w]` → `[b, h, w, c']`, where c' is c and zeros up to a multiple of four.
pub(in super::super) fn channels_last(x: &Tensor) -> Result<Tensor> {
    let channels = x.dim(1)?;
    let missing = channels.next_multiple_of(4) - channels;
    let x = if missing == 0 { x.clone() } else { x.pad_with_zeros(1, 0, missing)? };
    x.permute((0, 2, 3, 1))?.contiguous()
}

/// `x [b, h, w, c]`, c the weights' inputs and zeros up to a multiple of four, `weight [o, i, k, k]`, `bias [o]` →
/// `[b, h', w', o]`.
pub(in super::super) fn layer(x: &Tensor, weight: &Tensor, bias: &Tensor, layer: Layer) -> Result<Tensor> {
    let (x, weight, bias) = (x.contiguous()?, weight.contiguous()?, bias.contiguous()?);
    x.apply_op3(&weight, &bias, Fused { layer, alive: OnceLock::new() })
}

/// `[b, h, w, c]` → `[b, rows, columns, c]`.
pub(in super::super) fn resize_bilinear(x: &Tensor, rows: usize, columns: usize) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Resize { to: [rows, columns] })
}

/// Silences numbers of `x`, a multiple of four of them.
pub(in super::super) fn drop_out(x: &Tensor, dropout: Dropout) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Silenced(dropout))
}

/// Where the numbers of a contiguous tensor (f32) are in the card's memory.
pub(in super::super) fn address(tensor: &Tensor) -> Result<u64> {
    Card::new(tensor.device().as_cuda_device()?).place_tensor(tensor)
}

/// The `nth` largest, from 1, of contiguous `values`, as a tensor without dimensions.
pub(in super::super) fn nth_largest(values: &Tensor, nth: usize) -> Result<Tensor> {
    let mut card = Card::new(values.device().as_cuda_device()?);
    let out = card.memory::<f32>(1)?;
    let places = [card.place_tensor(values)?, card.address(&out)];
    select::nth_largest(&mut card, places, values.elem_count(), nth)?;
    Ok(card.tensor(out, &().into()))
}

/// A card as candle drives it, and what one operation needs besides its tensors.
struct Card {
    device: CudaDevice,
    scratch: Vec<CudaSlice<f32>>,
}

impl Card {
    fn new(device: &CudaDevice) -> Self {
        Self { device: device.clone(), scratch: Vec::new() }
    }

    fn memory<T: DeviceRepr>(&self, count: usize) -> Result<CudaSlice<T>> {
        // SAFETY: whoever asks writes all of it before anyone reads.
        unsafe { self.device.alloc::<T>(count) }
    }

    fn address<T>(&self, slice: &impl DevicePtr<T>) -> Address {
        slice.device_ptr(&self.device.cuda_stream()).0
    }

    /// Of a contiguous tensor's numbers.
    fn place(&self, (storage, layout): (&CudaStorage, &Layout)) -> Result<Address> {
        match layout.contiguous_offsets() {
            Some((from, to)) => Ok(self.address(&storage.as_cuda_slice::<f32>()?.slice(from..to))),
            None => {
                bail!("a tensor that is not contiguous reached an operation that needs it so: this is a bug")
            }
        }
    }

    fn place_tensor(&self, tensor: &Tensor) -> Result<Address> {
        let (storage, layout) = tensor.storage_and_layout();
        match &*storage {
            Storage::Cuda(storage) => self.place((storage, layout)),
            _ => bail!("a tensor on another device reached an operation of the card: this is a bug"),
        }
    }

    fn storage(&self, slice: CudaSlice<f32>) -> CudaStorage {
        CudaStorage::wrap_cuda_slice(slice, self.device.clone())
    }

    fn tensor(&self, slice: CudaSlice<f32>, shape: &Shape) -> Tensor {
        Tensor::from_storage(Storage::Cuda(self.storage(slice)), shape, BackpropOp::none(), false)
    }
}

// SAFETY: plain numbers, laid out as the kernels' sources declare them; so are all of the following.
unsafe impl DeviceRepr for p::Convolve {}
// SAFETY: as above.
unsafe impl DeviceRepr for p::Weigh {}
// SAFETY: as above.
unsafe impl DeviceRepr for p::Pack {}
// SAFETY: as above.
unsafe impl DeviceRepr for p::Gather {}
// SAFETY: as above.
unsafe impl DeviceRepr for p::Spread {}
// SAFETY: as above.
unsafe impl DeviceRepr for p::Total {}
// SAFETY: as above.
unsafe impl DeviceRepr for p::Resize {}
// SAFETY: as above.
unsafe impl DeviceRepr for p::Select {}
// SAFETY: as above.
unsafe impl DeviceRepr for p::Silence {}

impl Machine for Card {
    fn scratch(&mut self, numbers: usize) -> Result<Address> {
        let slice = self.memory::<f32>(numbers)?;
        let address = self.address(&slice);
        self.scratch.push(slice);
        Ok(address)
    }

    fn zeros(&mut self, numbers: usize) -> Result<Address> {
        let slice = self.device.alloc_zeros::<f32>(numbers)?;
        let address = self.address(&slice);
        self.scratch.push(slice);
        Ok(address)
    }

    fn launch(&mut self, launch: &Launch) -> Result<()> {
        let function = self.device.get_or_load_custom_func(launch.kernel, "inspectord_training", KERNELS)?;
        let mut builder = function.builder();
        match &launch.parameters {
            Parameters::Convolve(p) => builder.arg(p),
            Parameters::Weigh(p) => builder.arg(p),
            Parameters::Pack(p) => builder.arg(p),
            Parameters::Gather(p) => builder.arg(p),
            Parameters::Spread(p) => builder.arg(p),
            Parameters::Total(p) => builder.arg(p),
            Parameters::Resize(p) => builder.arg(p),
            Parameters::Select(p) => builder.arg(p),
            Parameters::Silence(p) => builder.arg(p),
        };
        let [x, y] = launch.grid.map(|n| n as u32);
        let config = LaunchConfig {
            grid_dim: (x, y, 1),
            block_dim: (launch.threads as u32, 1, 1),
            shared_mem_bytes: launch.shared as u32,
        };
        // SAFETY: each kernel takes the one structure that its plan pairs it with, and stays inside the memory that the
        // structure tells of, which lives until the work that is launched here is done.
        unsafe { builder.launch(config) }.w()?;
        Ok(())
    }
}

fn not_on_the_card<T>() -> Result<T> {
    bail!("a tensor in the machine's memory reached an operation of the card: this is a bug")
}

struct Fused {
    layer: Layer,
    /// Which inputs of each pool window were above zero; kept from the forward pass for the backward one.
    alive: OnceLock<CudaSlice<u8>>,
}

impl Fused {
    fn sizes(&self, x: &Shape, weight: &Shape) -> Result<Sizes> {
        let ((b, h, w, c), (o, i, k, across)) = (x.dims4()?, weight.dims4()?);
        Sizes::new([b, h, w, c], [o, i, k, across], self.layer)
    }
}

impl CustomOp3 for Fused {
    fn name(&self) -> &'static str {
        "convolution layer"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        not_on_the_card()
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        weight: &CudaStorage,
        weight_layout: &Layout,
        bias: &CudaStorage,
        bias_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let sizes = self.sizes(x_layout.shape(), weight_layout.shape())?;
        let mut card = Card::new(x.device());
        let out = card.memory::<f32>(sizes.output_len())?;
        let alive = match self.layer.pool {
            Some(_) => Some(card.memory::<u8>(sizes.output_len())?),
            None => None,
        };
        let tensors = Tensors {
            x: card.place((x, x_layout))?,
            weights: card.place((weight, weight_layout))?,
            bias: card.place((bias, bias_layout))?,
            out: card.address(&out),
            alive: alive.as_ref().map_or(0, |alive| card.address(alive)),
        };
        layer::forward(&mut card, &sizes, tensors)?;
        if let Some(alive) = alive {
            let _first_forward_counts = self.alive.set(alive);
        }
        let shape = Shape::from(&sizes.output_dims());
        Ok((card.storage(out), shape))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        out: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let sizes = self.sizes(x.shape(), weight.shape())?;
        let gradient = gradient.contiguous()?;
        let mut card = Card::new(x.device().as_cuda_device()?);
        let tensors = Tensors {
            x: card.place_tensor(x)?,
            weights: card.place_tensor(weight)?,
            bias: card.place_tensor(bias)?,
            out: card.place_tensor(out)?,
            alive: self.alive.get().map_or(0, |alive| card.address(alive)),
        };
        let input = match x.track_op() {
            true => Some(card.memory::<f32>(x.elem_count())?),
            false => None,
        };
        let (weights, biases) =
            (card.memory::<f32>(weight.elem_count())?, card.memory::<f32>(bias.elem_count())?);
        let to = Gradients {
            x: input.as_ref().map_or(0, |input| card.address(input)),
            weights: card.address(&weights),
            bias: card.address(&biases),
        };
        let from = card.place_tensor(&gradient)?;
        layer::backward(&mut card, &sizes, tensors, from, to)?;
        let input = input.map(|input| card.tensor(input, x.shape()));
        let weights = card.tensor(weights, weight.shape());
        let biases = card.tensor(biases, bias.shape());
        Ok((input, Some(weights), Some(biases)))
    }
}

struct Resize {
    to: [usize; 2],
}

impl CustomOp1 for Resize {
    fn name(&self) -> &'static str {
        "bilinear resize"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        not_on_the_card()
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let (b, h, w, c) = layout.shape().dims4()?;
        let [rows, columns] = self.to;
        let mut card = Card::new(x.device());
        let out = card.memory::<f32>(b * rows * columns * c)?;
        let places = [card.place((x, layout))?, card.address(&out)];
        resize::forward(&mut card, places, [b, h, w, c], self.to)?;
        Ok((card.storage(out), (b, rows, columns, c).into()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (b, h, w, c) = x.dims4()?;
        let gradient = gradient.contiguous()?;
        let mut card = Card::new(x.device().as_cuda_device()?);
        let to = card.memory::<f32>(x.elem_count())?;
        let places = [card.place_tensor(&gradient)?, card.address(&to)];
        resize::backward(&mut card, places, [b, h, w, c], self.to)?;
        Ok(Some(card.tensor(to, x.shape())))
    }
}

struct Silenced(Dropout);

impl CustomOp1 for Silenced {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        not_on_the_card()
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let count = layout.shape().elem_count();
        let mut card = Card::new(x.device());
        let out = card.memory::<f32>(count)?;
        let places = [card.place((x, layout))?, card.address(&out)];
        dropout::apply(&mut card, places, count, self.0)?;
        Ok((card.storage(out), layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        drop_out(&gradient.detach(), self.0).map(Some)
    }
}

//! Memory of the data set as seen by libtorch: windows are copied once, straight from the table's rows into a tensor.

use deeprc_loader::{Dataset, Part, Series, Window};
use tch::{Device, Kind, Tensor};

/// Windows of a data set as tensors.
#[derive(Debug)]
pub struct Windows {
    /// `[batch, rows, channels]`, 0 outside the part and where nothing was observed.
    pub temporal: Tensor,
    /// 1 where `temporal` was observed, of the same shape; none if all of it was.
    pub mask: Option<Tensor>,
    /// `[batch, stat]`, none without static columns.
    pub stat: Option<Tensor>,
    /// Number of the series of each window.
    pub series: Vec<u32>,
}

/// Copies `rows` rows of every window. Rows outside the series, or behind the last row of `part`, become 0 with mask 0.
///
/// Each value is copied once, into memory that the allocator uses again at the next step. Of data that was observed everywhere there
/// is no mask unless a window sticks out, and then one value per row.
pub fn gather(dataset: &Dataset, part: Part, windows: &[Window], rows: usize, device: Device) -> Windows {
    let channels = dataset.channels().len();
    let ends: Vec<usize> = windows.iter().map(|w| end(&dataset.series()[w.series as usize], part)).collect();
    let copy = |values: &[f32]| {
        let mut tensor = Tensor::empty([windows.len() as i64, rows as i64, channels as i64], (Kind::Float, Device::Cpu));
        let outs = slice_mut(&mut tensor).chunks_exact_mut((rows * channels).max(1));
        for ((window, end), out) in windows.iter().zip(&ends).zip(outs) {
            let series = &dataset.series()[window.series as usize];
            copy_rows(values, series.start, *end, window.offset, channels, out);
        }
        tensor.to_device(device)
    };
    let inside = |(window, end): (&Window, &usize)| window.offset >= 0 && window.offset as usize + rows <= *end;
    let mask = match dataset.fully_observed() {
        false => Some(copy(dataset.mask())),
        true if windows.iter().zip(&ends).all(inside) => None,
        true => {
            let mut tensor = Tensor::zeros([windows.len() as i64, rows as i64, 1], (Kind::Float, Device::Cpu));
            for ((window, end), out) in windows.iter().zip(&ends).zip(slice_mut(&mut tensor).chunks_exact_mut(rows.max(1))) {
                let row = |row: i64| (row - i64::from(window.offset)).clamp(0, rows as i64) as usize;
                let (first, last) = (row(0), row(*end as i64));
                out[first..last.max(first)].fill(1.0);
            }
            Some(tensor.to_device(device).expand([windows.len() as i64, rows as i64, channels as i64], false))
        }
    };
    let width = dataset.columns().stat.len();
    let stat = (width > 0).then(|| {
        let rows = windows.iter().flat_map(|w| &dataset.stat()[w.series as usize * width..][..width]);
        let values: Vec<f32> = rows.copied().collect();
        Tensor::from_slice(&values).view([-1, width as i64]).to_device(device)
    });
    Windows { temporal: copy(dataset.values()), mask, stat, series: windows.iter().map(|w| w.series).collect() }
}

/// Rows of the series that the part may see.
pub(crate) fn end(series: &Series, part: Part) -> usize {
    match part {
        Part::Train => series.train,
        Part::Validation => series.train + series.validation,
        Part::Test | Part::All => series.len,
    }
}

/// The rows `offset..` of a series with `len` visible rows from row `start` on, zeros where there are none.
fn copy_rows(values: &[f32], start: usize, len: usize, offset: i32, channels: usize, out: &mut [f32]) {
    let rows = out.len() / channels;
    let missing = (offset.min(0).unsigned_abs() as usize).min(rows);
    let first = offset.max(0) as usize;
    let found = (rows - missing).min(len.saturating_sub(first));
    out[..missing * channels].fill(0.0);
    // A window that lies behind the last row has nothing to copy.
    let from = if found > 0 { (start + first) * channels } else { 0 };
    out[missing * channels..][..found * channels].copy_from_slice(&values[from..from + found * channels]);
    out[(missing + found) * channels..].fill(0.0);
}

/// The values of a contiguous f32 tensor on the CPU.
///
/// # Panics
/// If the tensor is of another kind.
pub(crate) fn slice(tensor: &Tensor) -> &[f32] {
    check(tensor);
    if tensor.numel() == 0 {
        return &[];
    }
    // SAFETY: checked above: the storage holds `numel` f32 in order, and lives as long as the tensor.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), tensor.numel()) }
}

/// The same memory as bytes; little endian, as on every machine that libtorch runs on.
pub(crate) fn bytes(values: &[f32]) -> &[u8] {
    // SAFETY: f32 has no padding, and every byte is a valid u8.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// The values of a contiguous f32 tensor on the CPU that nobody else uses meanwhile.
pub(crate) fn slice_mut(tensor: &mut Tensor) -> &mut [f32] {
    check(tensor);
    // SAFETY: as in `slice`; callers have just made the tensor, or its views (of the exchange's buckets) rest until they are done.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), tensor.numel()) }
}

fn check(tensor: &Tensor) {
    let fit = tensor.device() == Device::Cpu && tensor.kind() == Kind::Float && tensor.is_contiguous();
    assert!(fit, "a contiguous f32 tensor on the CPU is needed");
}

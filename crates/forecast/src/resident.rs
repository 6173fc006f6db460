//! The data set in the memory of a device: windows are gathered there, by index, without passing through the host.

use deeprc_loader::{Dataset, Part, Window};
use tch::{Device, Kind, Tensor};

use crate::Windows;
use crate::blocks::end;

/// Values and mask of all rows, once, where the model is.
///
/// ```text
///   values   [rows + 1, channels]     the last row is zeros: rows outside a series or its part
///   index    [batch, window]          row numbers, computed on the device from three numbers per window
///   batch    values.index_select(index)
/// ```
///
/// A step sends 24 bytes per window to the device, whatever the length of the windows and the size of the data.
#[derive(Debug)]
pub struct Resident {
    values: Tensor,
    /// None if everything was observed: then the mask follows from the index.
    mask: Option<Tensor>,
    stat: Option<Tensor>,
    device: Device,
}

impl Resident {
    /// Copies `dataset` to `device`.
    pub fn new(dataset: &Dataset, device: Device) -> Self {
        let channels = dataset.channels().len() as i64;
        let rows = |values: &[f32]| {
            let values = Tensor::from_slice(values).view([-1, channels]);
            Tensor::cat(&[values, Tensor::zeros([1, channels], (Kind::Float, Device::Cpu))], 0).to_device(device)
        };
        let width = dataset.columns().stat.len() as i64;
        Self {
            values: rows(dataset.values()),
            mask: (!dataset.fully_observed()).then(|| rows(dataset.mask())),
            stat: (width > 0).then(|| Tensor::from_slice(dataset.stat()).view([-1, width]).to_device(device)),
            device,
        }
    }

    /// As [`gather`](crate::gather), of the data set that this was made from.
    pub fn gather(&self, dataset: &Dataset, part: Part, windows: &[Window], rows: usize) -> Windows {
        let _no_grad = tch::no_grad_guard();
        let channels = dataset.channels().len() as i64;
        let (count, rows) = (windows.len() as i64, rows as i64);
        let mut places = Vec::with_capacity(3 * windows.len());
        let series = |window: &Window| &dataset.series()[window.series as usize];
        places.extend(windows.iter().map(|w| series(w).start as i64 + i64::from(w.offset)));
        places.extend(windows.iter().map(|w| series(w).start as i64));
        places.extend(windows.iter().map(|w| (series(w).start + end(series(w), part)) as i64));
        let places = Tensor::from_slice(&places).to_device(self.device).view([3, count, 1]);
        let index = places.get(0) + Tensor::arange(rows, (Kind::Int64, self.device)); // [batch, rows]
        let inside = index.ge_tensor(&places.get(1)).logical_and(&index.lt_tensor(&places.get(2)));
        let index = index.where_scalarother(&inside, self.values.size()[0] - 1).flatten(0, 1);
        let select = |from: &Tensor| from.index_select(0, &index).view([count, rows, channels]);
        let whole = windows.iter().all(|w| w.offset >= 0 && i64::from(w.offset) + rows <= end(series(w), part) as i64);
        let mask = match &self.mask {
            Some(mask) => Some(select(mask)),
            None if whole => None,
            None => Some(inside.to_kind(Kind::Float).unsqueeze(-1).expand([count, rows, channels], false)),
        };
        let stat = self.stat.as_ref().map(|stat| {
            let numbers: Vec<i64> = windows.iter().map(|w| i64::from(w.series)).collect();
            stat.index_select(0, &Tensor::from_slice(&numbers).to_device(self.device))
        });
        Windows { temporal: select(&self.values), mask, stat, series: windows.iter().map(|w| w.series).collect() }
    }
}

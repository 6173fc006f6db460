//! Windows gathered from the host's rows, and by index from a copy on the device, are the same.

use std::sync::Arc;

use crate::table::{Rows, values};
use deeprc_forecast::{Resident, Windows, gather};
use deeprc_loader::{Dataset, Part, Window};
use tch::{Device, Tensor};

/// Two series with a static and a historic column; every fifth value is missing if there are `holes`.
fn dataset(holes: bool) -> Arc<Dataset> {
    let mut rows = Rows::new(&["y"], &["x".into()], &[], &["area".into()]);
    for (id, hours, area) in [("a", 20, 1.0), ("b", 12, 2.0)] {
        for hour in 0..hours {
            let y = (!holes || hour % 5 != 2).then_some(100.0 * area + hour as f32);
            rows.push(id, hour, &[y, Some(-(hour as f32)), Some(area)], i8::from(hour >= hours - 6) + i8::from(hour >= hours - 3));
        }
    }
    rows.dataset()
}

/// Values, mask (ones where there is none) and static values.
fn cells(windows: &Windows) -> [Vec<f32>; 3] {
    let mask = windows.mask.as_ref().map_or_else(|| windows.temporal.ones_like(), Tensor::shallow_clone);
    [values(&windows.temporal), values(&mask), values(windows.stat.as_ref().unwrap())]
}

#[test]
fn windows_gathered_by_index_are_those_copied_from_the_rows() {
    for holes in [false, true] {
        let dataset = dataset(holes);
        let resident = Resident::new(&dataset, Device::Cpu);
        for part in [Part::Train, Part::Validation, Part::Test, Part::All] {
            let all: Vec<Window> = (-8..20).flat_map(|offset| [0, 1].map(|series| Window { series, offset })).collect();
            for windows in [&all[..], &all[16..20], &all[40..41]] {
                let copied = gather(&dataset, part, windows, 7, Device::Cpu);
                let selected = resident.gather(&dataset, part, windows, 7);
                assert_eq!(cells(&copied), cells(&selected), "{part} {holes} {windows:?}");
                assert_eq!((copied.mask.is_some(), &copied.series), (selected.mask.is_some(), &selected.series));
            }
        }
    }
}

#[test]
fn what_lies_outside_is_zero_and_not_observed() {
    let dataset = dataset(false);
    let window = [Window { series: 1, offset: -2 }, Window { series: 1, offset: 4 }];
    let found = gather(&dataset, Part::Train, &window, 4, Device::Cpu);
    let [temporal, mask, _] = cells(&found);
    assert_eq!(temporal, [0.0, 0.0, 0.0, 0.0, 200.0, 0.0, 201.0, -1.0, 204.0, -4.0, 205.0, -5.0, 0.0, 0.0, 0.0, 0.0]);
    assert_eq!(mask, [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
    let inside = gather(&dataset, Part::Train, &[Window { series: 0, offset: 2 }], 4, Device::Cpu);
    assert!(inside.mask.is_none(), "nothing to mask");
}

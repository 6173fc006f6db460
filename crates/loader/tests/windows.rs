//! Windows and batches against an oracle that tries every offset and looks at every cell.

#![expect(clippy::unwrap_used, reason = "a panic is the message of a test")]

mod table;

use deeprc_loader::{
    Batch, DataLoader, Dataset, Gaps, LoaderOptions, Nulls, Observed, Padding, Part, Random, Sampler, Sequential, Window, WindowSpec,
};
use proptest::prelude::*;
use std::sync::Arc;
use table::{Row, batches, options};

/// Two series of training, validation and test rows; `holes` are unobserved.
#[derive(Clone, Debug)]
struct Case {
    parts: [[usize; 3]; 2],
    holes: Vec<bool>,
    spec: WindowSpec,
}

impl Case {
    fn dataset(&self) -> Dataset {
        let mut rows = Vec::new();
        for (id, parts) in ["a", "b"].into_iter().zip(&self.parts) {
            let split = parts.iter().enumerate().flat_map(|(part, &len)| std::iter::repeat_n(part as i8, len));
            for (hour, split) in split.enumerate() {
                let y = 100.0 * f64::from(id == "b") + hour as f64 + 1.0;
                let hole = self.holes[rows.len() % self.holes.len()];
                rows.push(Row { split, y: (!hole).then_some(y), ..Row::new(id, hour as i64, 0.0) });
            }
        }
        let mut options = options();
        options.columns.hist = vec!["x".into()];
        options.columns.split = Some("split".into());
        (options.gaps, options.nulls) = (Gaps::Mask, Nulls::Mask);
        options.frequency = Some("1h".parse().unwrap());
        Dataset::from_batches(&batches(&rows, 7), &options).unwrap()
    }

    /// Every offset of every series that is a window.
    fn oracle(&self, dataset: &Dataset) -> Vec<Window> {
        let (spec, mut found) = (&self.spec, Vec::new());
        let (input, horizon) = (spec.input_size as i64, spec.horizon as i64);
        for (number, (series, &[train, validation, test])) in dataset.series().iter().zip(&self.parts).enumerate() {
            let (train, validation, test) = (train as i64, validation as i64, test as i64);
            let len = train + validation + test;
            let (from, to) = match spec.part {
                Part::Train => (0, train),
                Part::Validation => (train, train + validation),
                Part::Test => (train + validation, len),
                Part::All => (0, len),
            };
            let wanted = match spec.part {
                Part::Train | Part::All => {
                    if spec.padding == Padding::Both {
                        1 - input
                    } else {
                        0
                    }
                }
                _ => from - input - spec.lead,
            };
            for offset in -100..100 {
                let begin = offset + input + spec.lead;
                let stick_out = if spec.padding == Padding::None { 0 } else { horizon - 1 };
                let earliest = if spec.padding == Padding::Both { 1 - input } else { 0 };
                let input_limit = if spec.part == Part::Train { to } else { len };
                let fits = from < to
                    && offset >= earliest
                    && offset >= wanted
                    && (offset - wanted) % spec.step as i64 == 0
                    && begin + horizon <= to + stick_out
                    && offset + input <= input_limit;
                let observed = |row: i64, end: i64| (0..end).contains(&row) && dataset.mask()[(series.start + row as usize) * 2] > 0.0;
                let inputs = (offset..offset + input).filter(|&row| observed(row, len)).count() as i64;
                let targets = (begin..begin + horizon).filter(|&row| observed(row, to)).count() as i64;
                let enough = match spec.observed {
                    Observed::Any => inputs > 0 && (targets > 0 || spec.part == Part::Test),
                    Observed::All => inputs == input && targets == horizon,
                };
                if fits && enough {
                    found.push(Window { series: number as u32, offset: offset as i32 });
                }
            }
        }
        found
    }
}

prop_compose! {
    fn cases()(
        parts in prop::array::uniform2(prop::array::uniform3(0usize..12)),
        holes in prop::collection::vec(prop::bool::weighted(0.2), 1..40),
        input_size in 1usize..6,
        horizon in 1usize..5,
        step in 1usize..4,
        lead in -1i64..2,
        part in prop::sample::select(vec![Part::Train, Part::Validation, Part::Test, Part::All]),
        padding in prop::sample::select(vec![Padding::None, Padding::End, Padding::Both]),
        observed in prop::sample::select(vec![Observed::Any, Observed::All]),
    ) -> Case {
        let mut parts = parts;
        parts.iter_mut().filter(|parts| parts.iter().sum::<usize>() == 0).for_each(|parts| parts[0] = 1);
        Case { parts, holes, spec: WindowSpec { input_size, horizon, step, part, lead, padding, observed } }
    }
}

proptest! {
    #[test]
    fn windows_are_those_of_the_oracle(case in cases()) {
        let dataset = case.dataset();
        let oracle = case.oracle(&dataset);
        match dataset.windows(&case.spec) {
            Ok(index) => {
                prop_assert_eq!(index.windows(), &oracle[..]);
                prop_assert!(index.memory() <= 8 * index.len());
            }
            // A series without one whole window is an error whatever the other one has.
            Err(deeprc_loader::Error::TooShort { .. }) => {}
            Err(_) => prop_assert!(oracle.is_empty()),
        }
    }

    #[test]
    fn batches_hold_the_cells_of_their_windows(case in cases()) {
        let dataset = case.dataset();
        let Ok(index) = dataset.windows(&case.spec) else { return Ok(()) };
        let mut batch = Batch::default();
        batch.fill(&dataset, &index, &(0..index.len()).collect::<Vec<_>>());
        let spec = &case.spec;
        prop_assert_eq!(batch.x.len(), index.len() * spec.input_size * 2);
        prop_assert_eq!(batch.y.len(), index.len() * spec.horizon);
        for (at, window) in index.windows().iter().enumerate() {
            let parts = case.parts[window.series as usize];
            let end = match spec.part {
                Part::Train => parts[0],
                Part::Validation => parts[0] + parts[1],
                Part::Test | Part::All => parts.iter().sum(),
            };
            let start = dataset.series()[window.series as usize].start;
            let cell = |row: i64, channel: usize| match usize::try_from(row) {
                Ok(row) if row < end => ((start + row) * 2 + channel, true),
                _ => (0, false),
            };
            for t in 0..spec.input_size {
                for channel in 0..2 {
                    let (from, inside) = cell(i64::from(window.offset) + t as i64, channel);
                    let to = (at * spec.input_size + t) * 2 + channel;
                    prop_assert_eq!(batch.x[to], if inside { dataset.values()[from] } else { 0.0 });
                    prop_assert_eq!(batch.x_mask[to], if inside { dataset.mask()[from] } else { 0.0 });
                }
            }
            for t in 0..spec.horizon {
                let (from, inside) = cell(i64::from(window.offset) + spec.horizon_offset() + t as i64, 0);
                let to = at * spec.horizon + t;
                prop_assert_eq!(batch.y[to], if inside { dataset.values()[from] } else { 0.0 });
                prop_assert_eq!(batch.y_mask[to], if inside { dataset.mask()[from] } else { 0.0 });
            }
        }
    }
}

fn plain(parts: [[usize; 3]; 2], spec: WindowSpec) -> Case {
    Case { parts, holes: vec![false], spec }
}

#[test]
fn too_short_series_are_named_with_what_they_need() {
    let message = |parts, spec: WindowSpec| plain(parts, spec.clone()).dataset().windows(&spec).unwrap_err().to_string();
    assert_eq!(
        message([[9, 0, 0], [3, 0, 0]], WindowSpec::new(3, 2, Part::Train)),
        "series `b` is too short: 3 rows for the training windows, 5 needed (3 input + 2 horizon)"
    );
    assert_eq!(
        message([[9, 0, 1], [9, 0, 2]], WindowSpec::new(3, 2, Part::Test)),
        "series `a` is too short: 10 rows for the test windows, 11 needed (3 input + 2 horizon)"
    );
    assert_eq!(message([[9, 0, 0], [9, 0, 0]], WindowSpec::new(3, 2, Part::Test)), "no series has rows in the test part");
    let nothing = WindowSpec { input_size: 0, ..WindowSpec::new(3, 2, Part::Test) };
    assert!(message([[9, 0, 0], [9, 0, 0]], nothing).ends_with("input_size must be at least 1"));
}

#[test]
fn a_split_by_series_leaves_the_other_series_out() {
    let case = plain([[9, 0, 0], [0, 0, 9]], WindowSpec::new(3, 2, Part::Test));
    let dataset = case.dataset();
    let index = dataset.windows(&case.spec).unwrap();
    assert!(index.windows().iter().all(|window| window.series == 1));
    assert_eq!(index.len(), 5);
}

#[test]
fn a_loader_gives_what_the_sampler_says_and_resumes_at_any_step() {
    let case = plain([[30, 0, 0], [20, 0, 0]], WindowSpec::new(4, 2, Part::Train));
    let dataset = Arc::new(case.dataset());
    let index = Arc::new(dataset.windows(&case.spec).unwrap());
    let sampler = Random::new(index.len(), 8, 3);
    let windows_from = |first_step| {
        let options = LoaderOptions { first_step, end_step: 10, prefetch: 3 };
        let loader = DataLoader::new(dataset.clone(), index.clone(), Box::new(sampler.clone()), options);
        loader.map(|batch| batch.unwrap().windows.clone()).collect::<Vec<_>>()
    };
    let all = windows_from(0);
    assert_eq!(all.len(), 10);
    for (step, windows) in all.iter().enumerate() {
        let mut numbers = Vec::new();
        sampler.sample(step, &mut numbers);
        assert_eq!(*windows, numbers.iter().map(|&number| index.windows()[number]).collect::<Vec<_>>());
    }
    assert_eq!(windows_from(6), all[6..]);
}

#[test]
fn a_loader_may_be_dropped_early_and_slabs_are_used_again() {
    let case = plain([[300, 0, 0], [20, 0, 0]], WindowSpec::new(4, 2, Part::Train));
    let dataset = Arc::new(case.dataset());
    let index = Arc::new(dataset.windows(&case.spec).unwrap());
    let sampler = Sequential::new(index.len(), 16);
    let mut loader = DataLoader::new(dataset, index, Box::new(sampler), LoaderOptions { prefetch: 1, ..LoaderOptions::default() });
    let mut slabs = std::collections::HashSet::new();
    for batch in loader.by_ref().take(15) {
        slabs.insert(batch.unwrap().x.as_ptr());
    }
    assert!(slabs.len() <= 4, "{} slabs for 15 batches", slabs.len());
    drop(loader);
}

#[test]
fn a_panic_in_the_thread_is_an_error() {
    let case = plain([[30, 0, 0], [20, 0, 0]], WindowSpec::new(4, 2, Part::Train));
    let dataset = Arc::new(case.dataset());
    let index = Arc::new(dataset.windows(&case.spec).unwrap());
    let beyond = Sequential::new(index.len() + 1, index.len() + 1);
    let results: Vec<_> = DataLoader::new(dataset, index, Box::new(beyond), LoaderOptions::default()).collect();
    assert_eq!(results.len(), 1);
    assert!(results[0].as_ref().unwrap_err().to_string().starts_with("the thread that fills batches stopped: index out of bounds"));
}

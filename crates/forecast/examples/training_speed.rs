//! Trains a model on one column of a CSV file and prints its steps per second as JSON: the native side of
//! `benchmarks/`, without the rest of a pipeline.
//!
//! ```text
//! cargo run --release -p deeprc-forecast --features torch --example training_speed -- FILE COLUMN MODEL '{"h": 96, …}' [THREADS [RANKS]]
//! ```
//!
//! RANKS share the windows of each step over shared memory; each is a thread of this process and has THREADS threads.

use std::sync::Arc;

use deeprc_comm::{Communicator, Rendezvous};
use deeprc_forecast::config::configure;
use deeprc_forecast::{native, rank, trainer::Trainer};
use deeprc_loader::{Columns, Dataset, DatasetOptions};
use deeprc_table::arrow::array::{ArrayRef, Float32Array, RecordBatch, TimestampMillisecondArray};
use serde_json::json;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    native::tune_malloc();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, column, model, options, threads @ ..] = arguments.as_slice() else {
        return Err("usage: training_speed FILE COLUMN MODEL OPTIONS [THREADS]".into());
    };
    tch::set_num_threads(threads.first().map_or(Ok(1), |n| n.parse())?);
    let options = serde_json::from_str::<serde_json::Value>(options)?;
    let options = options.as_object().ok_or("the options are no JSON object")?;
    let (model, train) = configure(model, options).map_err(|errors| format!("{errors:?}"))?;
    rank::warm_up();
    let dataset = Arc::new(dataset(file, column)?);
    let ranks = threads.get(1).map_or(Ok(1), |n| n.parse::<usize>())?;
    let run = |comm: Communicator| Trainer::new(Arc::clone(&dataset), &model, &train, comm, tch::Device::Cpu)?.fit(None, &mut ());
    let result = match ranks {
        0 | 1 => run(Communicator::solo())?,
        ranks => {
            let dir = std::env::temp_dir().join(format!("training_speed-{}", std::process::id()));
            let rank = |rank| run(Communicator::connect(&Rendezvous::new(&dir, rank, ranks))?);
            let results: Vec<_> = std::thread::scope(|scope| {
                let ranks: Vec<_> = (0..ranks).map(|number| scope.spawn(move || rank(number))).collect();
                ranks.into_iter().map(|rank| rank.join().expect("a rank panicked")).collect()
            });
            let _ = std::fs::remove_dir_all(&dir);
            results.into_iter().collect::<Result<Vec<_>, _>>()?.swap_remove(0)
        }
    };
    let loss = result.train_loss.last().map(|(_, loss)| *loss);
    let summary = json!({
        "steps": result.steps, "seconds": result.seconds, "steps_per_second": result.steps_per_second, "last_loss": loss,
        "parameters": result.parameters, "windows": result.windows,
    });
    println!("{summary}");
    Ok(())
}

/// The column, standardised, as one hourly series.
fn dataset(file: &str, column: &str) -> Result<Dataset, Box<dyn std::error::Error>> {
    let text = std::fs::read_to_string(file)?;
    let mut lines = text.lines();
    let header = lines.next().ok_or("the file is empty")?;
    let at = header.split(',').position(|name| name == column).ok_or("no such column")?;
    let cell = |line: &str| line.split(',').nth(at).and_then(|cell| cell.parse::<f32>().ok());
    let mut values = lines.map(cell).collect::<Option<Vec<f32>>>().ok_or("a cell is no number")?;
    let count = values.len() as f32;
    let mean = values.iter().sum::<f32>() / count;
    let deviation = (values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / count).sqrt();
    values.iter_mut().for_each(|v| *v = (*v - mean) / deviation);
    let hours = TimestampMillisecondArray::from_iter_values((0..values.len() as i64).map(|hour| hour * 3_600_000));
    let columns = [("ds", Arc::new(hours) as ArrayRef), ("y", Arc::new(Float32Array::from(values)) as ArrayRef)];
    let batch = RecordBatch::try_from_iter(columns)?;
    Ok(Dataset::from_batches(&[batch], &DatasetOptions::new(Columns::new("ds", ["y"])))?)
}

//! The CAMELS reader on a small hand-written layout, on generated basins, and on real files where they are present.

#![expect(clippy::unwrap_used, reason = "a panic is the message of a test")]

use deeprc_pipeline::camels::{Layout, Product, gauge_id};
use deeprc_pipeline::functions::CamelsPart;
use deeprc_pipeline::generate::{Basins, attribute_schema, write_attributes, write_basins};
use deeprc_table::arrow::array::{Array, AsArray, RecordBatch};
use deeprc_table::arrow::compute::concat_batches;
use deeprc_table::arrow::datatypes::{Date32Type, Float64Type};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const FORCING: &str = "  44.82\n 133.00\n 1000000\nYear Mnth Day Hr\tDayl(s)\tPRCP(mm/day)\tSRAD(W/m2)\tSWE(mm)\tTmax(C)\tTmin(C)\tVp(Pa)\n\
    2000 02 28 12\t31185.94\t0.00\t233.66\t0.00\t-8.00\t-10.00\t192.89\n\
    2000 02 29 12\t31302.07\t4.21\t198.52\t0.00\t-4.08\t-999.0\t308.07\n";
const STREAMFLOW: &str = "01013500 2000 02 28   255.00 A:e\n01013500 2000 02 29  -999.00 M\n";

/// Gauge 01013500 with its three kinds of files; `change` may replace some.
fn layout(change: &[(&str, &str)]) -> TempDir {
    let dir = TempDir::new().unwrap();
    let files = [
        ("basin_mean_forcing/nldas/01/01013500_lump_nldas_forcing_leap.txt", FORCING),
        ("usgs_streamflow/01/01013500_streamflow_qc.txt", STREAMFLOW),
        ("camels_attributes_v2.0/camels_topo.txt", "gauge_id;elev_mean;area_gages2\n01013500;250.31;1.0\n1022500;9;NA\n"),
        ("camels_attributes_v2.0/camels_name.txt", "gauge_id;huc_02;gauge_name\n01013500;01;   Fish River, Maine\n"),
    ];
    for (name, text) in files.iter().chain(change) {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

fn read(root: &Path, part: CamelsPart) -> RecordBatch {
    let layout = Layout::discover(root, Product::Only, &[]).unwrap();
    let (schema, batches, _) = layout.read(part, 0, 1).unwrap();
    concat_batches(&schema, &batches).unwrap()
}

fn numbers(batch: &RecordBatch, column: &str) -> Vec<Option<f64>> {
    batch.column_by_name(column).unwrap().as_primitive::<Float64Type>().iter().collect()
}

fn texts(batch: &RecordBatch, column: &str) -> Vec<Option<String>> {
    batch.column_by_name(column).unwrap().as_string::<i32>().iter().map(|text| text.map(Into::into)).collect()
}

#[test]
fn gauge_ids_keep_their_zeros() {
    assert_eq!(gauge_id("1013500"), "01013500");
    assert_eq!(gauge_id(" 01013500"), "01013500");
    assert_eq!(gauge_id("camelsgb_12"), "camelsgb_12");
}

#[test]
fn forcing_has_leap_days_means_and_nulls() {
    let dir = layout(&[]);
    let forcing = read(dir.path(), CamelsPart::Forcing);
    assert_eq!(texts(&forcing, "gauge"), vec![Some("01013500".to_string()); 2]);
    assert_eq!(forcing.column_by_name("date").unwrap().as_primitive::<Date32Type>().values(), &[11015, 11016]);
    assert_eq!(numbers(&forcing, "prcp"), [Some(0.0), Some(4.21)]);
    assert_eq!(numbers(&forcing, "tmean"), [Some(-9.0), None]);
    assert_eq!(numbers(&forcing, "area"), [Some(1e6), Some(1e6)]);
}

#[test]
fn missing_discharge_is_null_before_it_becomes_a_depth() {
    let dir = layout(&[]);
    let streamflow = read(dir.path(), CamelsPart::Streamflow);
    assert_eq!(numbers(&streamflow, "flow"), [Some(255.0), None]);
    let depth = numbers(&streamflow, "q");
    assert!((depth[0].unwrap() - 255.0 * 2_446_575.5 / 1e6).abs() < 1e-3 && depth[1].is_none());
    assert_eq!(texts(&streamflow, "flag"), [Some("A:e".to_string()), Some("M".to_string())]);
}

#[test]
fn attributes_are_joined_on_the_gauge() {
    let dir = layout(&[]);
    let attributes = read(dir.path(), CamelsPart::Attributes);
    assert_eq!(texts(&attributes, "gauge"), [Some("01013500".to_string()), Some("01022500".to_string())]);
    assert_eq!(numbers(&attributes, "elev_mean"), [Some(250.31), Some(9.0)]);
    assert_eq!(numbers(&attributes, "area_gages2"), [Some(1.0), None]);
    assert_eq!(texts(&attributes, "huc_02"), [Some("01".to_string()), None]);
    assert_eq!(texts(&attributes, "gauge_name")[0].as_deref(), Some("Fish River, Maine"));
}

#[track_caller]
fn check_error(change: &[(&str, &str)], part: CamelsPart, message: &str) {
    let dir = layout(change);
    let found = Layout::discover(dir.path(), Product::Only, &[]).and_then(|layout| layout.read(part, 0, 1));
    let text = found.unwrap_err().to_string();
    let text = text.replace(&format!("{}/", dir.path().display()), "");
    assert_eq!(text, message);
}

#[test]
fn wrong_lines_are_named() {
    let name = "basin_mean_forcing/nldas/01/01013500_lump_nldas_forcing_leap.txt";
    let check = |from: &str, to: &str, message: &str| {
        check_error(&[(name, &FORCING.replacen(from, to, 1))], CamelsPart::Forcing, &format!("{name}:{message}"));
    };
    check("4.21", "4,21", "6: column `prcp`: `4,21` is no number");
    check("2000 02 29", "2000 02 30", "6: `2000 02 30` is no date");
    check("2000 02 29", "2000 02 28", "6: 2000-02-28 is there twice");
    check("\t308.07", "", "6: 10 cells, but 11 columns");
    check(" 1000000", " none", "3: column `area`: ` none` is no number");
    check("PRCP", "RAIN", "4: no column `prcp` (columns: year, mnth, day, hr, dayl, rain, srad, swe, tmax, tmin, vp)");
    let name = "usgs_streamflow/01/01013500_streamflow_qc.txt";
    let check = |from: &str, to: &str, message: &str| {
        check_error(&[(name, &STREAMFLOW.replacen(from, to, 1))], CamelsPart::Streamflow, &format!("{name}:{message}"));
    };
    check("255.00", "x", "1: column `discharge`: `x` is no number");
    check("01013500", "01013501", "1: gauge `01013501` in the file of gauge 01013500");
    check("   255.00 A:e", "", "1: 4 cells, expected gauge, year, month, day, discharge, flag");
    check("2000 02 28", "2000 03 01", "2: 2000-02-29 comes after a later date");
}

#[test]
fn wrong_directories_are_named() {
    let dir = TempDir::new().unwrap();
    let error = Layout::discover(dir.path(), Product::Only, &[]).unwrap_err();
    assert!(error.to_string().ends_with("basin_mean_forcing: no such directory"));
    assert!(error.hint().unwrap().contains("usgs_streamflow"));
    let second = ("basin_mean_forcing/daymet/01/01013500_lump_cida_forcing_leap.txt", FORCING);
    let dir = layout(&[second]);
    let error = Layout::discover(dir.path(), Product::Only, &[]).unwrap_err();
    assert!(error.to_string().ends_with("several forcing products in it"));
    assert_eq!(error.hint().unwrap(), "set `product` to one of: daymet, nldas");
    assert!(Layout::discover(dir.path(), Product::Named("daymet"), &[]).is_ok());
    assert!(Layout::discover(dir.path(), Product::Any, &[]).is_ok());
    let error = Layout::discover(dir.path(), Product::Named("nldas"), &["1".into()]).unwrap_err();
    assert!(error.to_string().ends_with("no forcing file of basin 00000001"));
}

#[test]
fn a_gauge_without_forcing_has_flow_but_no_depth() {
    let dir = layout(&[("usgs_streamflow/02/02000000_streamflow_qc.txt", "02000000 2000 02 28 1.0 A\n")]);
    let layout = Layout::discover(dir.path(), Product::Only, &[]).unwrap();
    let (schema, batches, notes) = layout.read(CamelsPart::Streamflow, 0, 1).unwrap();
    let streamflow = concat_batches(&schema, &batches).unwrap();
    assert_eq!(numbers(&streamflow, "flow")[2], Some(1.0));
    assert_eq!(numbers(&streamflow, "q")[2], None);
    assert_eq!(notes, ["no forcing file, so no area and no depth `q`: 02000000"]);
}

fn files_below(dir: &Path) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => open.push(path),
                false => files.push((path.strip_prefix(dir).unwrap().into(), fs::read_to_string(&path).unwrap())),
            }
        }
    }
    files.sort();
    files
}

fn generate(what: Basins, ranks: usize) -> TempDir {
    let dir = TempDir::new().unwrap();
    let lines = (0..ranks).flat_map(|rank| write_basins(dir.path(), what, rank, ranks).unwrap()).collect();
    write_attributes(dir.path(), lines).unwrap();
    dir
}

#[test]
fn generated_basins_are_the_same_for_any_number_of_ranks() {
    let what = Basins { basins: 5, days: 60, seed: 3 };
    let one = files_below(generate(what, 1).path());
    assert_eq!(one.len(), 5 * 2 + 6);
    assert!(one == files_below(generate(what, 3).path()));
    let other = files_below(generate(Basins { seed: 4, ..what }, 1).path());
    assert!(one.iter().zip(&other).any(|(a, b)| a.1 != b.1));
}

#[test]
fn generated_basins_are_read_by_the_same_reader_and_are_plausible() {
    let what = Basins { basins: 20, days: 1461, seed: 1 };
    let dir = generate(what, 1);
    let forcing = read(dir.path(), CamelsPart::Forcing);
    let streamflow = read(dir.path(), CamelsPart::Streamflow);
    let attributes = read(dir.path(), CamelsPart::Attributes);
    assert_eq!((forcing.num_rows(), streamflow.num_rows(), attributes.num_rows()), (20 * 1461, 20 * 1461, 20));
    assert_eq!(*attributes.schema(), attribute_schema());
    let mean = |values: Vec<Option<f64>>| {
        let known: Vec<f64> = values.into_iter().flatten().collect();
        known.iter().sum::<f64>() / known.len() as f64
    };
    let (rain, flow, warmth) = (mean(numbers(&forcing, "prcp")), mean(numbers(&streamflow, "q")), mean(numbers(&forcing, "tmean")));
    assert!((1.0..6.0).contains(&rain), "rain {rain} mm/d");
    assert!((0.2..4.0).contains(&flow) && flow < rain, "flow {flow} mm/d");
    assert!((0.0..25.0).contains(&warmth), "{warmth} C");
    assert!(streamflow.column_by_name("q").unwrap().null_count() < 20 * 1461 / 20);
    assert!(mean(numbers(&forcing, "swe")) > 0.0);
}

/// The directory of shared data: named by the environment, or beside the workspace.
fn shared(name: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let root = std::env::var_os("DEEPRC_SHARED").map_or(beside, PathBuf::from);
    Some(root.join(name)).filter(|path| path.is_dir())
}

#[test]
fn real_files_have_their_known_traps() {
    let Some(root) = shared("data/camels") else { return };
    let layout = Layout::discover(&root, Product::Only, &[]).unwrap();
    assert_eq!((layout.forcing.len(), layout.streamflow.len()), (19, 19));
    let streamflow = read(&root, CamelsPart::Streamflow);
    let gauges = texts(&streamflow, "gauge");
    let q = numbers(&streamflow, "q");
    let of = |gauge: &str| gauges.iter().zip(&q).filter(|(id, _)| id.as_deref() == Some(gauge)).map(|(_, q)| *q).collect::<Vec<_>>();
    assert_eq!(of("01022500").iter().filter(|q| q.is_none()).count(), 92);
    assert_eq!(of("06221400").iter().filter(|q| q.is_none()).count(), 66);
    assert!(q.iter().flatten().all(|&q| (0.0..200.0).contains(&q)));
    let attributes = read(&root, CamelsPart::Attributes);
    assert_eq!(attributes.num_rows(), 671);
    assert_eq!(attributes.column_by_name("frac_forest").unwrap().data_type().to_string(), "Float64");
    let (mut rows, mut seen) = (0, Vec::new());
    for rank in 0..3 {
        let (_, batches, _) = layout.read(CamelsPart::Forcing, rank, 3).unwrap();
        rows += batches.iter().map(RecordBatch::num_rows).sum::<usize>();
        seen.extend(batches.iter().map(|batch| texts(batch, "gauge")[0].clone()));
    }
    assert_eq!(rows, read(&root, CamelsPart::Forcing).num_rows());
    assert!(seen.is_sorted() && seen.len() == 19);
}

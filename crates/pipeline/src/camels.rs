//! CAMELS-US as it is on disk: three kinds of text files in a directory tree.
//!
//! ```text
//! basin_mean_forcing/<product>/[<HUC>/]<gauge>_lump_<product>_forcing_leap.txt
//!       44.82                       latitude, degrees
//!      133.00                       elevation, m
//!      587675987                    area, m2
//!      Year Mnth Day Hr  Dayl(s) PRCP(mm/day) SRAD(W/m2) SWE(mm) Tmax(C) Tmin(C) Vp(Pa)      tabs and blanks mixed
//!      1980 01 01 12     31185.94 0.00 247.36 0.00 -5.69 -5.69 257.60
//! usgs_streamflow/[<HUC>/]<gauge>_streamflow_qc.txt
//!      01022500 1980 01 01   395.00 A       no header; ft3/s, -999 missing; A approved, A:e estimated, M missing
//! camels_attributes_v2.0/camels_{clim,geol,hydro,name,soil,topo,vege}.txt
//!      gauge_id;frac_forest;…               NA missing
//! ```
//!
//! Gauges are texts of eight digits with their leading zeros. Discharge becomes depth by the area of the forcing file's header
//! (as neuralhydrology does, not by an area of the attributes, which differ), and -999 becomes null before that.
//! Newman et al. 2015 (10.5194/hess-19-209-2015), Addor et al. 2017 (10.5194/hess-21-5293-2017).

use crate::functions::{CamelsPart, Error, Result};
use chrono::NaiveDate;
use deeprc_table::arrow::array::{ArrayRef, Date32Builder, Float64Array, Float64Builder, RecordBatch, StringArray, StringBuilder};
use deeprc_table::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Depth of a flow of 1 ft3/s over a day on 1 m2, in mm.
const MM_PER_CUBIC_FOOT: f64 = 0.028_316_846_592 * 86_400.0 * 1000.0;
/// What stands for a missing value.
const MISSING: f64 = -999.0;
const VARIABLES: [&str; 7] = ["dayl", "prcp", "srad", "swe", "tmax", "tmin", "vp"];
const ATTRIBUTES: [&str; 7] = ["clim", "geol", "hydro", "name", "soil", "topo", "vege"];

/// The gauge id of a text or a number: eight digits with leading zeros.
pub fn gauge_id(text: &str) -> String {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) { format!("{text:0>8}") } else { text.into() }
}

/// Which forcing product is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product<'a> {
    /// This one.
    Named(&'a str),
    /// The only one there is.
    Only,
    /// Any: of weather nothing is wanted but the basins' areas, which are the same in all.
    Any,
}

/// Where the files of every gauge are.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The directory with all of them.
    pub root: PathBuf,
    /// Weather by gauge.
    pub forcing: BTreeMap<String, PathBuf>,
    /// Discharge by gauge.
    pub streamflow: BTreeMap<String, PathBuf>,
    /// Attribute files.
    pub attributes: Vec<PathBuf>,
    /// Gauges to keep; empty: all.
    basins: Vec<String>,
}

impl Layout {
    /// Looks for the files below `root`, for all gauges or `basins` only.
    ///
    /// # Errors
    /// A directory that is missing, no forcing file at all, several products for [`Product::Only`], a basin without files.
    pub fn discover(root: &Path, product: Product, basins: &[String]) -> Result<Layout> {
        let weather = forcing_dir(root, product)?;
        let mut forcing = gauges_below(&weather, "_forcing_leap.txt")?;
        let mut streamflow = gauges_below(&root.join("usgs_streamflow"), "_streamflow_qc.txt")?;
        if forcing.is_empty() {
            let message = "no file <gauge>_*_forcing_leap.txt in it".into();
            return Err(Error::Layout { path: weather, message, hint: None });
        }
        let basins: Vec<String> = basins.iter().map(|basin| gauge_id(basin)).collect();
        if !basins.is_empty() {
            if let Some(basin) = basins.iter().find(|basin| !forcing.contains_key(*basin)) {
                let message = format!("no forcing file of basin {basin}");
                let hint = Some(format!("basins here: {}", some_of(forcing.keys())));
                return Err(Error::Layout { path: weather, message, hint });
            }
            forcing.retain(|gauge, _| basins.contains(gauge));
            streamflow.retain(|gauge, _| basins.contains(gauge));
        }
        let folder = root.join("camels_attributes_v2.0");
        let attributes = ATTRIBUTES.iter().map(|name| folder.join(format!("camels_{name}.txt"))).filter(|path| path.is_file());
        Ok(Layout { root: root.into(), forcing, streamflow, attributes: attributes.collect(), basins })
    }

    /// The columns of a table, without reading its rows.
    ///
    /// # Errors
    /// For attributes, whose columns are in the files: whatever [`Layout::read`] finds wrong with them.
    pub fn schema(&self, part: CamelsPart) -> Result<SchemaRef> {
        match part {
            CamelsPart::Forcing => Ok(forcing_schema()),
            CamelsPart::Streamflow => Ok(streamflow_schema()),
            CamelsPart::Attributes => Ok(self.attributes()?.schema()),
        }
    }

    /// This rank's share of a table, and what the user should know about it. Files are dealt out to the ranks by their
    /// bytes, in the order of the gauges; attributes are small and read by rank 0.
    ///
    /// # Errors
    /// Files that cannot be read, lines that cannot be understood (with file and line), dates that do not ascend.
    pub fn read(&self, part: CamelsPart, rank: usize, size: usize) -> Result<(SchemaRef, Vec<RecordBatch>, Vec<String>)> {
        let mut notes = Vec::new();
        let batches = match part {
            CamelsPart::Forcing => {
                share(&self.forcing, rank, size)?.iter().map(|(gauge, path)| read_forcing(gauge, path)).collect::<Result<_>>()?
            }
            CamelsPart::Streamflow => {
                let orphans: Vec<&String> = self.streamflow.keys().filter(|gauge| !self.forcing.contains_key(*gauge)).collect();
                if !orphans.is_empty() {
                    notes.push(format!("no forcing file, so no area and no depth `q`: {}", some_of(orphans.into_iter())));
                }
                share(&self.streamflow, rank, size)?
                    .iter()
                    .map(|(gauge, path)| {
                        let area = self.forcing.get(*gauge).map(|path| Header::of(path)).transpose()?.map(|header| header.area);
                        read_streamflow(gauge, path, area)
                    })
                    .collect::<Result<_>>()?
            }
            CamelsPart::Attributes if rank == 0 => vec![self.attributes()?],
            CamelsPart::Attributes => Vec::new(),
        };
        Ok((self.schema(part)?, batches, notes))
    }

    /// One row per gauge with the columns of all attribute files; a column is text where a value is no number.
    fn attributes(&self) -> Result<RecordBatch> {
        if self.attributes.is_empty() {
            let path = self.root.join("camels_attributes_v2.0");
            return Err(Error::Layout { path, message: "no file camels_<topic>.txt in it".into(), hint: None });
        }
        // column name -> gauge -> value
        let mut columns: Vec<(String, BTreeMap<String, String>)> = Vec::new();
        let mut gauges = BTreeMap::new();
        for path in &self.attributes {
            read_attributes(path, &mut columns, &mut gauges)?;
        }
        if !self.basins.is_empty() {
            gauges.retain(|gauge, ()| self.basins.contains(gauge));
        }
        let mut fields = vec![Field::new("gauge", DataType::Utf8, false)];
        let mut arrays: Vec<ArrayRef> = vec![Arc::new(StringArray::from_iter_values(gauges.keys()))];
        for (name, values) in columns {
            // The region is a label: "01" is no number.
            let texts = name == "huc_02" || values.values().any(|value| value.parse::<f64>().is_err());
            let of_gauges = gauges.keys().map(|gauge| values.get(gauge));
            let array: ArrayRef = if texts {
                Arc::new(of_gauges.map(|value| value.map(String::as_str)).collect::<StringArray>())
            } else {
                Arc::new(of_gauges.map(|value| value.and_then(|value| value.parse().ok())).collect::<Float64Array>())
            };
            fields.push(Field::new(name, array.data_type().clone(), true));
            arrays.push(array);
        }
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
    }
}

fn some_of<'a>(mut names: impl Iterator<Item = &'a String>) -> String {
    let first: Vec<&str> = names.by_ref().take(8).map(String::as_str).collect();
    let rest = names.count();
    if rest == 0 { first.join(", ") } else { format!("{} and {rest} more", first.join(", ")) }
}

/// The directory of one forcing product.
fn forcing_dir(root: &Path, product: Product) -> Result<PathBuf> {
    let all = root.join("basin_mean_forcing");
    if !all.is_dir() {
        let hint = Some("give the directory that holds basin_mean_forcing, usgs_streamflow and camels_attributes_v2.0".into());
        return Err(Error::Layout { path: all, message: "no such directory".into(), hint });
    }
    let mut products = Vec::new();
    for entry in entries(&all)? {
        let name = entry.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        // Folders of digits are regions: then there is no level of products.
        if entry.is_dir() && !name.bytes().all(|b| b.is_ascii_digit()) {
            products.push(name);
        }
    }
    match (product, &products[..]) {
        (Product::Named(product), _) if products.iter().any(|name| name == product) => Ok(all.join(product)),
        (Product::Only | Product::Any, []) => Ok(all),
        (Product::Only, [only]) | (Product::Any, [only, ..]) => Ok(all.join(only)),
        (product, _) => {
            let message = match product {
                Product::Named(product) => format!("no forcing product `{product}` in it"),
                Product::Only | Product::Any => "several forcing products in it".into(),
            };
            let hint = Some(format!("set `product` to one of: {}", products.join(", ")));
            Err(Error::Layout { path: all, message, hint })
        }
    }
}

/// Entries of a directory in order of their names.
fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let wrap = |source| Error::File { action: "list", path: dir.into(), source };
    let mut paths =
        fs::read_dir(dir).map_err(wrap)?.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<Vec<_>>>().map_err(wrap)?;
    paths.sort();
    Ok(paths)
}

/// Files ending in `suffix` below `dir`, two levels deep at most, by the gauge that their names begin with.
fn gauges_below(dir: &Path, suffix: &str) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    let mut add = |path: PathBuf| -> Result<()> {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if !name.ends_with(suffix) {
            return Ok(());
        }
        let gauge = gauge_id(name.split('_').next().unwrap_or_default());
        if let Some(first) = found.insert(gauge.clone(), path.clone()) {
            let message = format!("gauge {gauge} has a second file, {}", first.display());
            return Err(Error::Layout { path, message, hint: None });
        }
        Ok(())
    };
    for path in entries(dir)? {
        if path.is_dir() {
            entries(&path)?.into_iter().try_for_each(&mut add)?;
        } else {
            add(path)?;
        }
    }
    Ok(found)
}

/// A rank's stretch of the files: cut where the bytes before it pass its share.
fn share(files: &BTreeMap<String, PathBuf>, rank: usize, size: usize) -> Result<Vec<(&String, &PathBuf)>> {
    let mut ends = Vec::with_capacity(files.len());
    let mut total = 0u64;
    for path in files.values() {
        let wrap = |source| Error::File { action: "read", path: path.clone(), source };
        total += fs::metadata(path).map_err(wrap)?.len().max(1);
        ends.push(total);
    }
    // A file belongs to the rank in whose stretch of bytes its last byte lies.
    let owner = |end: u64| ((u128::from(end - 1) * size as u128) / u128::from(total)) as usize;
    Ok(files.iter().zip(&ends).filter(|&(_, &end)| owner(end) == rank).map(|(file, _)| file).collect())
}

fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|source| Error::File { action: "read", path: path.into(), source })
}

fn line_error(path: &Path, line: usize, column: Option<&str>, message: String) -> Error {
    Error::Line { path: path.into(), line, column: column.map(Into::into), message }
}

fn number(path: &Path, line: usize, column: &str, text: &str) -> Result<f64> {
    let wrong = || line_error(path, line, Some(column), format!("column `{column}`: `{text}` is no number"));
    text.trim().parse::<f64>().ok().filter(|value| value.is_finite()).ok_or_else(wrong)
}

fn date(path: &Path, line: usize, fields: &[&str]) -> Result<i32> {
    let wrong = || line_error(path, line, Some("date"), format!("`{}` is no date", fields.join(" ")));
    let [year, month, day] = fields else { return Err(wrong()) };
    let parsed = year.parse().ok().zip(month.parse().ok()).zip(day.parse().ok());
    let date = parsed.and_then(|((year, month), day)| NaiveDate::from_ymd_opt(year, month, day)).ok_or_else(wrong)?;
    Ok(date.signed_duration_since(NaiveDate::default()).num_days() as i32)
}

fn check_ascending(path: &Path, line: usize, previous: &mut Option<i32>, date: i32) -> Result<()> {
    let what = match previous.replace(date) {
        Some(before) if before == date => "is there twice",
        Some(before) if before > date => "comes after a later date",
        _ => return Ok(()),
    };
    let day = NaiveDate::default() + chrono::Duration::days(i64::from(date));
    Err(line_error(path, line, Some("date"), format!("{day} {what}")))
}

/// The three lines at the top of a forcing file.
struct Header {
    latitude: f64,
    elevation: f64,
    /// m2
    area: f64,
}

impl Header {
    fn parse(path: &Path, text: &str) -> Result<Header> {
        let mut lines = text.lines();
        let mut next = |line: usize, column: &str| {
            let text = lines.next().ok_or_else(|| line_error(path, line, Some(column), format!("no {column}")))?;
            number(path, line, column, text)
        };
        let header = Header { latitude: next(1, "latitude")?, elevation: next(2, "elevation")?, area: next(3, "area")? };
        if header.area <= 0.0 {
            return Err(line_error(path, 3, Some("area"), format!("an area of {} m2", header.area)));
        }
        Ok(header)
    }

    /// Of a file of which nothing else is read.
    fn of(path: &Path) -> Result<Header> {
        use std::io::Read;
        let wrap = |source| Error::File { action: "read", path: path.into(), source };
        let mut start = Vec::new();
        fs::File::open(path).map_err(wrap)?.take(4096).read_to_end(&mut start).map_err(wrap)?;
        Header::parse(path, &String::from_utf8_lossy(&start))
    }
}

/// Columns of the forcing table.
pub fn forcing_schema() -> SchemaRef {
    let mut fields = vec![Field::new("gauge", DataType::Utf8, false), Field::new("date", DataType::Date32, false)];
    let names = VARIABLES.iter().chain(&["tmean", "latitude", "elevation", "area"]);
    fields.extend(names.map(|name| Field::new(*name, DataType::Float64, true)));
    Arc::new(Schema::new(fields))
}

fn read_forcing(gauge: &str, path: &Path) -> Result<RecordBatch> {
    let text = read_text(path)?;
    let header = Header::parse(path, &text)?;
    let names = text.lines().nth(3).ok_or_else(|| line_error(path, 4, None, "no line of column names".into()))?;
    let names: Vec<String> = names.split_whitespace().map(|name| name.split('(').next().unwrap_or(name).to_ascii_lowercase()).collect();
    let mut at = [0; VARIABLES.len()];
    for (at, variable) in at.iter_mut().zip(VARIABLES) {
        let wrong = || line_error(path, 4, Some(variable), format!("no column `{variable}` (columns: {})", names.join(", ")));
        *at = names.iter().position(|name| name == variable).ok_or_else(wrong)?;
    }
    let mut dates = Date32Builder::new();
    let mut columns: [Float64Builder; VARIABLES.len()] = Default::default();
    let mut means = Float64Builder::new();
    let mut previous = None;
    let mut fields = Vec::with_capacity(names.len());
    for (number_of_line, line) in text.lines().enumerate().skip(4).map(|(at, line)| (at + 1, line)) {
        fields.clear();
        fields.extend(line.split_ascii_whitespace());
        if fields.is_empty() {
            continue;
        }
        if fields.len() != names.len() {
            let message = format!("{} cells, but {} columns", fields.len(), names.len());
            return Err(line_error(path, number_of_line, None, message));
        }
        let day = date(path, number_of_line, &fields[..3])?;
        check_ascending(path, number_of_line, &mut previous, day)?;
        dates.append_value(day);
        let mut values = [None; VARIABLES.len()];
        for (which, &at) in at.iter().enumerate() {
            let value = number(path, number_of_line, VARIABLES[which], fields[at])?;
            values[which] = (value != MISSING).then_some(value);
            columns[which].append_option(values[which]);
        }
        means.append_option(values[4].zip(values[5]).map(|(max, min)| (max + min) / 2.0));
    }
    let rows = previous.map_or(0, |_| means.values_slice().len());
    let mut arrays: Vec<ArrayRef> =
        vec![Arc::new(StringArray::from_iter_values(std::iter::repeat_n(gauge, rows))), Arc::new(dates.finish())];
    arrays.extend(columns.iter_mut().map(|column| Arc::new(column.finish()) as ArrayRef));
    arrays.push(Arc::new(means.finish()));
    for value in [header.latitude, header.elevation, header.area] {
        arrays.push(Arc::new(Float64Array::from_value(value, rows)));
    }
    Ok(RecordBatch::try_new(forcing_schema(), arrays)?)
}

/// Columns of the streamflow table.
pub fn streamflow_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("gauge", DataType::Utf8, false),
        Field::new("date", DataType::Date32, false),
        Field::new("flow", DataType::Float64, true),
        Field::new("q", DataType::Float64, true),
        Field::new("flag", DataType::Utf8, true),
    ]))
}

fn read_streamflow(gauge: &str, path: &Path, area: Option<f64>) -> Result<RecordBatch> {
    let text = read_text(path)?;
    let mut dates = Date32Builder::new();
    let (mut flows, mut depths) = (Float64Builder::new(), Float64Builder::new());
    let mut flags = StringBuilder::new();
    let mut previous = None;
    let mut rows = 0;
    for (number_of_line, line) in text.lines().enumerate().map(|(at, line)| (at + 1, line)) {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (fields, flag) = match fields[..] {
            [] => continue,
            [id, year, month, day, flow] => ([id, year, month, day, flow], None),
            [id, year, month, day, flow, flag] => ([id, year, month, day, flow], Some(flag)),
            _ => {
                let message = format!("{} cells, expected gauge, year, month, day, discharge, flag", fields.len());
                return Err(line_error(path, number_of_line, None, message));
            }
        };
        if gauge_id(fields[0]) != gauge {
            let message = format!("gauge `{}` in the file of gauge {gauge}", fields[0]);
            return Err(line_error(path, number_of_line, Some("gauge"), message));
        }
        let day = date(path, number_of_line, &fields[1..4])?;
        check_ascending(path, number_of_line, &mut previous, day)?;
        dates.append_value(day);
        let flow = number(path, number_of_line, "discharge", fields[4])?;
        // Before the conversion: -999 ft3/s in mm is a number like any other. Other negative flows (tides, wrong rating
        // curves) are no depths either.
        let flow = (flow >= 0.0).then_some(flow);
        flows.append_option(flow);
        depths.append_option(flow.zip(area).map(|(flow, area)| flow * MM_PER_CUBIC_FOOT / area));
        flags.append_option(flag);
        rows += 1;
    }
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(std::iter::repeat_n(gauge, rows))),
        Arc::new(dates.finish()),
        Arc::new(flows.finish()),
        Arc::new(depths.finish()),
        Arc::new(flags.finish()),
    ];
    Ok(RecordBatch::try_new(streamflow_schema(), arrays)?)
}

/// Adds the columns of one attribute file.
fn read_attributes(path: &Path, columns: &mut Vec<(String, BTreeMap<String, String>)>, gauges: &mut BTreeMap<String, ()>) -> Result<()> {
    let text = read_text(path)?;
    let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line)).filter(|(_, line)| !line.trim().is_empty());
    let (_, head) = lines.next().ok_or_else(|| line_error(path, 1, None, "no line of column names".into()))?;
    let names: Vec<&str> = head.split(';').map(str::trim).collect();
    if names[0] != "gauge_id" {
        return Err(line_error(path, 1, Some("gauge_id"), format!("the first column is `{}`, not `gauge_id`", names[0])));
    }
    let first = columns.len();
    for name in &names[1..] {
        if columns.iter().any(|(known, _)| known == name) {
            return Err(line_error(path, 1, Some(name), format!("column `{name}` is there twice")));
        }
        columns.push((name.to_string(), BTreeMap::new()));
    }
    for (line, text) in lines {
        let fields: Vec<&str> = text.split(';').map(str::trim).collect();
        if fields.len() != names.len() {
            return Err(line_error(path, line, None, format!("{} cells, but {} columns", fields.len(), names.len())));
        }
        let gauge = gauge_id(fields[0]);
        gauges.insert(gauge.clone(), ());
        for (value, (_, column)) in fields[1..].iter().zip(&mut columns[first..]) {
            if !matches!(*value, "NA" | "NaN" | "") {
                column.insert(gauge.clone(), value.to_string());
            }
        }
    }
    Ok(())
}

//! Window functions whose value at a row depends on the rows of its window only.
//!
//! DataFusion's sliding sum subtracts the row that leaves the window. After a NaN or an infinity has left, the sum stays NaN, and small
//! values drown in the rounding errors of large ones that are long gone. These functions compute every window anew, from its first to its
//! last row: `rows × window` additions, which for windows of days costs less than the sort before it.

use std::ops::Range;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, Float64Array};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::cast::as_float64_array;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{PartitionEvaluator, Signature, Volatility, WindowUDF, WindowUDFImpl};

use crate::Function;

/// All rolling functions, for the planner. In SQL they are `rolling_sum`, `rolling_mean`, `rolling_std`, `rolling_var` and
/// `rolling_median`, over floats.
pub(crate) fn functions() -> impl Iterator<Item = Arc<WindowUDF>> {
    let functions = [Function::Sum, Function::Mean, Function::Std, Function::Var, Function::Median].into_iter();
    functions.map(|function| {
        let signature = Signature::exact(vec![DataType::Float64], Volatility::Immutable);
        Arc::new(WindowUDF::from(Rolling { function, name: format!("rolling_{}", function.name()), signature }))
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Rolling {
    function: Function,
    name: String,
    signature: Signature,
}

impl WindowUDFImpl for Rolling {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn partition_evaluator(&self, _: PartitionEvaluatorArgs<'_>) -> Result<Box<dyn PartitionEvaluator>> {
        Ok(Box::new(Window { function: self.function, values: Vec::new() }))
    }

    fn field(&self, args: WindowUDFFieldArgs<'_>) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(args.name(), DataType::Float64, true)))
    }
}

#[derive(Debug)]
struct Window {
    function: Function,
    /// The values of the current window, kept for its memory.
    values: Vec<f64>,
}

impl PartitionEvaluator for Window {
    fn uses_window_frame(&self) -> bool {
        true
    }

    fn evaluate(&mut self, columns: &[ArrayRef], range: &Range<usize>) -> Result<ScalarValue> {
        let column: &Float64Array = as_float64_array(&columns[0])?;
        self.values.clear();
        self.values.extend(range.clone().filter(|row| column.is_valid(*row)).map(|row| column.value(row)));
        Ok(ScalarValue::Float64(value(self.function, &mut self.values)))
    }
}

/// A function of the values that are not null; null where it is not defined.
fn value(function: Function, values: &mut [f64]) -> Option<f64> {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    // Two passes: the squares of large values would cancel in one.
    let variance = || values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
    match function {
        Function::Count => Some(count),
        _ if values.is_empty() => None,
        Function::Sum => Some(values.iter().sum()),
        Function::Mean => Some(mean),
        Function::Std | Function::Var if values.len() < 2 => None,
        Function::Std => Some(variance().sqrt()),
        Function::Var => Some(variance()),
        Function::Min => values.iter().copied().min_by(f64::total_cmp),
        Function::Max => values.iter().copied().max_by(f64::total_cmp),
        Function::Median => {
            values.sort_unstable_by(f64::total_cmp);
            let middle = values.len() / 2;
            Some(if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(function: Function, values: &[f64], expected: Option<f64>) {
        assert_eq!(value(function, &mut values.to_vec()), expected, "{function:?} of {values:?}");
    }

    #[test]
    fn values_of_a_window() {
        check(Function::Sum, &[1.0, 2.0, 3.5], Some(6.5));
        check(Function::Mean, &[1.0, 2.0], Some(1.5));
        check(Function::Var, &[1.0, 3.0], Some(2.0));
        check(Function::Var, &[1.0], None);
        check(Function::Median, &[5.0, 1.0, 3.0], Some(3.0));
        check(Function::Median, &[4.0, 1.0], Some(2.5));
        check(Function::Max, &[4.0, f64::INFINITY], Some(f64::INFINITY));
        check(Function::Sum, &[], None);
    }

    #[test]
    fn large_values_do_not_hide_the_variance() {
        check(Function::Var, &[1e9 + 1.0, 1e9 + 3.0], Some(2.0));
    }
}

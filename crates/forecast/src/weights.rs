//! Weights that other programs wrote: NeuralForecast's safetensors, and checkpoints of `torch.save`.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors};
use tch::{Kind, Tensor};

use crate::{Error, Parameters, Result, pytorch};

/// Reads weights by their PyTorch names from a file that NeuralForecast saved, whatever its version: safetensors (3.3) or a PyTorch
/// archive (`.ckpt`), recognised by its first bytes. Nothing in it is run.
///
/// # Errors
/// [`Error::Io`]; [`Error::Checkpoint`] if a weight is missing or of another shape. Tensors of the file that the model does not have
/// are an error too, other than those of losses.
pub fn load_weights(path: &Path, parameters: &Parameters) -> Result<()> {
    let _no_grad = tch::no_grad_guard();
    let data = std::fs::read(path).map_err(|source| Error::Io { action: "read", path: path.to_owned(), source })?;
    let broken = |problem: String| Error::Checkpoint { path: path.to_owned(), problem };
    let found = match pytorch::is_archive(&data) {
        true => pytorch::state_dict(&data).map_err(broken)?.into_iter().collect(),
        false => tensors(&data).map_err(broken)?,
    };
    let wanted = parameters.state();
    let foreign = |name: &&String| {
        let of_a_loss = name.starts_with("loss.") || name.starts_with("valid_loss.");
        !of_a_loss && !parameters.is_computed(name) && !wanted.iter().any(|(known, _)| known == name)
    };
    if let Some(name) = found.keys().filter(foreign).min() {
        return Err(broken(format!("has the weight {name}, which the model has not")));
    }
    for (name, tensor) in wanted {
        let values = found.get(name).ok_or_else(|| broken(format!("has no weight {name}")))?;
        if values.size() != tensor.size() {
            return Err(broken(format!("has {name} as {:?}, needed is {:?}", values.size(), tensor.size())));
        }
        tensor.shallow_clone().copy_(values);
    }
    Ok(())
}

/// All tensors of a safetensors file; NeuralForecast stores tensors that share memory once and names the others in `shared`.
fn tensors(data: &[u8]) -> Result<HashMap<String, Tensor>, String> {
    let file = SafeTensors::deserialize(data).map_err(|e| e.to_string())?;
    let mut out = HashMap::new();
    for (name, view) in file.tensors() {
        let kind = match view.dtype() {
            Dtype::F32 => Kind::Float,
            Dtype::F64 => Kind::Double,
            Dtype::F16 => Kind::Half,
            Dtype::BF16 => Kind::BFloat16,
            Dtype::I64 => Kind::Int64,
            Dtype::I32 => Kind::Int,
            Dtype::BOOL => Kind::Bool,
            other => return Err(format!("has {name} as {other:?}")),
        };
        let shape: Vec<i64> = view.shape().iter().map(|n| *n as i64).collect();
        out.insert(name, Tensor::from_data_size(view.data(), &shape, kind));
    }
    let (_, header) = SafeTensors::read_metadata(data).map_err(|e| e.to_string())?;
    let shared = header.metadata().as_ref().and_then(|m| m.get("shared")).and_then(|text| serde_json::from_str(text).ok());
    // The name that was kept, and those that were dropped.
    let shared: HashMap<String, Vec<String>> = shared.unwrap_or_default();
    for (name, aliases) in shared {
        if let Some(tensor) = out.get(&name).map(Tensor::shallow_clone) {
            out.extend(aliases.into_iter().map(|alias| (alias, tensor.shallow_clone())));
        }
    }
    Ok(out)
}

//! The kernels of transformers against libtorch's own operations, with their gradients; what is random in them is in `tests/random.rs`.

use deeprc_forecast::kernels::{attention, autocorrelation, moving_average, residual_attention, season};
use tch::{Device, Kind, Tensor};

const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

fn random(shape: &[i64]) -> Tensor {
    Tensor::randn(shape, FLOAT).set_requires_grad(true)
}

/// Value and gradients of `ours` and `theirs` at the same inputs.
fn check(what: &str, inputs: &[&Tensor], ours: impl Fn() -> Tensor, theirs: impl Fn() -> Tensor) {
    let run = |f: &dyn Fn() -> Tensor| {
        let out = f();
        let weights = Tensor::arange(out.numel() as i64, FLOAT).sin().view_as(&out);
        let mut all = Tensor::run_backward(&[(&out * weights).sum(Kind::Float)], inputs, false, false);
        all.push(out.detach());
        all
    };
    for (number, (ours, theirs)) in run(&ours).iter().zip(run(&theirs)).enumerate() {
        let (error, scale) = ((ours - &theirs).abs().max().double_value(&[]), theirs.abs().max().double_value(&[]));
        assert!(error <= 1e-5 * scale.max(1.0), "{what}, tensor {number}: {error} of {scale}");
    }
}

fn heads(x: &Tensor, heads: i64) -> Tensor {
    x.view([x.size()[0], x.size()[1], heads, -1]).transpose(1, 2)
}

#[test]
fn attention_is_that_of_libtorch() {
    let (q, kv) = (random(&[3, 7, 12]), random(&[3, 10, 24]));
    let (k, v) = (kv.narrow(2, 0, 12), kv.narrow(2, 12, 12));
    let theirs = || {
        let none = None::<&Tensor>;
        let out = Tensor::scaled_dot_product_attention(&heads(&q, 2), &heads(&k, 2), &heads(&v, 2), none, 0.0, false, None, false);
        out.transpose(1, 2).flatten(2, 3)
    };
    check("attention", &[&q, &kv], || attention([&q, &k, &v], 2, 0.0), theirs);
}

#[test]
fn residual_attention_is_that_of_its_operations() {
    let (batch, steps, inner, count) = (3, 21, 12, 3);
    let layers = [random(&[batch * steps, 3 * inner]), random(&[batch * steps, 3 * inner])];
    let theirs = || {
        let mut scores = Tensor::zeros([1], FLOAT);
        let mut sum = Tensor::zeros([1], FLOAT);
        for qkv in &layers {
            let qkv = qkv.view([batch, steps, 3, count, inner / count]).permute([2, 0, 3, 1, 4]);
            scores = qkv.get(0).matmul(&qkv.get(1).transpose(2, 3)) + scores;
            sum = &sum + scores.softmax(-1, Kind::Float).matmul(&qkv.get(2));
        }
        sum.transpose(1, 2).reshape([-1, inner])
    };
    let ours = || {
        let (first, scores) = residual_attention(&layers[0], None, batch, count, 0.0);
        first + residual_attention(&layers[1], Some(&scores), batch, count, 0.0).0
    };
    check("residual attention", &[&layers[0], &layers[1]], ours, theirs);
}

/// Step by step, as the paper writes it.
fn autocorrelation_by_rolls([q, k, v]: [&Tensor; 3], count: i64) -> Tensor {
    let steps = q.size()[1];
    let of = |delay: i64| {
        (q.roll([-delay], [1]) * k).sum_dim_intlist([1i64].as_slice(), false, Kind::Float).mean_dim([-1i64].as_slice(), false, None)
    };
    let correlation = Tensor::stack(&(0..steps).map(of).collect::<Vec<_>>(), 1); // [batch, delays]
    let best = correlation.mean_dim([0i64].as_slice(), false, None).topk(count, -1, true, true).1;
    let weights = correlation.index_select(1, &best).softmax(-1, Kind::Float);
    let part = |i: i64| v.roll([-best.int64_value(&[i])], [1]) * weights.select(1, i).view([-1, 1, 1]);
    (0..count).map(part).reduce(|a, b| a + b).unwrap()
}

#[test]
fn autocorrelation_is_that_of_its_definition() {
    for steps in [10, 12] {
        let (q, k, v) = (random(&[3, steps, 5]), random(&[3, steps, 5]), random(&[3, steps, 5]));
        let [q_, k_, v_] = [&q, &k, &v];
        check("auto-correlation", &[&q, &k, &v], || autocorrelation([q_, k_, v_], 4, true), || autocorrelation_by_rolls([q_, k_, v_], 4));
    }
}

#[test]
fn season_is_what_the_moving_average_leaves() {
    for window in [1, 5, 9, 51] {
        let x = random(&[2, 20, 3]);
        check("season", &[&x], || season(&x, window), || &x - moving_average(&x, window));
    }
}

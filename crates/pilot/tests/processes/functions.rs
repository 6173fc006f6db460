//! The functions of the test rank.

use std::{path::Path, thread, time::Duration};

use deeprc_pilot::rank::{FunctionError, Registry, TaskContext};
use serde_json::{Value, json};

pub fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.register("echo", |ctx, arguments| {
        ctx.connected();
        println!("out of rank {}", ctx.rank);
        eprintln!("err of rank {}", ctx.rank);
        Ok(json!({
            "arguments": arguments,
            "context": [ctx.task, ctx.attempt, ctx.rank, ctx.size, ctx.local_rank, ctx.cores.len()],
            "env": std::env::vars().collect::<std::collections::BTreeMap<_, _>>(),
            "dir": std::env::current_dir().unwrap(),
            "rendezvous": ctx.rendezvous,
            "rendezvous_exists": ctx.rendezvous.is_dir(),
            "pid": std::process::id(),
            "threads": thread::available_parallelism().unwrap().get(),
        }))
    });
    registry.register("progress", |ctx, arguments| {
        (0..arguments.as_u64().unwrap()).for_each(|step| ctx.progress(json!({"step": step})));
        Ok(Value::Null)
    });
    registry.register("until_file", until_file);
    registry.register("stubborn", |_, _| {
        loop {
            thread::park();
        }
    });
    registry
        .register("fail", |ctx, _| Err(FunctionError::new(format!("no column `y` on rank {}", ctx.rank)).with_detail(json!({"line": 3}))));
    registry.register("panic", |_, _| panic!("index 7 of 3"));
    registry.register("abort", |_, _| {
        (0..30).for_each(|line| eprintln!("last words {line}"));
        std::process::abort()
    });
    registry.register("exit", |_, code| std::process::exit(code.as_i64().unwrap() as i32));
    registry.register("litter", |_, _| {
        // SAFETY: no other thread of the test rank reads the environment.
        unsafe { std::env::set_var("RANK", "litter") };
        std::env::set_current_dir("/").unwrap();
        Ok(json!(std::process::id()))
    });
    registry
}

/// Runs until the file given as argument exists, or the task is canceled.
fn until_file(ctx: &TaskContext, file: Value) -> Result<Value, FunctionError> {
    let file = Path::new(file.as_str().unwrap()).to_path_buf();
    while !file.exists() {
        if ctx.canceled() {
            return Err(FunctionError::new("canceled"));
        }
        // The function's own work; the test waits for its end, not for its time.
        thread::sleep(Duration::from_millis(2));
    }
    Ok(json!("seen"))
}

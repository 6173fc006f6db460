//! The way through the calls of NCCL, with libraries that only pretend (see `pretended.c`): no GPU is needed.
#![expect(clippy::unwrap_used, reason = "a panic is the test's message")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
    sync::OnceLock,
    thread,
    time::Duration,
};

use deeprc_comm::{
    Deadline, DeviceCommunicator, DeviceMemory, DeviceNumber, DeviceStream, Error, Nccl, NcclLibrary, ReduceOp, Rendezvous, Result, Store,
    StoreServer,
};

const SHORT: Duration = Duration::from_millis(100);

fn library() -> NcclLibrary {
    static LIBRARY: OnceLock<NcclLibrary> = OnceLock::new();
    *LIBRARY.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let build = |name: &str, define: &str| {
            let file = dir.path().join(name);
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nccl_pretended/pretended.c");
            let mut cc = Command::new("cc");
            cc.args(["-shared", "-fPIC", "-O1", define, &format!("-Wl,-soname,{name}"), "-o"]).arg(&file).arg(source);
            assert!(cc.status().unwrap().success());
            file
        };
        // It is no NCCL, but from now on the driver that is found by its name.
        NcclLibrary::at(&build("libcuda.so.1", "-UNCCL")).unwrap_err();
        NcclLibrary::at(&build("libnccl.so.2", "-DNCCL")).unwrap()
    })
}

/// What each of some ranks answers, given the numbers of their GPUs.
fn run<R: Send>(gpus: &[usize], size: usize, timeout: Duration, rank: impl Fn(Result<Nccl>) -> R + Sync) -> Vec<R> {
    let server = StoreServer::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), "").unwrap();
    let connect = |rank: usize, gpu: usize| {
        let at = Rendezvous { timeout, ..Rendezvous::through(server.address().clone(), "t/0", rank, size) };
        let store = Store::connect(server.address(), Deadline::new("connect", Duration::from_secs(60)))?;
        Nccl::connect(library(), gpu, &at, &store)
    };
    thread::scope(|scope| {
        let (connect, rank) = (&connect, &rank);
        let ranks: Vec<_> = gpus.iter().enumerate().map(|(number, gpu)| scope.spawn(move || rank(connect(number, *gpu)))).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

fn pair(rank: impl Fn(&Nccl) + Sync) {
    run(&[0, 1], 2, Duration::from_secs(60), |nccl| rank(&nccl.unwrap()));
}

fn memory(bytes: &mut [u8]) -> DeviceMemory {
    // SAFETY: the pretended GPU uses the host's memory, and is done with it before its calls return.
    unsafe { DeviceMemory::new(bytes.as_mut_ptr() as u64, bytes.len()) }
}

fn stream(handle: u64) -> DeviceStream {
    // SAFETY: the pretended GPU has these streams.
    unsafe { DeviceStream::new(handle) }
}

fn deadline(after: Duration) -> Deadline<'static> {
    Deadline::new("wait", after)
}

#[test]
fn collectives_follow_one_another() {
    pair(|nccl| {
        let (mut input, mut output) = (vec![nccl.rank() as u8 + 1; 16], vec![0; 32]);
        let (given, taken, on) = (memory(&mut input), memory(&mut output), DeviceStream::DEFAULT);
        for _ in 0..3 {
            nccl.allreduce(given, taken, 4, DeviceNumber::F32, ReduceOp::Sum, on).unwrap();
            nccl.reduce_scatter(given, taken, 4, DeviceNumber::Bf16, ReduceOp::Max, on).unwrap();
            nccl.broadcast(1, given, taken, 2, DeviceNumber::I64, on).unwrap();
            nccl.allgather(given, taken, 16, DeviceNumber::U8, on).unwrap();
            nccl.wait(on, deadline(Duration::from_secs(60))).unwrap();
        }
        assert_eq!(output, [nccl.rank() as u8 + 1; 32]);
    });
}

#[test]
fn a_deadline_aborts() {
    pair(|nccl| {
        let error = nccl.wait(stream(1), deadline(SHORT)).unwrap_err();
        assert_eq!(error.to_string(), "timed out in wait after 0.1 s");
        let mut bytes = [0; 8];
        let memory = memory(&mut bytes);
        let later = nccl.allreduce(memory, memory, 1, DeviceNumber::F64, ReduceOp::Sum, stream(0)).unwrap_err();
        assert_eq!(later.to_string(), error.to_string());
        assert_eq!(nccl.wait(stream(0), deadline(SHORT)).unwrap_err().to_string(), error.to_string());
    });
}

#[test]
fn an_abort_is_the_answer_to_all_later_calls() {
    pair(|nccl| {
        thread::scope(|scope| {
            let waiting = scope.spawn(|| nccl.wait(stream(1), deadline(Duration::from_secs(60))));
            nccl.abort();
            assert!(matches!(waiting.join().unwrap(), Err(Error::Aborted { rank, .. }) if rank == nccl.rank()));
        });
        nccl.abort();
        assert!(matches!(nccl.wait(stream(0), deadline(SHORT)), Err(Error::Aborted { .. })));
    });
}

#[test]
fn failures_of_the_libraries_are_told() {
    pair(|nccl| {
        let mut bytes = [0; 64];
        let memory = memory(&mut bytes);
        let answer = if nccl.rank() == 0 {
            nccl.wait(stream(2), deadline(SHORT))
        } else {
            nccl.broadcast(0, memory, memory, 13, DeviceNumber::U8, stream(0))
        };
        let expect =
            ["CUDA failed to work on the stream: an illegal memory access", "NCCL failed to broadcast: invalid argument: the details"];
        assert_eq!(answer.unwrap_err().to_string(), expect[nccl.rank()]);
    });
}

#[test]
fn wrong_arguments_harm_nobody() {
    pair(|nccl| {
        let mut bytes = [0; 15];
        let memory = memory(&mut bytes);
        let told = |answer: Result<()>, expect: &str| assert_eq!(answer.unwrap_err().to_string(), expect);
        let short = "the device memory has 15 bytes, 16 are needed";
        told(nccl.allreduce(memory, memory, 4, DeviceNumber::F32, ReduceOp::Sum, stream(0)), short);
        told(nccl.allgather(memory, memory, 4, DeviceNumber::F16, stream(0)), short);
        told(nccl.reduce_scatter(memory, memory, 4, DeviceNumber::F16, ReduceOp::Sum, stream(0)), short);
        told(nccl.broadcast(1, memory, memory, 2, DeviceNumber::I64, stream(0)), short);
        told(nccl.broadcast(2, memory, memory, 1, DeviceNumber::U8, stream(0)), "no rank 2 in a communicator of 2 in broadcast");
        let bits = "NCCL failed to reduce with Or: it combines no bits\nhint: Sum, Prod, Min or Max";
        told(nccl.allreduce(memory, memory, 1, DeviceNumber::U8, ReduceOp::Or, stream(0)), bits);
        nccl.wait(stream(0), deadline(SHORT)).unwrap();
    });
}

#[test]
fn ranks_that_do_not_fit_are_refused() {
    let refuse = |gpus: &[usize], size, timeout, expect: &str| {
        for answer in run(gpus, size, timeout, |nccl| nccl.unwrap_err().to_string()) {
            assert!(answer.contains(expect), "{answer}");
        }
    };
    let patient = Duration::from_secs(60);
    refuse(&[1, 1], 2, patient, "ranks 0 and 1 name the same GPU\nhint: give each rank a GPU of its own");
    refuse(&[2], 1, patient, "there is no GPU 2, this process may use 2\nhint: see CUDA_VISIBLE_DEVICES");
    refuse(&[0], 2, SHORT, "timed out in connect after 0.1 s waiting for rank 1");
}

/// NCCL has heard of all ranks, but they do not reach each other.
#[test]
fn ranks_that_never_meet_are_a_timeout() {
    let server = StoreServer::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), "").unwrap();
    let store = Store::connect(server.address(), deadline(Duration::from_secs(60))).unwrap();
    let gpu_and_version = [[9; 16].as_slice(), b"2.28.9"].concat();
    store.set("nccl/rank/1", &gpu_and_version).unwrap();
    store.set("nccl/rank/2", &[[8; 16].as_slice(), b"2.28.9"].concat()).unwrap();
    let at = Rendezvous { timeout: SHORT, ..Rendezvous::through(server.address().clone(), "t/0", 0, 3) };
    let error = Nccl::connect(library(), 0, &at, &store).unwrap_err();
    assert_eq!(error.to_string(), "timed out in connect after 0.1 s");
}

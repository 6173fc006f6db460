//! Messages between leader, agent and ranks: postcard in frames with a length of four bytes, big-endian, in front.
//!
//! ```text
//! leader ──ToAgent──► agent ──ToRank──► rank
//! leader ◄─FromAgent─ agent ◄─FromRank─ rank
//! ```
//!
//! All peers of a session are started by it, but pools may hold executables of another build: each side says hello
//! with [`PROTOCOL`] first. Changing a message here means a new number.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    path::PathBuf,
    time::Duration,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio_util::codec::LengthDelimitedCodec;

use crate::{Cause, Pool, TaskId, TaskKind, json};

/// Version of everything in this file.
pub(crate) const PROTOCOL: u32 = 1;

/// Longest frame. Arguments and results are paths and parameters, never the data itself.
const MAX_FRAME: usize = 256 << 20;

/// Longest task description: a frame with room for what is added to it.
pub(crate) const MAX_DESCRIPTION: usize = 64 << 20;

/// From the leader to an agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum ToAgent {
    /// Answer to `Hello`; comes first.
    Configure {
        /// Session directory.
        dir: PathBuf,
        /// Directory in shared memory for sockets and rendezvous.
        scratch: PathBuf,
        pools: Vec<Pool>,
    },
    /// Start these ranks.
    Launch(Box<Launch>),
    /// End what still runs of this attempt: gently, then after [`GRACE`] by SIGKILL.
    Stop { task: TaskId, attempt: u32, start_timeout: bool },
    /// End everything and yourself.
    Shutdown,
}

/// Time between asking a rank to end and killing it.
pub(crate) const GRACE: Duration = Duration::from_secs(2);

/// The ranks of one attempt of a task that one agent starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Launch {
    pub task: TaskId,
    pub attempt: u32,
    pub name: String,
    pub kind: TaskKind,
    pub env: BTreeMap<String, String>,
    pub dir: PathBuf,
    /// Directory of `rank-<r>.{out,err}`.
    pub logs: PathBuf,
    /// Number of ranks of the task on all nodes.
    pub size: u32,
    pub ranks: Vec<LaunchRank>,
}

/// One rank of a launch; its position in the list is its local rank.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LaunchRank {
    pub rank: u32,
    /// Core slots.
    pub cores: Vec<u32>,
    /// GPU slots.
    pub gpus: Vec<u32>,
}

/// From an agent to the leader.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum FromAgent {
    /// Comes first.
    Hello { protocol: u32, pid: u32 },
    /// News of a rank.
    Rank {
        task: TaskId,
        attempt: u32,
        rank: u32,
        /// When, on the node's monotonic clock.
        at: Duration,
        news: RankNews,
    },
}

/// What happened to a rank.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum RankNews {
    /// The process runs; of a function: it is about to be called.
    Started { pid: u32 },
    /// Its communicator is built.
    Connected,
    /// It reports progress.
    Progress(#[serde(with = "json")] Value),
    /// It is over.
    Ended { end: RankEnd, stderr_tail: String },
}

/// How a rank ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum RankEnd {
    /// Well; with the function's result, `null` for executables.
    Done(#[serde(with = "json")] Value),
    /// By its own fault.
    Failed(Cause),
    /// Because it was told to.
    Stopped,
}

/// From the agent to a warm rank.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum ToRank {
    /// Call a function. Only sent when none runs.
    Run(Box<Run>),
    /// Raise the flag behind `TaskContext::canceled`.
    Cancel,
}

/// One call of a function in one rank.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    pub task: String,
    pub attempt: u32,
    pub rank: u32,
    pub size: u32,
    pub local_rank: u32,
    pub function: String,
    #[serde(with = "json")]
    pub arguments: Value,
    /// All variables to set for the time of the call.
    pub env: Vec<(String, String)>,
    pub dir: PathBuf,
    pub rendezvous: PathBuf,
    pub stdout: PathBuf,
    pub stderr: PathBuf,
    /// CPU numbers.
    pub cores: Vec<u32>,
    /// As in `CUDA_VISIBLE_DEVICES`.
    pub gpus: Vec<String>,
}

/// From a warm rank to the agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum FromRank {
    /// Comes first; `worker` is `DEEPRC_RANK_ID`.
    Hello { protocol: u32, worker: u64 },
    /// The function is about to be called.
    Started { at: Duration },
    /// Its communicator is built.
    Connected { at: Duration },
    /// It reports progress.
    Progress(#[serde(with = "json")] Value),
    /// It returned.
    Returned {
        at: Duration,
        #[serde(with = "json")]
        value: Value,
    },
    /// It failed. After a panic the process is not used again.
    Failed {
        at: Duration,
        message: String,
        #[serde(with = "json")]
        detail: Value,
        panicked: bool,
    },
}

/// Splits a byte stream into frames and back.
pub(crate) fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(MAX_FRAME).new_codec()
}

/// The content of a frame.
pub(crate) fn encode<T: Serialize>(message: &T) -> io::Result<Bytes> {
    postcard::to_stdvec(message).map(Bytes::from).map_err(io::Error::other)
}

/// A message from the content of a frame.
pub(crate) fn decode<T: DeserializeOwned>(frame: &[u8]) -> io::Result<T> {
    postcard::from_bytes(frame).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Writes one frame to a blocking stream.
pub(crate) fn write<T: Serialize>(stream: &mut impl Write, message: &T) -> io::Result<()> {
    let content = encode(message)?;
    let length = u32::try_from(content.len()).ok().filter(|&length| length as usize <= MAX_FRAME);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "message is too long"))?;
    let mut frame = Vec::with_capacity(4 + content.len());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&content);
    stream.write_all(&frame)
}

/// Reads one frame from a blocking stream; `None` at its end.
pub(crate) fn read<T: DeserializeOwned>(stream: &mut impl Read) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_FRAME {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "message is too long"));
    }
    let mut content = vec![0; length];
    stream.read_exact(&mut content)?;
    decode(&content).map(Some)
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use serde_json::json;
    use tokio_util::codec::{Decoder, Encoder};

    use super::*;

    fn message() -> FromAgent {
        let news = RankNews::Ended {
            end: RankEnd::Failed(Cause::Error { message: "no".into(), detail: json!({"line": 3, "x": [1.5, null]}) }),
            stderr_tail: "é\n".into(),
        };
        FromAgent::Rank { task: TaskId(7), attempt: 2, rank: 1, at: Duration::from_nanos(5), news }
    }

    #[test]
    fn json_survives_postcard() {
        let encoded = encode(&message()).unwrap();
        assert_eq!(decode::<FromAgent>(&encoded).unwrap(), message());
    }

    #[test]
    fn blocking_and_asynchronous_framing_agree() {
        let mut bytes = Vec::new();
        write(&mut bytes, &message()).unwrap();
        let frame = codec().decode(&mut BytesMut::from(&bytes[..])).unwrap().unwrap();
        assert_eq!(decode::<FromAgent>(&frame).unwrap(), message());

        let mut framed = BytesMut::new();
        codec().encode(encode(&message()).unwrap(), &mut framed).unwrap();
        let mut stream = &framed[..];
        assert_eq!(read::<FromAgent>(&mut stream).unwrap(), Some(message()));
        assert_eq!(read::<FromAgent>(&mut stream).unwrap(), None);
    }

    #[test]
    fn a_monstrous_length_is_refused() {
        assert!(read::<FromAgent>(&mut &[0xff; 8][..]).is_err());
    }
}

//! Distributed query plans: DataFusion plans over the partitions of all ranks, run one stage after the other.
//!
//! A plan always has `ranks × threads` partitions; rank `r` runs those from `r * threads` on. Every rank plans the same query itself.
//! Because the leaves declare all partitions, DataFusion's own planner decides (and its sanity check proves) where data must move; the
//! rule in [`rule`] replaces each node that moves data by an [`ExchangeExec`], the only node that knows of ranks. [`driver`] runs the
//! exchanges in post-order, which is the same on every rank, as one blocking collective each, and then the root.
//!
//! ```text
//!  rank 0                 rank 1
//!  scan p0 p1             scan p2 p3          W = 2 ranks, t = 2 threads: 4 partitions
//!    │  │                   │  │
//!    └──┴── ExchangeExec ───┴──┘              one all-to-all, every rank learns of every failure
//!    │  │                   │  │
//!  join p0 p1             join p2 p3          DataFusion's operator, unchanged
//! ```

pub(crate) mod driver;
mod exec;
mod placement;
mod range;
pub(crate) mod rule;
mod stage;
mod subquery;
pub(crate) mod wire;

pub(crate) use exec::{ExchangeExec, Scheme};
pub(crate) use placement::{Owner, placement};
pub(crate) use subquery::RankSubqueryExec;

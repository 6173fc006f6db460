//! Reading the memory of another process of this host: one copy instead of the two that a ring takes.
//!
//! The kernel allows it to processes of one user unless a security module or a container says otherwise, so ranks try it when
//! they meet, and go through the rings if it fails.

use std::{
    env, io,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::frame::Lent;

/// Parts of a call. The kernel takes 1024.
const PARTS: usize = 512;
/// Bytes of a part. The kernel reads less than 2 GiB in a call.
const LONGEST: usize = 1 << 20;

/// What other processes try to read; its value is this process's own.
static PROBE: AtomicU64 = AtomicU64::new(0);

/// With the value 0 this process copies nothing itself, for comparison and where the kernel's copy is slow.
const VARIABLE: &str = "DEEPRC_COMM_LEND";

/// Whether this process is to copy from others at all.
pub(super) fn wanted() -> bool {
    env::var(VARIABLE).map_or(true, |wish| wish.trim() != "0")
}

/// Where the probe of this process is, and its value.
pub(super) fn probe() -> (u64, u64) {
    let value = u64::from(std::process::id()) << 32 | 0x5eed;
    PROBE.store(value, Ordering::SeqCst);
    ((&raw const PROBE).addr() as u64, value)
}

/// Whether the memory of a process with this probe can be read.
pub(super) fn works(pid: u32, (address, value): (u64, u64)) -> bool {
    let mut found = [0; 8];
    read(pid, &mut found, &[Lent { start: 0, length: 8, address }]).is_ok() && u64::from_ne_bytes(found) == value
}

/// Copies pieces of another process's memory to their places in `into`. The pieces are in the order of their places.
///
/// # Errors
/// `ESRCH` when the process has ended, `EFAULT` when the memory is not there any more, `EPERM`.
pub(super) fn read(pid: u32, into: &mut [u8], pieces: &[Lent]) -> io::Result<()> {
    let mut rest = into;
    let mut at = 0;
    let (mut local, mut remote) = (Vec::with_capacity(PARTS), Vec::with_capacity(PARTS));
    for piece in pieces {
        let (mut address, mut left) = (piece.address, piece.length);
        rest = rest.get_mut(piece.start - at..).ok_or(io::ErrorKind::InvalidData)?;
        at = piece.start;
        while left > 0 {
            let count = left.min(LONGEST);
            let (here, behind) = rest.split_at_mut_checked(count).ok_or(io::ErrorKind::InvalidData)?;
            local.push(libc::iovec { iov_base: here.as_mut_ptr().cast(), iov_len: count });
            // An address of the other process: only the kernel looks there.
            remote.push(libc::iovec { iov_base: std::ptr::without_provenance_mut(address as usize), iov_len: count });
            (rest, at, address, left) = (behind, at + count, address + count as u64, left - count);
            if local.len() == PARTS {
                call(pid, &local, &remote)?;
                local.clear();
                remote.clear();
            }
        }
    }
    call(pid, &local, &remote)
}

fn call(pid: u32, local: &[libc::iovec], remote: &[libc::iovec]) -> io::Result<()> {
    if local.is_empty() {
        return Ok(());
    }
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::ErrorKind::InvalidInput)?;
    let counts = (local.len() as libc::c_ulong, remote.len() as libc::c_ulong);
    // SAFETY: `local` points to disjoint parts of the slice that `read` borrows mutably, each with its length; the kernel checks
    // the other process's addresses.
    let copied = unsafe { libc::process_vm_readv(pid, local.as_ptr(), counts.0, remote.as_ptr(), counts.1, 0) };
    let wanted: usize = local.iter().map(|part| part.iov_len).sum();
    match usize::try_from(copied) {
        Ok(copied) if copied == wanted => Ok(()),
        Ok(_) => Err(io::Error::from_raw_os_error(libc::EFAULT)),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::{LONGEST, Lent, PARTS, probe, read, works};

    #[test]
    fn pieces_come_to_their_places() {
        let pid = std::process::id();
        assert!(!works(pid, (probe().0, 7)));
        if !works(pid, probe()) {
            return;
        }
        let sources: Vec<Vec<u8>> = [3, 0, LONGEST + 5, 1].into_iter().cycle().take(3 * PARTS / 2).map(|length| vec![9; length]).collect();
        let mut start = 0;
        let pieces: Vec<Lent> = sources
            .iter()
            .map(|source| {
                let piece = Lent { start, length: source.len(), address: source.as_ptr().addr() as u64 };
                start += source.len() + 2;
                piece
            })
            .collect();
        let mut into = vec![0; start];
        read(pid, &mut into, &pieces).unwrap();
        for piece in &pieces {
            assert!(into[piece.start..][..piece.length].iter().all(|&byte| byte == 9));
            assert_eq!(into[piece.start + piece.length..][..2], [0, 0], "between the pieces");
        }
        assert!(read(pid, &mut into, &[Lent { start: 0, length: 8, address: 8 }]).is_err(), "nobody has memory there");
    }
}

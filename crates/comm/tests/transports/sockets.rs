//! Drops the connections of this process, as a firewall or a router that restarts would.
#![expect(unsafe_code, reason = "the sockets belong to a foreign library, only their numbers are known")]

use std::{fs, net::SocketAddr, os::fd::BorrowedFd};

use rustix::net::{Shutdown, getpeername, shutdown};

/// Shuts down every TCP connection of this process, except those to a port; how many there were.
pub(crate) fn drop_all(except: Option<u16>) -> usize {
    let open: Vec<i32> =
        fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    let dropped = open.into_iter().filter(|&number| {
        // SAFETY: a number of a descriptor that was closed meanwhile gives an error of the calls below, no more; nothing is
        // opened by this thread, and one that another thread opened under the same number is dropped as the others are.
        let socket = unsafe { BorrowedFd::borrow_raw(number) };
        let peer = getpeername(socket).ok().flatten().and_then(|address| SocketAddr::try_from(address).ok());
        peer.is_some_and(|peer| Some(peer.port()) != except) && shutdown(socket, Shutdown::Both).is_ok()
    });
    dropped.count()
}

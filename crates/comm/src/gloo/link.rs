//! One process's end of all its connections.

use std::{
    env,
    ffi::CString,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket},
    sync::Arc,
    time::Duration,
};

use super::{
    desk::{Desk, Other},
    ffi::{Group, Line, Place},
};
use crate::{
    Error, Rendezvous, Result, Store,
    mailbox::{Address, State},
    network::{Meeting, Outgoing, abort, hello, leave, meet},
    process::HostId,
    transport::{Deadline, Message},
    turn::Turn,
    watch::Watch,
};

/// Frames have at most so many bytes, hence messages up to about this length travel without a handshake. A rank keeps memory for 8
/// of them for each other rank (`kPosted` of the shim).
const FRAME: usize = 16 << 10;
/// Short messages that are under way to a rank, before a sender waits for it to take some.
const AHEAD: usize = 256;
/// The connection of a process that died ends by itself, at once, unless another process has inherited it.
const GRACE: Duration = Duration::from_millis(500);
/// How long a rank that leaves waits until the others have what it sent: they answer at once unless they are stopped.
const FAREWELL: Duration = Duration::from_secs(1);
/// Names the interface to listen on, as for torch.
const INTERFACE: &str = "GLOO_SOCKET_IFNAME";

/// Sends, and hands out what Gloo's thread has received. The fields are dropped in this order.
pub(super) struct Link {
    rank: usize,
    /// To each rank; held for a whole message, whose frames and bodies must not mix with another's.
    lanes: Vec<Turn<()>>,
    _watch: Watch,
    group: Group<Arc<Desk>>,
}

impl Link {
    pub(super) fn connect(at: &Rendezvous, store: &Store, deadline: Deadline<'_>) -> Result<Self> {
        let desk = Arc::new(Desk::new(at.size));
        let patience = deadline.remaining(None)?.as_millis() as u64;
        let place = place(store)?;
        let group = Group::open(at.rank, at.size, FRAME, &place, patience, desk.clone())
            .map_err(|reason| failed("listen for", at.rank, with_hint(reason)))?;
        let line = *group.line();
        let others = |rank: &usize| *rank != at.rank;
        let addresses: Vec<Vec<u8>> = (0..at.size).map(|rank| if others(&rank) { line.address(rank) } else { Vec::new() }).collect();
        let meeting = meet(at, store, &joined(&addresses), deadline)?;
        let watch = Watch::start(meeting.near(at.rank), {
            let desk = desk.clone();
            move |rank| desk.bury(&line, rank, Deadline::new("connect", GRACE))
        })?;
        for rank in (0..at.size).filter(others) {
            let address = reachable(&meeting, rank, at.rank)?;
            let drawn = meeting.peers[rank].drawn;
            desk.expect_hello(rank, drawn, meeting.drawn);
            line.connect(rank, &address).map_err(|reason| {
                let error = watch.is_dead(rank).then_some(Error::PeerDead { rank });
                error.or_else(|| deadline.remaining(rank).err()).unwrap_or_else(|| failed("connect to", rank, reason))
            })?;
            // Fails only when the connection is over already, which the wait below finds out.
            let _ = desk.send_frame(&line, rank, &hello(meeting.drawn, drawn));
        }
        for rank in (0..at.size).filter(others) {
            // An abort is for the calls after this one: a rank that has all its connections may have come to it already.
            let greeted = |state: &mut State| {
                let other = desk.other(rank);
                match (other.greeted, other.ended) {
                    (true, _) => Some(Ok(())),
                    (false, true) => Some(Err(state.closed(rank).unwrap_or(Error::PeerDead { rank }))),
                    (false, false) => None,
                }
            };
            desk.mailbox.wait(rank, deadline, None, greeted)?;
        }
        Ok(Link { rank: at.rank, lanes: (0..at.size).map(|_| Turn::new(())).collect(), _watch: watch, group })
    }

    fn desk(&self) -> &Desk {
        self.group.listener()
    }

    fn line(&self) -> &Line {
        self.group.line()
    }

    pub(super) fn recv(&self, address: Address, deadline: Deadline<'_>) -> Result<Message> {
        self.desk().mailbox.take(address, deadline, None)
    }

    /// Returns when all bytes are with the operating system, or for a short message with Gloo.
    pub(super) fn send(&self, to: usize, address: Address, message: Message, deadline: Deadline<'_>) -> Result<()> {
        let mailbox = &self.desk().mailbox;
        if to == self.rank {
            mailbox.put(address, message);
            return Ok(());
        }
        if let Some(error) = mailbox.closed(to) {
            return Err(error);
        }
        let _held = self.lanes[to].take(to, deadline)?;
        let Outgoing { frames, bodies } = Outgoing::new(address.context, address.tag, &message, FRAME);
        for frame in frames {
            self.wait(to, deadline, |other| other.frames < AHEAD)?;
            self.desk().send_frame(self.line(), to, &frame).or_else(|_| self.broken(to, deadline))?;
        }
        if bodies.is_empty() {
            return Ok(());
        }
        let last = {
            let mut other = self.desk().other(to);
            other.held.extend(bodies.iter().cloned());
            other.begun += bodies.len() as u64;
            other.begun
        };
        for body in &bodies {
            // SAFETY: the desk holds the bytes until they were sent, and the group holds the desk.
            unsafe { self.line().send(to, body) }.or_else(|_| self.broken(to, deadline))?;
        }
        self.wait(to, deadline, |other| other.done >= last)
    }

    pub(super) fn abort(&self, reason: &str) {
        self.desk().mailbox.abort(Error::Aborted { rank: self.rank, reason: reason.to_owned() });
        self.tell_all(&abort(reason, FRAME));
    }

    pub(super) fn wake(&self) {
        self.desk().mailbox.wake_all();
    }

    /// Waits until something holds of a rank, or the rank is gone.
    fn wait(&self, rank: usize, deadline: Deadline<'_>, holds: impl Fn(&Other) -> bool) -> Result<()> {
        self.desk().mailbox.wait(rank, deadline, None, |state| match holds(&self.desk().other(rank)) {
            true => Some(Ok(())),
            false => state.closed(rank).map(Err),
        })
    }

    /// Why a connection does not work, which Gloo's thread is about to tell.
    fn broken(&self, rank: usize, deadline: Deadline<'_>) -> Result<()> {
        self.wait(rank, deadline, |_| false)
    }

    fn tell_all(&self, frame: &[u8]) {
        for rank in (0..self.lanes.len()).filter(|rank| *rank != self.rank) {
            // Who cannot be told has gone.
            let _ = self.desk().send_frame(self.line(), rank, frame);
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.tell_all(&leave());
        let others = || (0..self.lanes.len()).filter(|rank| *rank != self.rank);
        let over = |rank| {
            let other = self.desk().other(rank);
            other.acknowledged || other.ended
        };
        // Who does not answer in time is stopped, or was lost with its network: it has been waited for long enough.
        let _ = self.desk().mailbox.wait(self.rank, Deadline::new("leave", FAREWELL), None, |_| others().all(over).then_some(Ok(())));
    }
}

/// What most likely helps, unless the reason says it itself.
fn with_hint(reason: String) -> String {
    if reason.contains("hint: ") { reason } else { format!("{reason}\nhint: {INTERFACE} names the network interface to use") }
}

fn failed(action: &str, rank: usize, reason: String) -> Error {
    Error::Library { library: "Gloo", action: format!("{action} rank {rank}"), reason }
}

/// The interface that the user names, else the address by which this process reaches the store: by that the others, who
/// reach it as well, most likely reach this process.
fn place(store: &Store) -> Result<Place> {
    let text = |text: String| CString::new(text).map_err(|error| Error::io("name the address to listen on", error));
    if let Some(names) = env::var(INTERFACE).ok().filter(|names| !names.is_empty()) {
        let first = names.split(',').next().unwrap_or_default().trim().to_owned();
        return text(first).map(Place::Interface);
    }
    let server = store.address();
    let found = (server.host.as_str(), server.port).to_socket_addrs().and_then(|mut all| {
        let server = all.next().ok_or(std::io::ErrorKind::NotFound)?;
        let own: SocketAddr = match server {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        // Sends nothing: the system only chooses the address that it would send from.
        let socket = UdpSocket::bind(own)?;
        socket.connect(server)?;
        socket.local_addr()
    });
    let found = found.map_err(|error| Error::io(format!("find the address by which {} is reached", server.host), error))?;
    text(found.ip().to_string()).map(Place::Address)
}

/// The address that a rank listens at for rank `me`.
fn reachable(meeting: &Meeting, rank: usize, me: usize) -> Result<Vec<u8>> {
    let peer = &meeting.peers[rank];
    let address = split(&peer.address).nth(me).ok_or(Error::Corrupt { rank })?;
    if peer.process.is_none() && is_loopback(address) && !HostId::is_pretended() {
        let reason = format!("it listens on the loopback of another host\nhint: {INTERFACE} names the network interface to use");
        return Err(failed("connect to", rank, reason));
    }
    Ok(address.to_vec())
}

/// Gloo writes the `sockaddr_storage` first: the family, then for IPv4 the port and the address, for IPv6 also the flow.
fn is_loopback(address: &[u8]) -> bool {
    let family = address.first_chunk().map(|family| i32::from(u16::from_ne_bytes(*family)));
    let part = |from: usize, to: usize| address.get(from..to);
    match family {
        Some(family) if family == i32::from(rustix::net::AddressFamily::INET.as_raw()) => part(4, 5) == Some(&[127]),
        Some(family) if family == i32::from(rustix::net::AddressFamily::INET6.as_raw()) => {
            part(8, 24) == Some(&Ipv6Addr::LOCALHOST.octets())
        }
        _ => false,
    }
}

/// Byte strings with their lengths.
fn joined(all: &[Vec<u8>]) -> Vec<u8> {
    all.iter().flat_map(|one| [&(one.len() as u32).to_le_bytes(), one.as_slice()].concat()).collect()
}

fn split(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk()?;
        let (one, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        rest = after;
        Some(one)
    })
}

#[cfg(test)]
mod tests {
    use super::{is_loopback, joined, split};

    #[test]
    fn addresses_are_split_as_they_were_joined() {
        let all = [vec![], vec![1, 2], vec![3; 192]];
        assert_eq!(split(&joined(&all)).collect::<Vec<_>>(), all);
        assert_eq!(split(&[9, 0, 0, 0, 1]).count(), 0);
    }

    #[test]
    fn loopbacks_are_known() {
        assert!(is_loopback(&[2, 0, 9, 9, 127, 0, 1, 1]));
        assert!(!is_loopback(&[2, 0, 9, 9, 10, 0, 0, 1]));
        let six = |last: u8| [vec![10, 0, 9, 9, 0, 0, 0, 0], vec![0; 15], vec![last]].concat();
        assert!(is_loopback(&six(1)) && !is_loopback(&six(2)) && !is_loopback(&[]));
    }
}

//! Memory for messages that is used again.
//!
//! A fresh page costs a fault and is zeroed by the kernel. Between 2 processes on 2 virtual cores that is half of the time of an
//! `all_to_all` of 256 MB per rank, so buffers that nobody needs any more are kept for the next message.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use memmap2::{Advice, MmapMut, UncheckedAdvice};

/// The shortest memory that is worth it; below, the allocator of the process does as well.
pub(crate) const SHORTEST: usize = 64 << 10;
/// From this length on, memory is asked for in huge pages, and given to the kernel while nobody uses it: it may take the pages
/// when it needs them, and if it does not, they are there without a fault.
const HUGE: usize = 2 << 20;
/// How many bytes a process keeps at most.
const KEPT: usize = 512 << 20;
/// Powers of two: the kept memory of length `SHORTEST << class` is at `class`.
const CLASSES: usize = (usize::BITS - SHORTEST.ilog2()) as usize;

static POOL: Mutex<Pool> = Mutex::new(Pool { free: [const { Vec::new() }; CLASSES], bytes: 0 });

struct Pool {
    free: [Vec<Region>; CLASSES],
    /// Of all that is kept.
    bytes: usize,
}

struct Region {
    map: MmapMut,
    /// So many bytes have ever been used; those behind have no pages.
    touched: usize,
}

/// Bytes of any content that can be written to. Starts at a page.
pub(crate) struct Memory {
    /// Always there until the drop.
    region: Option<Region>,
    length: usize,
}

impl Memory {
    /// Memory of this length; `None` when it is too short for the pool or the system gives none.
    pub(crate) fn take(length: usize) -> Option<Memory> {
        if length < SHORTEST {
            return None;
        }
        let class = class(length);
        let kept = {
            let mut pool = lock();
            let region = pool.free.get_mut(class)?.pop();
            pool.bytes -= region.as_ref().map_or(0, |region| region.touched);
            region
        };
        let mut region = match kept {
            Some(region) => region,
            None => {
                let map = MmapMut::map_anon(SHORTEST.checked_shl(class as u32)?).ok()?;
                if map.len() >= HUGE {
                    // Without huge pages it is only slower.
                    let _ = map.advise(Advice::HugePage);
                }
                Region { map, touched: 0 }
            }
        };
        region.touched = region.touched.max(length);
        Some(Memory { region: Some(region), length })
    }

    /// The memory itself, which returns to the pool when the last reference is dropped.
    pub(crate) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }

    fn map(&mut self) -> &mut MmapMut {
        &mut self.region.as_mut().expect(UNTIL_DROPPED).map
    }
}

const UNTIL_DROPPED: &str = "memory has its region until it is dropped";

/// A copy of some bytes, in memory of the pool if they are many.
pub(crate) fn copy(bytes: &[u8]) -> Bytes {
    match Memory::take(bytes.len()) {
        Some(mut memory) => {
            memory.as_mut().copy_from_slice(bytes);
            memory.freeze()
        }
        None => Bytes::copy_from_slice(bytes),
    }
}

impl AsRef<[u8]> for Memory {
    fn as_ref(&self) -> &[u8] {
        &self.region.as_ref().expect(UNTIL_DROPPED).map[..self.length]
    }
}

impl AsMut<[u8]> for Memory {
    fn as_mut(&mut self) -> &mut [u8] {
        let length = self.length;
        &mut self.map()[..length]
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("length", &self.length).finish_non_exhaustive()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let Some(region) = self.region.take() else { return };
        if region.touched > KEPT - lock().bytes.min(KEPT) {
            return;
        }
        if region.touched >= HUGE {
            lend_to_kernel(&region);
        }
        let mut pool = lock();
        pool.bytes += region.touched;
        pool.free[class(region.map.len())].push(region);
    }
}

fn class(length: usize) -> usize {
    (length.div_ceil(SHORTEST).max(1) - 1).checked_ilog2().map_or(0, |log| log as usize + 1)
}

fn lock() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

#[expect(unsafe_code, reason = "the advice may change what is in the memory")]
fn lend_to_kernel(region: &Region) {
    // SAFETY: nobody refers to the memory any more, it is private and anonymous, and its next user takes any content: zeros as
    // well as the old bytes.
    let _ = unsafe { region.map.unchecked_advise_range(UncheckedAdvice::Free, 0, region.touched) };
}

#[cfg(test)]
mod tests {
    use super::{Memory, SHORTEST, class, copy};

    #[test]
    fn classes_hold_what_is_put_in_them() {
        for (length, expect) in [(SHORTEST, 0), (SHORTEST + 1, 1), (2 * SHORTEST, 1), (2 * SHORTEST + 1, 2), (1 << 40, 24)] {
            assert_eq!(class(length), expect);
            assert!(SHORTEST << class(length) >= length);
        }
    }

    #[test]
    fn memory_is_used_again_but_not_while_it_is_used() {
        assert!(Memory::take(SHORTEST - 1).is_none());
        // A length that no other test has.
        let length = (40 << 20) + 1;
        let first = copy(&vec![1; length]);
        let place = first.as_ptr();
        let mut second = Memory::take(length).unwrap();
        second.as_mut().fill(2);
        assert!(first.iter().all(|&byte| byte == 1) && second.as_ref().len() == length);
        drop(first.slice(5..6));
        drop(second);
        let again = [Memory::take(length).unwrap(), Memory::take(length).unwrap()];
        assert!(again.iter().all(|memory| memory.as_ref().as_ptr() != place), "the first is still used");
        drop(first);
        assert_eq!(Memory::take(length).unwrap().as_ref().as_ptr(), place);
    }
}

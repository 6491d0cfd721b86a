//! Device memory: memory of this process, in allocations that every access is checked against.
//!
//! An allocation starts at a multiple of 256 and is surrounded by guard zones that belong to no allocation. Fresh memory
//! and freed memory are filled with 0xFF, which is no number in any floating point format and an index out of any range.
//! Freed memory stays reserved for a while, so that a use after free is found as one.

use std::alloc::{Layout, alloc, dealloc};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Bytes before and after an allocation that belong to nobody.
const GUARD: usize = 1024;
const ALIGN: usize = 256;

/// What the device claims to have.
pub const TOTAL: usize = 16 << 30;

/// Freed memory that stays reserved.
const RESERVED: usize = 256 << 20;

/// Whose memory it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// An allocation, by its number.
    Allocation(u32),
    /// A variable of a module.
    Variable(String),
    /// Host memory that kernels may use.
    Host,
}

/// A piece of memory.
#[derive(Clone, Debug)]
pub struct Region {
    /// First address.
    pub start: u64,
    /// Address behind the last.
    pub end: u64,
    /// Whether it may be used.
    pub live: bool,
    /// Whose it is.
    pub owner: Owner,
    /// Whether the memory was allocated here.
    owned: bool,
}

/// All memory, as one launch sees it.
#[derive(Debug, Default)]
pub struct View {
    /// By address.
    pub regions: Vec<Region>,
    names: Vec<(u64, u64, String)>,
}

impl View {
    /// The region that an address lies in.
    pub fn find(&self, address: u64) -> Option<usize> {
        let at = self.regions.partition_point(|region| region.start <= address);
        let at = at.checked_sub(1)?;
        (address < self.regions[at].end).then_some(at)
    }

    /// Whose memory an address is, or what lies nearest.
    pub fn describe(&self, address: u64) -> String {
        if let Some((start, _, name)) = self
            .names
            .iter()
            .find(|(start, end, _)| (*start..*end).contains(&address))
        {
            return format!("byte {} of {name}", address - start);
        }
        if let Some(at) = self.find(address) {
            return format!("byte {} of {}", address - self.regions[at].start, self.regions[at]);
        }
        let distance = |region: &Region| {
            if address < region.start {
                region.start - address
            } else {
                address - region.end + 1
            }
        };
        match self.regions.iter().min_by_key(|region| distance(region)) {
            Some(region) if address < region.start && distance(region) < 1 << 30 => {
                format!("{} bytes before {region}", region.start - address)
            }
            Some(region) if distance(region) < 1 << 30 => {
                format!("{} bytes past the end of {region}", address - region.end)
            }
            _ => format!("address {address:#x}, which is near no allocation"),
        }
    }
}

impl std::fmt::Display for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes = self.end - self.start;
        match &self.owner {
            Owner::Allocation(number) => write!(f, "allocation {number} ({bytes} bytes)"),
            Owner::Variable(name) => write!(f, "variable {name} ({bytes} bytes)"),
            Owner::Host => write!(f, "host memory ({bytes} bytes)"),
        }
    }
}

/// Device memory.
#[derive(Default)]
pub struct Memory {
    regions: BTreeMap<u64, Region>,
    names: Vec<(u64, u64, String)>,
    freed: VecDeque<u64>,
    freed_bytes: usize,
    used: usize,
    allocations: u32,
    view: Option<Arc<View>>,
}

fn layout(bytes: usize) -> Option<Layout> {
    Layout::from_size_align(bytes.checked_add(2 * GUARD)?, ALIGN).ok()
}

impl Memory {
    /// Allocates; none when the device's memory is exhausted.
    pub fn allocate(&mut self, bytes: usize) -> Option<u64> {
        let number = self.allocations;
        self.allocations += 1;
        self.reserve(bytes, Owner::Allocation(number))
    }

    /// Memory for a variable or a pinned buffer.
    pub fn reserve(&mut self, bytes: usize, owner: Owner) -> Option<u64> {
        if self.used + bytes > TOTAL {
            return None;
        }
        let layout = layout(bytes)?;
        // SAFETY: the layout's size is not zero.
        let base = unsafe { alloc(layout) };
        if base.is_null() {
            return None;
        }
        // SAFETY: the block is as long as its layout says.
        unsafe { base.write_bytes(0xff, layout.size()) };
        let start = base as u64 + GUARD as u64;
        self.used += bytes;
        self.insert(start, bytes, owner, true);
        Some(start)
    }

    /// Lets kernels use memory that is the caller's.
    pub fn register(&mut self, start: u64, bytes: usize) {
        self.insert(start, bytes, Owner::Host, false);
    }

    fn insert(&mut self, start: u64, bytes: usize, owner: Owner, owned: bool) {
        let region = Region {
            start,
            end: start + bytes as u64,
            live: true,
            owner,
            owned,
        };
        self.regions.insert(start, region);
        self.view = None;
    }

    /// Frees what starts at an address; false if nothing does.
    pub fn free(&mut self, start: u64) -> bool {
        let Some(region) = self.regions.get_mut(&start) else {
            return false;
        };
        if !region.live {
            return false;
        }
        self.view = None;
        let bytes = (region.end - region.start) as usize;
        self.names
            .retain(|(name_start, ..)| !(region.start..region.end).contains(name_start));
        if !region.owned {
            self.regions.remove(&start);
            return true;
        }
        region.live = false;
        self.used -= bytes;
        // SAFETY: the region is allocated with this many bytes until it is taken out of `regions`.
        unsafe { (start as *mut u8).write_bytes(0xff, bytes) };
        self.freed.push_back(start);
        self.freed_bytes += bytes;
        while self.freed_bytes > RESERVED
            && let Some(oldest) = self.freed.pop_front()
        {
            self.release(oldest);
        }
        true
    }

    fn release(&mut self, start: u64) {
        let Some(region) = self.regions.remove(&start) else {
            return;
        };
        let bytes = (region.end - region.start) as usize;
        self.freed_bytes -= bytes;
        let layout = layout(bytes).expect("the layout that it was allocated with");
        // SAFETY: allocated with this layout, GUARD bytes before `start`, and released once.
        unsafe { dealloc((start as usize - GUARD) as *mut u8, layout) };
    }

    /// Gives a part of an allocation a name for messages.
    pub fn name(&mut self, start: u64, bytes: u64, name: String) {
        self.names
            .retain(|(other, end, _)| *other >= start + bytes || *end <= start);
        self.names.push((start, start + bytes, name));
        self.view = None;
    }

    /// Whether bytes from an address on are all within one live region.
    pub fn contains(&self, start: u64, bytes: usize) -> bool {
        let region = self.regions.range(..=start).next_back();
        region.is_some_and(|(_, region)| region.live && start + bytes as u64 <= region.end)
    }

    /// Whether an address is in host memory that the device knows.
    pub fn is_pinned(&self, start: u64) -> bool {
        let region = self.regions.range(..=start).next_back();
        region.is_some_and(|(_, region)| region.owner == Owner::Host && region.live && start < region.end)
    }

    /// Start and size of the live region that an address lies in.
    pub fn range_of(&self, address: u64) -> Option<(u64, usize)> {
        let (_, region) = self.regions.range(..=address).next_back()?;
        (region.live && address < region.end).then(|| (region.start, (region.end - region.start) as usize))
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.used
    }

    /// The map as it is now.
    pub fn view(&mut self) -> Arc<View> {
        if let Some(view) = &self.view {
            return view.clone();
        }
        let view = Arc::new(View {
            regions: self.regions.values().cloned().collect(),
            names: self.names.clone(),
        });
        self.view = Some(view.clone());
        view
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let owned: Vec<u64> = self
            .regions
            .values()
            .filter(|region| region.owned)
            .map(|region| region.start)
            .collect();
        self.freed_bytes = usize::MAX / 2;
        for start in owned {
            self.release(start);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_described_by_what_lies_nearest() {
        let mut memory = Memory::default();
        let first = memory.allocate(100).unwrap();
        memory.name(first + 16, 16, "weights".to_string());
        let view = memory.view();
        assert_eq!(view.describe(first + 4), "byte 4 of allocation 0 (100 bytes)");
        assert_eq!(view.describe(first + 20), "byte 4 of weights");
        assert_eq!(
            view.describe(first + 103),
            "3 bytes past the end of allocation 0 (100 bytes)"
        );
        assert_eq!(view.find(first + 100), None);
        assert!(memory.contains(first, 100) && !memory.contains(first, 101));
        assert!(memory.free(first) && !memory.free(first));
        assert!(!memory.contains(first, 1));
        assert_eq!(memory.view().find(first), Some(0));
    }
}

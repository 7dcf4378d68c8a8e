//! [`UnwindMaps`] over the maps of the loaded BPF programs.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::thread::JoinHandle;
use std::time::Duration;

use leakd_common::unwind::{CELL_WORDS, Cell, Mapping, RULES, Rule, TABLES, TableGeometry};

use crate::bpf::sys::{self, MapSpec, map_flags, map_type};
use crate::unwind::store::{MappingPrefix, UnwindMaps};

/// Between two looks at whether new tables are in their places.
const LOOK_AGAIN: Duration = Duration::from_micros(20);
/// Elements in one batch command.
const BATCH: usize = 4096;

/// The maps by what they hold; duplicates of the loader's descriptors will do.
#[derive(Debug)]
pub struct MapDescriptors {
    /// Array of maps: table number to cells.
    pub tables: OwnedFd,
    /// Array: table number to [`TableGeometry`].
    pub geometry: OwnedFd,
    /// Array: rule number to [`Rule`].
    pub rules: OwnedFd,
    /// LPM trie: [`MappingPrefix`] to [`Mapping`].
    pub mappings: OwnedFd,
    /// Array of 8-byte words: the walkers' cache, 0 for nothing.
    pub cache: OwnedFd,
}

/// [`UnwindMaps`] over real maps.
#[derive(Debug)]
pub struct KernelMaps {
    maps: MapDescriptors,
    /// Elements of the walkers' cache.
    cache_entries: u32,
    /// Stands under the numbers of retired tables.
    empty: OwnedFd,
    /// Wait for the kernel to have waited, each for a few tables.
    publishing: Vec<JoinHandle<io::Result<()>>>,
}

/// What an inner map of `tables` looks like, but for its size: the template
/// for making the array of maps, too.
pub const fn table_spec(cells: u32) -> MapSpec<'static> {
    MapSpec {
        map_type: map_type::ARRAY,
        key_size: 4,
        value_size: size_of::<Cell>() as u32,
        max_entries: cells,
        flags: map_flags::MMAPABLE | map_flags::INNER_MAP,
        name: "leakd_table",
    }
}

impl KernelMaps {
    /// Checks that the maps have the shapes that this module writes.
    pub fn new(maps: MapDescriptors) -> io::Result<Self> {
        let expect = |what, fd: &OwnedFd, map_type, key: usize, value: usize, entries: usize| {
            let shape = sys::map_shape(fd.as_fd())?;
            if (shape.map_type, shape.key_size, shape.value_size)
                == (map_type, key as u32, value as u32)
                && shape.max_entries as usize >= entries
            {
                Ok(shape.max_entries)
            } else {
                Err(io::Error::other(format!("the map of {what} has the wrong shape: {shape:?}")))
            }
        };
        let (array, prefix) = (map_type::ARRAY, size_of::<MappingPrefix>());
        expect("tables", &maps.tables, map_type::ARRAY_OF_MAPS, 4, 4, TABLES)?;
        expect("geometries", &maps.geometry, array, 4, size_of::<TableGeometry>(), TABLES)?;
        expect("rules", &maps.rules, array, 4, size_of::<Rule>(), RULES)?;
        let mapping = size_of::<Mapping>();
        expect("mappings", &maps.mappings, map_type::LPM_TRIE, prefix, mapping, 1)?;
        let cache_entries = expect("cached rules", &maps.cache, array, 4, 8, 1)?;
        let empty = sys::map_create(&table_spec(1))?;
        Ok(Self { maps, cache_entries, empty, publishing: Vec::new() })
    }

    /// Writes descriptors of inner maps, without waiting for the walkers.
    ///
    /// The command itself waits for them (maybe_wait_bpf_programs() in
    /// kernel/bpf/syscall.c; 9 to 18 ms), for the sake of whoever takes a map
    /// away; but a walker finds each table as soon as it is in its place. So
    /// another thread gives the command, and this one looks for the last table.
    fn set_new_tables(&mut self, numbers: &[u32], tables: Vec<OwnedFd>) -> io::Result<()> {
        self.finish_publishing(false)?;
        let Some(last) = numbers.last().map(|number| number.to_ne_bytes()) else { return Ok(()) };
        let outer = self.maps.tables.try_clone()?;
        let mut inner = [0; 4];
        if sys::map_lookup(outer.as_fd(), &last, &mut inner)? {
            // Used before: whether the new one is there cannot be told so simply.
            return set_tables(outer.as_fd(), numbers, &tables);
        }
        let thread = std::thread::Builder::new().name("unwind-tables".to_owned());
        let publishing = thread.spawn({
            let (outer, numbers) = (outer.try_clone()?, numbers.to_vec());
            move || set_tables(outer.as_fd(), &numbers, &tables)
        })?;
        // Written in order: when the last one is there, all are.
        while !sys::map_lookup(outer.as_fd(), &last, &mut inner)? {
            if publishing.is_finished() {
                return finish(publishing);
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        self.publishing.push(publishing);
        Ok(())
    }

    /// Ends the commands of [`Self::set_new_tables`] that are through; or waits
    /// for all.
    fn finish_publishing(&mut self, all: bool) -> io::Result<()> {
        let (through, others): (Vec<_>, _) =
            self.publishing.drain(..).partition(|thread| all || thread.is_finished());
        self.publishing = others;
        through.into_iter().try_for_each(finish)
    }

    fn set_geometries(&self, numbers: &[u32], geometries: &[TableGeometry]) -> io::Result<()> {
        let numbers: Vec<[u8; 4]> = numbers.iter().map(|number| number.to_ne_bytes()).collect();
        let geometries: Vec<[u8; 16]> = geometries.iter().map(geometry_bytes).collect();
        update_all(self.maps.geometry.as_fd(), &numbers, &geometries)
    }
}

impl UnwindMaps for KernelMaps {
    type Table = OwnedFd;

    fn create_table(&mut self, cells: &[Cell]) -> io::Result<OwnedFd> {
        let count = u32::try_from(cells.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let fd = sys::map_create(&table_spec(count))?;
        fill(fd.as_fd(), cells)?;
        Ok(fd)
    }

    fn publish_tables(&mut self, tables: Vec<(u32, TableGeometry, OwnedFd)>) -> io::Result<()> {
        let numbers: Vec<u32> = tables.iter().map(|(number, ..)| *number).collect();
        let geometries: Vec<_> = tables.iter().map(|(_, geometry, _)| *geometry).collect();
        let cells: Vec<_> = tables.into_iter().map(|(.., fd)| fd).collect();
        self.set_new_tables(&numbers, cells)?;
        self.set_geometries(&numbers, &geometries)
    }

    fn retire_tables(&mut self, numbers: &[u32]) -> io::Result<()> {
        self.set_geometries(numbers, &vec![TableGeometry::default(); numbers.len()])?;
        // Replacing an inner map waits for walkers, as maybe_wait_bpf_programs()
        // in kernel/bpf/syscall.c promises.
        self.finish_publishing(true)?;
        set_tables(self.maps.tables.as_fd(), numbers, &vec![self.empty.as_fd(); numbers.len()])
    }

    fn set_rules(&mut self, first: u32, rules: &[Rule]) -> io::Result<()> {
        let numbers: Vec<[u8; 4]> =
            (first..).take(rules.len()).map(|number| number.to_ne_bytes()).collect();
        let rules: Vec<[u8; 8]> = rules.iter().map(|rule| rule.0.to_ne_bytes()).collect();
        update_all(self.maps.rules.as_fd(), &numbers, &rules)
    }

    fn insert_mappings(&mut self, mappings: &[(MappingPrefix, Mapping)]) -> io::Result<()> {
        let prefixes: Vec<[u8; 20]> =
            mappings.iter().map(|(prefix, _)| prefix_bytes(prefix)).collect();
        let values: Vec<[u8; 32]> =
            mappings.iter().map(|(_, mapping)| mapping_bytes(mapping)).collect();
        update_all(self.maps.mappings.as_fd(), &prefixes, &values)
    }

    fn remove_mappings(&mut self, prefixes: &[MappingPrefix]) -> io::Result<()> {
        let fd = self.maps.mappings.as_fd();
        for prefixes in prefixes.chunks(BATCH) {
            let keys: Vec<[u8; 20]> = prefixes.iter().map(prefix_bytes).collect();
            let deleted = sys::map_delete_batch(fd, keys.as_flattened(), keys.len() as u32);
            if deleted.is_ok() {
                continue;
            }
            // A batch ends at the first that is not there.
            for key in &keys {
                sys::map_delete(fd, key)?;
            }
        }
        Ok(())
    }

    fn flush_cache(&mut self) -> io::Result<()> {
        let entries: Vec<[u8; 4]> = (0..self.cache_entries).map(u32::to_ne_bytes).collect();
        update_all(self.maps.cache.as_fd(), &entries, &vec![[0; 8]; entries.len()])
    }
}

/// Waits for a thread that publishes tables.
fn finish(thread: JoinHandle<io::Result<()>>) -> io::Result<()> {
    let panicked = |_| Err(io::Error::other("the thread that loads unwind tables panicked"));
    thread.join().unwrap_or_else(panicked)
}

/// Writes descriptors of inner maps, and waits for the walkers. One batch waits
/// for one RCU grace period; single updates would wait for one each.
fn set_tables(outer: BorrowedFd<'_>, numbers: &[u32], tables: &[impl AsRawFd]) -> io::Result<()> {
    let numbers: Vec<[u8; 4]> = numbers.iter().map(|number| number.to_ne_bytes()).collect();
    let tables: Vec<[u8; 4]> = tables.iter().map(|fd| fd.as_raw_fd().to_ne_bytes()).collect();
    update_all(outer, &numbers, &tables)
}

/// Updates in batches, or one by one where the kernel knows none for this type
/// of map (arrays of maps before Linux 5.17).
fn update_all<const K: usize, const V: usize>(
    fd: BorrowedFd<'_>,
    keys: &[[u8; K]],
    values: &[[u8; V]],
) -> io::Result<()> {
    for (keys, values) in keys.chunks(BATCH).zip(values.chunks(BATCH)) {
        let count = keys.len() as u32;
        let (flat_keys, flat_values) = (keys.as_flattened(), values.as_flattened());
        match sys::map_update_batch(fd, flat_keys, flat_values, count, 0) {
            Ok(_) => {}
            Err(error) if no_such_command(&error) => {
                for (key, value) in keys.iter().zip(values) {
                    sys::map_update(fd, key, value, 0)?;
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn no_such_command(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(sys::ENOTSUPP | libc::EINVAL | libc::EOPNOTSUPP))
}

/// Copies cells into an array, through a mapping of it: one system call in
/// place of one for each cell.
fn fill(fd: BorrowedFd<'_>, cells: &[Cell]) -> io::Result<()> {
    let length = size_of_val(cells);
    // SAFETY: a new mapping at an address that the kernel chooses.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            fd.as_raw_fd(),
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let target = NonNull::new(address.cast::<Cell>()).ok_or(io::ErrorKind::InvalidData)?;
    // SAFETY: the mapping is new, page-aligned, `length` bytes long, and ends
    // here; no program can see the array yet.
    unsafe {
        target.copy_from_nonoverlapping(NonNull::from(cells).cast(), cells.len());
        libc::munmap(address, length);
    }
    Ok(())
}

fn geometry_bytes(geometry: &TableGeometry) -> [u8; 16] {
    let TableGeometry { first_page, pages, row_cell, reserved } = *geometry;
    flatten([first_page, pages, row_cell, reserved].map(u32::to_ne_bytes))
}

/// The prefix's fields are in the kernel's byte order already.
fn prefix_bytes(prefix: &MappingPrefix) -> [u8; 20] {
    let key = prefix.key;
    let words = [prefix.length, key.tgid, key.reserved, key.address_high, key.address_low];
    flatten(words.map(u32::to_ne_bytes))
}

fn mapping_bytes(mapping: &Mapping) -> [u8; 32] {
    let Mapping { begin, end, bias, table, reserved } = *mapping;
    let last = if cfg!(target_endian = "little") {
        u64::from(table) | u64::from(reserved) << 32
    } else {
        u64::from(reserved) | u64::from(table) << 32
    };
    flatten([begin, end, bias, last].map(u64::to_ne_bytes))
}

fn flatten<const N: usize, const W: usize, const B: usize>(words: [[u8; W]; N]) -> [u8; B] {
    let mut bytes = [0; B];
    bytes.copy_from_slice(words.as_flattened());
    bytes
}

const _: () = assert!(size_of::<Cell>() == 4 * CELL_WORDS);

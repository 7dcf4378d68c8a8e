//! Maps in the real kernel, as the loader makes them for the walker.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use leakd_common::unwind::{
    Cell, MAPPINGS, Mapping, MappingKey, NO_TABLE, RULES, Rule, TABLES, TableGeometry,
};

use super::walker;
use crate::bpf::sys::{self, MapSpec, map_flags, map_type};
use crate::unwind::kernel_maps::{KernelMaps, MapDescriptors, table_spec};
use crate::unwind::store::{MappingPrefix, UnwindMaps as _};
use crate::unwind::table::Cells;

/// The maps, and a second descriptor of each to look into them.
pub(super) struct Kernel {
    tables: OwnedFd,
    geometry: OwnedFd,
    rules: OwnedFd,
    mappings: OwnedFd,
    cache: OwnedFd,
}

const CACHE_ENTRIES: u32 = 1024;

pub(super) fn kernel() -> (KernelMaps, Kernel) {
    let array = |name, value_size: usize, max_entries: usize| {
        let (value_size, max_entries) = (value_size as u32, max_entries as u32);
        let map_type = map_type::ARRAY;
        sys::map_create(&MapSpec { map_type, key_size: 4, value_size, max_entries, flags: 0, name })
            .expect("root, and a kernel with bpf(2)")
    };
    let template = sys::map_create(&table_spec(1)).unwrap();
    let tables = MapSpec {
        map_type: map_type::ARRAY_OF_MAPS,
        key_size: 4,
        value_size: 4,
        max_entries: TABLES as u32,
        flags: 0,
        name: "leakd_tables",
    };
    let mappings = MapSpec {
        map_type: map_type::LPM_TRIE,
        key_size: 20,
        value_size: 32,
        max_entries: MAPPINGS as u32,
        flags: map_flags::NO_PREALLOC,
        name: "leakd_mappings",
    };
    let kernel = Kernel {
        tables: sys::map_create_of_maps(&tables, template.as_fd()).unwrap(),
        geometry: array("leakd_geometry", 16, TABLES),
        rules: array("leakd_rules", 8, RULES),
        mappings: sys::map_create(&mappings).unwrap(),
        cache: array("leakd_cache", 8, CACHE_ENTRIES as usize),
    };
    let again = |fd: &OwnedFd| fd.try_clone().unwrap();
    let maps = MapDescriptors {
        tables: again(&kernel.tables),
        geometry: again(&kernel.geometry),
        rules: again(&kernel.rules),
        mappings: again(&kernel.mappings),
        cache: again(&kernel.cache),
    };
    (KernelMaps::new(maps).unwrap(), kernel)
}

fn words<const N: usize>(bytes: &[u8]) -> [u32; N] {
    std::array::from_fn(|at| u32::from_ne_bytes(bytes[4 * at..][..4].try_into().unwrap()))
}

impl Kernel {
    /// The mapping that holds an address, as bpf_map_lookup_elem() finds it.
    pub(super) fn mapping(&self, pid: u32, address: u64) -> Option<Mapping> {
        let key = MappingKey::new(pid, address);
        let key = [128, key.tgid, key.reserved, key.address_high, key.address_low];
        let key: Vec<u8> = key.into_iter().flat_map(u32::to_ne_bytes).collect();
        let mut value = [0; 32];
        let found = sys::map_lookup(self.mappings.as_fd(), &key, &mut value).unwrap();
        let long = |at: usize| u64::from_ne_bytes(value[8 * at..][..8].try_into().unwrap());
        let [table, reserved] = words(&value[24..]);
        found.then(|| Mapping { begin: long(0), end: long(1), bias: long(2), table, reserved })
    }

    /// The cells under a number; `None`: no table.
    pub(super) fn table(&self, number: u32) -> Option<Cells> {
        let mut geometry = [0; 16];
        assert!(
            sys::map_lookup(self.geometry.as_fd(), &number.to_ne_bytes(), &mut geometry).unwrap()
        );
        let [first_page, pages, row_cell, reserved] = words(&geometry);
        let geometry = TableGeometry { first_page, pages, row_cell, reserved };
        let mut id = [0; 4];
        if !sys::map_lookup(self.tables.as_fd(), &number.to_ne_bytes(), &mut id).unwrap()
            || pages == 0
        {
            return None;
        }
        let inner = sys::map_open(u32::from_ne_bytes(id)).unwrap();
        let count = sys::map_shape(inner.as_fd()).unwrap().max_entries;
        let cells = (0..count).map(|index| {
            let mut cell = [0; 64];
            sys::map_lookup(inner.as_fd(), &index.to_ne_bytes(), &mut cell).unwrap();
            words(&cell)
        });
        Some(Cells { cells: cells.collect(), geometry })
    }

    pub(super) fn rule(&self, number: u32) -> Rule {
        let mut rule = [0; 8];
        sys::map_lookup(self.rules.as_fd(), &number.to_ne_bytes(), &mut rule).unwrap();
        Rule(u64::from_ne_bytes(rule))
    }

    /// The whole way from an address to a rule, as the walker goes it.
    pub(super) fn rule_at(&self, pid: u32, address: u64) -> Result<Rule, &'static str> {
        let mapping = self.mapping(pid, address).ok_or("no mapping")?;
        assert!((mapping.begin..mapping.end).contains(&address));
        if mapping.table == NO_TABLE {
            return Err("mapping without a table");
        }
        let table = self.table(mapping.table).ok_or("no table")?;
        walker::find(&table, address.wrapping_sub(mapping.bias)).map(|number| self.rule(number))
    }
}

/// Check that cells, geometry, rules and mappings arrive in the kernel as they
/// were given, and that a retired table is gone.
#[test]
fn written_and_read_back() {
    let (mut maps, kernel) = kernel();
    let tables: Vec<Vec<Cell>> = (1..40u32)
        .map(|count| (0..count * 9).map(|index| [index ^ count << 16; 16]).collect())
        .collect();
    let geometry =
        |number: u32| TableGeometry { first_page: number, pages: 7, row_cell: 3, reserved: 0 };
    let publish = (100..)
        .zip(&tables)
        .map(|(number, cells)| (number, geometry(number), maps.create_table(cells).unwrap()));
    let publish: Vec<_> = publish.collect();
    maps.publish_tables(publish).unwrap();
    for (number, cells) in (100..).zip(&tables) {
        let read = kernel.table(number).unwrap();
        assert_eq!((&read.cells, read.geometry), (cells, geometry(number)));
    }
    assert_eq!(kernel.table(99), None);
    maps.retire_tables(&[100, 105]).unwrap();
    assert_eq!((kernel.table(100), kernel.table(105)), (None, None));
    assert!(kernel.table(101).is_some());

    let rules: Vec<Rule> = (0..10_000).map(|rule| Rule(rule << 20 | 1)).collect();
    maps.set_rules(500, &rules).unwrap();
    assert_eq!(kernel.rule(499), Rule(0));
    assert_eq!((kernel.rule(500), kernel.rule(10_499)), (rules[0], rules[9999]));
    assert!(maps.set_rules(RULES as u32 - 1, &rules[..2]).is_err());

    let mapping = Mapping {
        begin: 0x7f00_1234_5000,
        end: 0x7f00_1234_6000,
        bias: 1 << 63,
        table: 5,
        reserved: 0,
    };
    let prefix = MappingPrefix { length: 64 + 52, key: MappingKey::new(77, mapping.begin) };
    maps.insert_mappings(&[(prefix, mapping)]).unwrap();
    assert_eq!(kernel.mapping(77, mapping.begin + 0xfff), Some(mapping));
    assert_eq!(kernel.mapping(77, mapping.end), None);
    assert_eq!(kernel.mapping(78, mapping.begin), None);
    let other = MappingPrefix { key: MappingKey::new(79, mapping.begin), ..prefix };
    maps.remove_mappings(&[other, prefix]).unwrap();
    assert_eq!(kernel.mapping(77, mapping.begin), None);

    for index in [0, 500, CACHE_ENTRIES - 1] {
        sys::map_update(kernel.cache.as_fd(), &index.to_ne_bytes(), &[1; 8], 0).unwrap();
    }
    maps.flush_cache().unwrap();
    for index in 0..CACHE_ENTRIES {
        let mut word = [1; 8];
        sys::map_lookup(kernel.cache.as_fd(), &index.to_ne_bytes(), &mut word).unwrap();
        assert_eq!(word, [0; 8]);
    }
}

/// Check that maps of another shape are refused when they are handed over.
#[test]
fn wrong_shapes() {
    let (_, kernel) = kernel();
    let maps = MapDescriptors {
        tables: kernel.tables,
        geometry: kernel.cache.try_clone().unwrap(),
        rules: kernel.rules,
        mappings: kernel.mappings,
        cache: kernel.cache,
    };
    let error: io::Error = KernelMaps::new(maps).unwrap_err();
    assert!(error.to_string().contains("the map of geometries"), "{error}");
}

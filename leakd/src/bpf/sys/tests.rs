use std::os::fd::AsFd;

use super::*;

fn map(map_type: u32, key_size: u32, value_size: u32, max_entries: u32, flags: u32) -> OwnedFd {
    let name = "leakd_test";
    map_create(&MapSpec { map_type, key_size, value_size, max_entries, flags, name })
        .expect("root and a kernel with bpf(2)")
}

/// Check that single elements are written, read and deleted, and that an
/// element that is not there is told apart from an error.
#[test]
fn elements() {
    let fd = map(map_type::HASH, 4, 8, 16, 0);
    let mut value = [0; 8];
    assert!(!map_lookup(fd.as_fd(), &[1; 4], &mut value).unwrap());
    map_update(fd.as_fd(), &[1; 4], &[7; 8], 0).unwrap();
    assert!(map_lookup(fd.as_fd(), &[1; 4], &mut value).unwrap());
    assert_eq!(value, [7; 8]);
    assert!(map_delete(fd.as_fd(), &[1; 4]).unwrap());
    assert!(!map_delete(fd.as_fd(), &[1; 4]).unwrap());
}

/// Check that slices shorter than the map's elements are refused before the
/// kernel could write behind them, per-CPU maps included.
#[test]
fn short_slices() {
    let fd = map(map_type::PER_CPU_ARRAY, 4, 4, 1, 0);
    let whole = 8 * possible_cpus().unwrap();
    let mut value = vec![0; whole];
    assert!(map_lookup(fd.as_fd(), &[0; 4], &mut value).unwrap());
    for length in [0, 4, whole - 1] {
        let error = map_lookup(fd.as_fd(), &[0; 4], &mut value[..length]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
    assert!(map_update(fd.as_fd(), &[0; 3], &value, 0).is_err());
    let mut keys = [0; 8];
    let cursor = &mut BatchCursor::new();
    assert!(map_lookup_batch(fd.as_fd(), cursor, &mut keys, &mut value, 3).is_err());
}

/// Check that a batch look-up, begun with buffers that are too small for a
/// bucket, gives every element of a hash map exactly once.
#[test]
fn batches() {
    const COUNT: u32 = 1000;
    let fd = map(map_type::HASH, 4, 8, COUNT, 0);
    let keys: Vec<u8> = (0..COUNT).flat_map(u32::to_ne_bytes).collect();
    let values: Vec<u8> = (0..COUNT).flat_map(|key| u64::from(key * 3).to_ne_bytes()).collect();
    assert_eq!(map_update_batch(fd.as_fd(), &keys, &values, COUNT, 0).unwrap(), COUNT);

    let (mut capacity, mut cursor, mut seen) = (1, BatchCursor::new(), Vec::new());
    let mut grown = 0;
    loop {
        let mut keys = vec![0; 4 * capacity as usize];
        let mut values = vec![0; 8 * capacity as usize];
        match map_lookup_batch(fd.as_fd(), &mut cursor, &mut keys, &mut values, capacity) {
            Ok(batch) => {
                for at in 0..batch.count as usize {
                    let key = u32::from_ne_bytes(keys[4 * at..][..4].try_into().unwrap());
                    let value = u64::from_ne_bytes(values[8 * at..][..8].try_into().unwrap());
                    assert_eq!(value, u64::from(key) * 3);
                    seen.push(key);
                }
                if batch.done {
                    break;
                }
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                capacity *= 2;
                grown += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(grown > 0, "1000 elements without a bucket of two");
    seen.sort_unstable();
    assert_eq!(seen, (0..COUNT).collect::<Vec<_>>());
    assert_eq!(map_delete_batch(fd.as_fd(), &keys, COUNT).unwrap(), COUNT);
    assert!(!map_delete(fd.as_fd(), &[0; 4]).unwrap());
}

//! The daemon's own memory. It reads large files (tables, symbols) at times and
//! is small in between; glibc would keep what it had at its largest.

/// Arenas of glibc's malloc: one for each thread would hold on to much more.
const ARENAS: i32 = 2;

/// Keeps glibc from making an arena for each thread. To be called before there
/// are others.
pub fn limit_arenas() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt(3) with a documented parameter; one thread runs.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
    }
}

/// Gives freed memory back to the kernel.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) has no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
}

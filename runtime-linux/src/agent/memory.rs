//! Memory of readings goes back to the system.

/// Keeps large buffers out of the heap that small ones share, for as long as the process runs.
///
/// A reading of the sources takes buffers of some megabytes and gives them back. glibc maps such buffers apart at first; once
/// one was given back it takes the next ones of that size from the heap, where a single small allocation above them keeps
/// them from the system. musl maps them apart always.
pub fn map_large_buffers() {
    #[cfg(target_env = "gnu")]
    {
        // what glibc begins with; that it is set keeps it from growing (mallopt(3), M_MMAP_THRESHOLD)
        const THRESHOLD: nix::libc::c_int = 128 * 1024;
        // SAFETY: mallopt takes two numbers and keeps no pointers; glibc locks its arena against other threads.
        let _ = unsafe { nix::libc::mallopt(nix::libc::M_MMAP_THRESHOLD, THRESHOLD) };
    }
}

//! Tests that need a kernel, an emulator or another tool live in `tests/`.

//! Load, attach, drain, snapshot.

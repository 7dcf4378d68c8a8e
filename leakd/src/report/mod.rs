//! The report: its model and its renderers.

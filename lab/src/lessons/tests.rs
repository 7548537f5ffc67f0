//! The lessons that podlab has with it.

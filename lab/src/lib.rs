//! podlab: whole pod networks out of network namespaces on one machine, and the proof on captured packets
//! of what they do.
//!
//! A lab lives in a capsule of namespaces that the kernel removes with its last process. Pods are made by
//! calling CNI plugins as a runtime does; the library does not link any plugin.

pub mod agent;
pub mod bench;
pub mod breaking;
pub mod bundle;
mod bytes;
pub mod capsule;
pub mod capture;
pub mod cli;
pub mod cluster;
pub mod construct;
pub mod containers;
pub mod control;
pub mod controller;
pub mod doctor;
pub mod encap;
mod esp;
pub mod events;
pub mod evidence;
pub mod exit;
pub mod fabric;
pub mod faults;
pub mod graph;
pub mod identity;
pub mod inspect;
pub mod kubectl;
pub mod kubia;
pub mod labels;
pub mod lessons;
mod look;
pub mod modes;
pub mod objects;
pub mod output;
pub mod packet;
pub mod page;
pub mod pcapng;
pub mod plugins;
pub mod probe;
pub mod record;
mod relay;
pub mod runner;
pub mod schemas;
pub mod serve;
pub mod services;
pub mod sighting;
pub mod sockets;
pub mod stack;
pub mod step;
pub mod suites;
pub mod supervisor;
pub mod tap;
pub mod topology;
pub mod trace;
pub mod verdict;
pub mod verify;
pub mod why;

//! What a client may take: bytes, headers, time, connections.

use std::time::Duration;

/// Limits for all clients.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Most bytes of a body.
    pub body: usize,
    /// Most headers of a request.
    pub headers: usize,
    /// Most bytes of a request's line and headers.
    pub header_bytes: usize,
    /// Time in which they must arrive.
    pub header_time: Duration,
    /// Longest pause within a body.
    pub body_time: Duration,
    /// Levels that JSON may be nested.
    pub json_depth: usize,
    /// How long a request may wait for its model to be loaded.
    pub wait: Duration,
    /// Connections at once; more wait to be accepted.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            body: 8 << 20,
            headers: 64,
            header_bytes: 32 << 10,
            header_time: Duration::from_secs(10),
            body_time: Duration::from_secs(30),
            json_depth: 64,
            wait: Duration::from_secs(60),
            connections: 512,
        }
    }
}

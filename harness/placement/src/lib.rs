//! Protection domains, tenants and the supervisor, as processes with real walls.

pub mod trial;

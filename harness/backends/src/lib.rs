//! What a driver may ask of the world, over a machine in this process.

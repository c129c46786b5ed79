//! Model of virtio-blk over modern virtio-pci.

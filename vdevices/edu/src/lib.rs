//! Model of QEMU's edu teaching device.

//! The PCI layer shared by every device model: configuration space, BARs, capabilities, MSI, MSI-X, FLR.

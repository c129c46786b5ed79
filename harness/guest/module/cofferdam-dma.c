// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * A driver that maps memory for DMA the ordinary way, on request.
 *
 * A device that VFIO drives is in a domain of VFIO's, which is always strict. What the kernel's own
 * domains do (identity, lazy, strict) can only be seen by a driver that uses the kernel's DMA API;
 * this one does nothing else. The device's registers are left to user space (resource0).
 *
 * It binds to nothing by itself: write "cofferdam-dma" to a device's driver_override, then bind. It
 * serves one device at a time.
 *
 *   /dev/cofferdam-dma          the buffer, SIZE bytes: read and written at an offset
 *   <device>/cofferdam/physical its physical address
 *   <device>/cofferdam/map      write "SLOT OFFSET LENGTH DIRECTION" to map a part of it, with the
 *                               direction to-device, from-device or bidirectional; read gives a
 *                               line "SLOT ADDRESS LENGTH DIRECTION" a mapping
 *   <device>/cofferdam/unmap    write "SLOT"; read gives the time at which the last unmapping had
 *                               returned, in nanoseconds of CLOCK_MONOTONIC
 *
 * It is for a guest that is thrown away: root can make the device write anywhere by it.
 */
#include <linux/dma-mapping.h>
#include <linux/fs.h>
#include <linux/gfp.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/timekeeping.h>

#define NAME "cofferdam-dma"
#define ORDER 3
#define SIZE (PAGE_SIZE << ORDER)
#define SLOTS 16

struct mapping {
	dma_addr_t at;
	u32 length; /* 0: the slot is free */
	enum dma_data_direction direction;
};

/* Guards everything below, and keeps the device bound while it is used. */
static DEFINE_MUTEX(lock);
static struct page *buffer;
static struct mapping mappings[SLOTS];
static u64 unmapped_at;

static const char *const directions[] = {
	[DMA_BIDIRECTIONAL] = "bidirectional",
	[DMA_TO_DEVICE] = "to-device",
	[DMA_FROM_DEVICE] = "from-device",
};

static void unmap(struct device *dev, struct mapping *mapping)
{
	if (!mapping->length)
		return;
	dma_unmap_page(dev, mapping->at, mapping->length, mapping->direction);
	unmapped_at = ktime_get_ns();
	mapping->length = 0;
}

static ssize_t map_store(struct device *dev, struct device_attribute *attr,
			 const char *text, size_t len)
{
	unsigned int slot, offset, length;
	struct mapping *mapping;
	char name[16];
	int direction;
	ssize_t result = len;

	if (sscanf(text, "%u %u %u %15s", &slot, &offset, &length, name) != 4)
		return -EINVAL;
	direction = match_string(directions, ARRAY_SIZE(directions), name);
	if (direction < 0)
		return direction;
	if (slot >= SLOTS || !length || offset >= SIZE || length > SIZE - offset)
		return -ERANGE;

	mutex_lock(&lock);
	mapping = &mappings[slot];
	if (mapping->length) {
		result = -EBUSY;
	} else {
		dma_addr_t at = dma_map_page(dev, buffer, offset, length, direction);

		if (dma_mapping_error(dev, at))
			result = -EIO;
		else
			*mapping = (struct mapping){ at, length, direction };
	}
	mutex_unlock(&lock);
	return result;
}

static ssize_t map_show(struct device *dev, struct device_attribute *attr, char *text)
{
	ssize_t len = 0;
	unsigned int slot;

	mutex_lock(&lock);
	for (slot = 0; slot < SLOTS; slot++) {
		const struct mapping *mapping = &mappings[slot];

		if (mapping->length)
			len += sysfs_emit_at(text, len, "%u %#llx %u %s\n", slot,
					     (unsigned long long)mapping->at, mapping->length,
					     directions[mapping->direction]);
	}
	mutex_unlock(&lock);
	return len;
}
static DEVICE_ATTR_RW(map);

static ssize_t unmap_store(struct device *dev, struct device_attribute *attr,
			   const char *text, size_t len)
{
	unsigned int slot;
	ssize_t result = len;

	if (kstrtouint(text, 10, &slot))
		return -EINVAL;
	if (slot >= SLOTS)
		return -ERANGE;
	mutex_lock(&lock);
	if (mappings[slot].length)
		unmap(dev, &mappings[slot]);
	else
		result = -ENOENT;
	mutex_unlock(&lock);
	return result;
}

static ssize_t unmap_show(struct device *dev, struct device_attribute *attr, char *text)
{
	u64 at;

	mutex_lock(&lock);
	at = unmapped_at;
	mutex_unlock(&lock);
	return sysfs_emit(text, "%llu\n", at);
}
static DEVICE_ATTR_RW(unmap);

static ssize_t physical_show(struct device *dev, struct device_attribute *attr, char *text)
{
	return sysfs_emit(text, "%#llx\n", (unsigned long long)page_to_phys(buffer));
}
static DEVICE_ATTR_RO(physical);

static struct attribute *attributes[] = {
	&dev_attr_map.attr,
	&dev_attr_unmap.attr,
	&dev_attr_physical.attr,
	NULL,
};

static const struct attribute_group group = {
	.name = "cofferdam",
	.attrs = attributes,
};

static const struct attribute_group *groups[] = { &group, NULL };

static ssize_t buffer_read(struct file *file, char __user *to, size_t len, loff_t *at)
{
	ssize_t result = -ENODEV;

	mutex_lock(&lock);
	if (buffer)
		result = simple_read_from_buffer(to, len, at, page_address(buffer), SIZE);
	mutex_unlock(&lock);
	return result;
}

static ssize_t buffer_write(struct file *file, const char __user *from, size_t len, loff_t *at)
{
	ssize_t result = -ENODEV;

	mutex_lock(&lock);
	if (buffer)
		result = simple_write_to_buffer(page_address(buffer), SIZE, at, from, len);
	mutex_unlock(&lock);
	return result;
}

static const struct file_operations operations = {
	.owner = THIS_MODULE,
	.read = buffer_read,
	.write = buffer_write,
	.llseek = default_llseek,
};

static struct miscdevice node = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = NAME,
	.fops = &operations,
	.mode = 0600,
};

static int probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct page *pages;
	int error;

	error = pcim_enable_device(pdev);
	if (error)
		return error;
	error = dma_set_mask_and_coherent(&pdev->dev, DMA_BIT_MASK(64));
	if (error)
		return error;
	pages = alloc_pages(GFP_KERNEL | __GFP_ZERO, ORDER);
	if (!pages)
		return -ENOMEM;

	mutex_lock(&lock);
	if (buffer) {
		error = -EBUSY;
	} else {
		buffer = pages;
		error = misc_register(&node);
		if (error)
			buffer = NULL;
	}
	mutex_unlock(&lock);
	if (error) {
		__free_pages(pages, ORDER);
		return error;
	}
	pci_set_master(pdev);
	return 0;
}

static void remove(struct pci_dev *pdev)
{
	unsigned int slot;

	/* A transfer that is still to come must not find the pages with their next owner. */
	pci_clear_master(pdev);
	misc_deregister(&node);
	mutex_lock(&lock);
	for (slot = 0; slot < SLOTS; slot++)
		unmap(&pdev->dev, &mappings[slot]);
	__free_pages(buffer, ORDER);
	buffer = NULL;
	mutex_unlock(&lock);
}

static struct pci_driver dma_driver = {
	.name = NAME,
	.probe = probe,
	.remove = remove,
	.dev_groups = groups,
};
module_pci_driver(dma_driver);

MODULE_DESCRIPTION("Maps memory for DMA the ordinary way, on request");
MODULE_AUTHOR("Cofferdam contributors");
MODULE_LICENSE("Dual MIT/GPL");

/* SPDX-License-Identifier: MIT */
/*
 * Tables of QEMU's options, devices and drive interfaces that are not here (absent.h): for each the
 * sentence that says what to use instead. Names that nobody knows get the nearest one as a hint
 * elsewhere.
 */
#include "vmm/absent.h"
#include "lib/bytes.h"
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct absent {
	const char *names; /* separated by spaces; a name that ends in '*' stands for all that begin
			      so */
	const char *why;
};

#define NO_CARD    "there is no such network card; use virtio-net-pci, ne2k_pci or ne2k_isa"
#define NO_REDIR   "use -nic user with hostfwd=, tftp=, bootfile="
#define NO_USB     "there is no USB; keyboard and mouse are PS/2, disks IDE or virtio devices"
#define NO_VIRTIO  "there is no such virtio device; -device help lists those there are"
#define NO_SOUND   "there is no sound card"
#define NO_REMOTE  "there is no remote display; use -display sdl, -nographic or screendump"
#define NO_GDB     "there is no gdb server in this version; the monitor has info registers, x and xp"
#define NO_SHARING "there is no TPM and no shared folder; files come in on a disk or CD image"

static const struct absent options[] = {
	{"redir tftp bootp", NO_REDIR},
	{"smb", "there is no SMB server; share files with -nic user,tftp=DIR"},
	{"usb usbdevice", NO_USB},
	{"audio audiodev audio-help soundhw", NO_SOUND},
	{"vnc spice", NO_REMOTE},
	{"gdb s", NO_GDB},
	{"tpmdev fsdev virtfs", NO_SHARING},
	{"blockdev", "block nodes are not named one by one; use -drive file=,format=,if="},
	{"sd mtdblock pflash",
	 "disks are IDE, virtio and floppy disks; use -hda, -drive if=virtio, -cdrom or -fda"},
	{"loadvm incoming only-migratable",
	 "a running machine cannot be saved or moved in this version"},
	{"k",
	 "keys are passed on by their position, so the guest's own layout counts; leave it out"},
	{"smbios acpitable", "the tables are minivm's own; -uuid sets the one value to choose"},
	{"global set readconfig writeconfig",
	 "properties are given with the option they belong to, such as -device or -drive"},
	{"numa mem-path mem-prealloc overcommit", "guest memory is ordinary memory of the host"},
	{"sandbox runas chroot run-with",
	 "minivm does not confine itself; start it as the user and in the sandbox it shall run in"},
	{"icount seed", "guest time follows the host's clock"},
	{"curses sdl", "the display is chosen with -display sdl, -display none or -nographic"},
	{"win2k-hack", "the IDE drive needs no delay for Windows 2000; leave it out"},
	{"trace dfilter singlestep", "traces are chosen with -d; -d help lists them"},
	{"fw_cfg", "firmware configuration items cannot be added"},
	{"portrait rotate g full_screen",
	 "the window shows the screen as it is; -full-screen fills it"},
	{"watchdog watchdog-action action", "there is no watchdog and no action to choose"},
	{"dtb semihosting prom-env", "that is for other processors than the x86"},
	{"xen*", "there is no Xen support; -accel help lists what runs the guest"},
};

static const struct absent devices[] = {
	{"e1000* rtl8139 pcnet i8255* vmxnet* tulip igb", NO_CARD},
	{"virtio-*", NO_VIRTIO},
	{"usb-* piix3-usb-uhci piix4-usb-uhci qemu-xhci nec-usb-xhci ich9-usb-* pci-ohci ccid-*",
	 NO_USB},
	{"intel-hda hda-* AC97 ES1370 sb16 adlib gus cs4231a", NO_SOUND},
	{"VGA cirrus-vga isa-vga isa-cirrus-vga bochs-display vmware-svga qxl* ramfb ati-vga",
	 "the display adapter is chosen with -vga std or -vga none"},
	{"isa-serial pci-serial*", "serial ports are made with -serial, one for each, up to four"},
	{"isa-parallel", "parallel ports are made with -parallel, one for each, up to three"},
	{"ide-drive", "use ide-hd or ide-cd"},
	{"scsi-* lsi* megasas* mptsas* am53c974 pvscsi dc390 esp nvme* ahci ich9-ahci piix3-ide "
	 "piix4-ide "
	 "sd-card",
	 "disks are -device virtio-blk-pci, or ide-hd and ide-cd with bus=ide.0 or ide.1"},
	{"pci-bridge* ioh3420 pcie-* i82801b11-bridge pxb*", "there is one PCI bus and no bridge"},
	{"vfio-* ivshmem* pvpanic* vmcoreinfo vmgenid* tpm-* ib700 i6300esb hyperv* pc-dimm nvdimm "
	 "smbus* loader generic-sdhci edu isa-ipmi* intel-iommu applesmc",
	 "there is no such device in this PC; -device help lists those there are"},
};

static const struct absent interfaces[] = {
	{"scsi sd mtd pflash xen", "it must be if=ide, if=virtio, if=floppy or if=none"},
};

static bool matches(const char *names, const char *name)
{
	size_t name_len = strlen(name);
	for (const char *p = names; *p;) {
		size_t len = strcspn(p, " ");
		bool begins = len && p[len - 1] == '*';
		if (begins ? !strncmp(p, name, len - 1) : len == name_len && !strncmp(p, name, len))
			return true;
		p += len;
		p += *p == ' ';
	}
	return false;
}

static const char *look_up(const struct absent *table, size_t count, const char *name)
{
	for (size_t n = 0; n < count; n++)
		if (matches(table[n].names, name))
			return table[n].why;
	return NULL;
}

const char *absent_option(const char *name)
{
	return look_up(options, ARRAY_SIZE(options), name);
}

const char *absent_device(const char *driver)
{
	return look_up(devices, ARRAY_SIZE(devices), driver);
}

const char *absent_interface(const char *name)
{
	return look_up(interfaces, ARRAY_SIZE(interfaces), name);
}

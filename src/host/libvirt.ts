/**
 * Reads a libvirt domain as the QEMU options that libvirt makes of it, and builds the virtual
 * machine of these.
 *
 * Source: libvirt documentation, "Domain XML format"; src/qemu/qemu_command.c (names of buses:
 * `pcie.0`, then `pci.N` by the index of the controller), src/qemu/qemu_domain.c:
 * qemuDomainGetMemLockLimitBytes. Elements that have no part in the topology are passed over.
 */
import { StackError } from "../errors.ts";
import { pciName } from "../iommu/pci-function.ts";
import type { Machine } from "../topology/machine.ts";
import { type IgnoredArgument, readCommand } from "./qemu-command.ts";
import type { QemuOption } from "./qemu-options.ts";
import { buildVm } from "./qemu-vm.ts";
import type { VirtualMachine } from "./vm.ts";
import { childAt, childrenAt, parseXml, type XmlElement } from "./xml-tree.ts";

const units = new Map([
  ["b", 1n],
  ["bytes", 1n],
  ["kb", 1000n],
  ["k", 1n << 10n],
  ["kib", 1n << 10n],
  ["mb", 1_000_000n],
  ["m", 1n << 20n],
  ["mib", 1n << 20n],
  ["gb", 1_000_000_000n],
  ["g", 1n << 30n],
  ["gib", 1n << 30n],
  ["t", 1n << 40n],
  ["tib", 1n << 40n],
]);

/**
 * Builds the virtual machine of a domain.
 *
 * @throws StackError `host/libvirt-damaged` with its position
 */
export function vmOfDomain(text: string, file: string, host: Machine | null): VirtualMachine {
  const expected = {
    code: "host/libvirt-damaged",
    what: "this is no libvirt domain",
    hint: "`virsh dumpxml DOMAIN` writes one",
  } as const;
  const domain = parseXml(text, file, expected);
  if (domain.name !== "domain") {
    const { code, what, hint } = expected;
    const message = `${what}: it begins with <${domain.name.slice(0, 40)}>`;
    throw new StackError({ code, kind: "input", message, at: { file }, hint });
  }
  const ignored: IgnoredArgument[] = [];
  const type = childAt(domain, "os", "type");
  const machine = type?.attributes.machine ?? "pc";
  const arch = type?.attributes.arch ?? "x86_64";
  const own = childrenAt(domain, "qemu:arg", "qemu:commandline").map(
    ({ attributes }) => attributes.value ?? "",
  );
  // The words of <qemu:commandline> come last, as libvirt puts them.
  const extra = readCommand(["qemu", ...own], file);
  const options = [
    ...generalOptions(domain, machine),
    ...memoryOptions(domain),
    option("object", { "qom-type": "iommufd", id: "iommufd0" }),
    ...deviceOptions(domain, /q35|virt/.test(machine) ? "pcie.0" : "pci.0", ignored),
    ...extra.options,
  ];
  const program = `qemu-system-${arch}`;
  const vm = buildVm({ program, options, ignored: [...ignored, ...extra.ignored] }, host);
  const limit = childAt(domain, "memtune", "hard_limit");
  return {
    ...vm,
    memlockBytes: limit === undefined ? null : bytesOf(limit),
    libvirt: { domain: vm.name, managed: managedDevices(domain) },
  };
}

function managedDevices(domain: XmlElement): string[] {
  return (childAt(domain, "devices")?.children ?? [])
    .filter(({ attributes }) => attributes.managed === "yes")
    .flatMap((element) => hostAddress(element) ?? []);
}

function option(name: string, values: Record<string, string | undefined>, text = ""): QemuOption {
  const known = Object.entries(values).filter(([, value]) => value !== undefined);
  const map = new Map(known as [string, string][]);
  const words = [...map].map(([key, value]) => `${key}=${value}`).join(",");
  return { name, values: map, text: text === "" ? `-${name} ${words}` : text, isJson: false };
}

function bytesOf(element: XmlElement, key?: string): bigint | null {
  const text = (key === undefined ? element.text : (element.attributes[key] ?? "")).trim();
  const unit = units.get((element.attributes.unit ?? "KiB").toLowerCase());
  return /^\d{1,18}$/.test(text) && unit !== undefined ? BigInt(text) * unit : null;
}

function generalOptions(domain: XmlElement, machine: string): QemuOption[] {
  const memory = childAt(domain, "memory");
  // Where there are cells, what they have is there at the start; the rest of <memory> is plugged in.
  const cells = childrenAt(domain, "cell", "cpu", "numa").map((cell) => bytesOf(cell, "memory"));
  const ofCells = cells.reduce((sum, one) => (sum === null || one === null ? null : sum + one), 0n);
  const all = memory === undefined ? null : bytesOf(memory);
  const bytes = cells.length > 0 && ofCells !== null ? ofCells : all;
  const cpus = childAt(domain, "vcpu")?.text.trim();
  const topology = childAt(domain, "cpu", "topology")?.attributes ?? {};
  const smmu = childrenAt(domain, "iommu", "devices").some(
    ({ attributes }) => attributes.model === "smmuv3",
  );
  const { sockets, dies, clusters, cores, threads } = topology;
  return [
    option("nodefaults", {}),
    option("name", { guest: childAt(domain, "name")?.text.trim() }),
    option("machine", { type: machine, iommu: smmu ? "smmuv3" : undefined }),
    option("m", { size: bytes === null ? undefined : `${bytes}b` }),
    option("smp", { cpus, sockets, dies, clusters, cores, threads }),
  ];
}

/** Cells of the guest and the host's nodes that they are bound to. */
function memoryOptions(domain: XmlElement): QemuOption[] {
  const tune = childAt(domain, "numatune");
  const all = tune === undefined ? undefined : childAt(tune, "memory")?.attributes;
  const nodes = new Map(
    (tune?.children ?? [])
      .filter(({ name }) => name === "memnode")
      .map(({ attributes }) => [attributes.cellid, attributes]),
  );
  const backing = childAt(domain, "memoryBacking");
  const isShared = backing && childAt(backing, "access")?.attributes.mode === "shared";
  const isNow = backing && childAt(backing, "allocation")?.attributes.mode === "immediate";
  const backend = (id: string, bytes: bigint | null, bound: typeof all) =>
    option("object", {
      "qom-type": "memory-backend-ram",
      id,
      size: bytes === null ? undefined : `${bytes}`,
      "host-nodes": bound?.nodeset?.replaceAll("^", ""),
      policy: bound === undefined ? undefined : policyOf(bound.mode),
      share: isShared ? "on" : undefined,
      prealloc: isNow ? "on" : undefined,
    });
  const cells = childrenAt(domain, "cell", "cpu", "numa");
  if (cells.length === 0) {
    const memory = childAt(domain, "memory");
    const bytes = memory === undefined ? null : bytesOf(memory);
    return [backend("pc.ram", bytes, all), option("machine", { "memory-backend": "pc.ram" })];
  }
  return cells.flatMap((cell, at) => {
    const id = cell.attributes.id ?? `${at}`;
    const memdev = `ram-node${id}`;
    const siblings = childrenAt(cell, "sibling", "distances");
    return [
      backend(memdev, bytesOf(cell, "memory"), nodes.get(id) ?? all),
      option("numa", { type: "node", nodeid: id, cpus: cell.attributes.cpus, memdev }),
      ...siblings.map(({ attributes }) =>
        option("numa", { type: "dist", src: id, dst: attributes.id, val: attributes.value }),
      ),
    ];
  });
}

function policyOf(mode: string | undefined): string | undefined {
  return mode === "strict" || mode === undefined
    ? "bind"
    : mode === "restrictive"
      ? undefined
      : mode;
}

/** Controllers first, by index, so that each bus is there before what is on it. */
function deviceOptions(domain: XmlElement, root: string, ignored: IgnoredArgument[]): QemuOption[] {
  const devices = childAt(domain, "devices")?.children ?? [];
  const index = (one: XmlElement) => Number(one.attributes.index ?? 0) || 0;
  const isPci = (one: XmlElement) => one.name === "controller" && one.attributes.type === "pci";
  const controllers = devices.filter(isPci).sort((a, b) => index(a) - index(b));
  const others = devices.filter((one) => !isPci(one));
  return [...controllers, ...others].flatMap((element) => {
    const made = deviceOf(element, root, ignored);
    return made === null ? [] : [made];
  });
}

const controllers = new Map([
  ["pcie-root-port", "pcie-root-port"],
  ["pcie-switch-upstream-port", "x3130-upstream"],
  ["pcie-switch-downstream-port", "xio3130-downstream"],
  ["pcie-expander-bus", "pxb-pcie"],
  ["pci-expander-bus", "pxb"],
  ["pcie-to-pci-bridge", "pcie-pci-bridge"],
  ["pci-bridge", "pci-bridge"],
  ["dmi-to-pci-bridge", "i82801b11-bridge"],
]);

/** Elements that are no PCI devices, or none of their own. */
const passedOver = new Set(
  (
    "emulator serial console channel graphics parallel input hub redirdev redirfilter lease " +
    "smartcard tpm shmem panic memory watchdog audio nvram crypto"
  ).split(" "),
);

function deviceOf(
  element: XmlElement,
  root: string,
  ignored: IgnoredArgument[],
): QemuOption | null {
  const { name, attributes } = element;
  const text = `<${name}${Object.entries(attributes)
    .map(([key, value]) => ` ${key}='${value.slice(0, 40)}'`)
    .join("")}>`;
  const make = (driver: string, more: Record<string, string | undefined> = {}) =>
    option("device", { driver, ...addressOf(element, root), ...more }, text);
  const virtio = () => {
    const { iommu, ats } = childAt(element, "driver")?.attributes ?? {};
    return { iommu_platform: iommu, ats };
  };
  const model = attributes.model ?? childAt(element, "model")?.attributes.type;
  switch (name) {
    case "controller":
      return controllerOf(element, make, virtio);
    case "hostdev":
      if (attributes.type === "mdev") return mediated(element, make);
      return attributes.type === "pci" ? assigned(element, text, make, ignored) : null;
    case "disk":
      return childAt(element, "target")?.attributes.bus === "virtio"
        ? make("virtio-blk-pci", virtio())
        : null;
    case "interface":
      if (attributes.type === "hostdev") return assigned(element, text, make, ignored);
      return model === undefined || /^virtio/.test(model)
        ? make("virtio-net-pci", virtio())
        : make(model);
    case "memballoon":
      return model === "none" ? null : make("virtio-balloon-pci", virtio());
    case "rng":
      return make("virtio-rng-pci", virtio());
    case "vsock":
      return make("vhost-vsock-pci", virtio());
    case "filesystem":
      return make(
        childAt(element, "driver")?.attributes.type === "virtiofs"
          ? "vhost-user-fs-pci"
          : "virtio-9p-pci",
        virtio(),
      );
    case "sound":
      return model === "ich9" ? make("ich9-intel-hda") : null;
    case "video":
      return videoOf(model, make, virtio);
    case "iommu":
      return iommuOf(element, make);
    default:
      if (!passedOver.has(name)) ignored.push({ argument: text, why: "this element is not known" });
      return null;
  }
}

type Make = (driver: string, more?: Record<string, string | undefined>) => QemuOption;
type Virtio = () => Record<string, string | undefined>;

function controllerOf(element: XmlElement, make: Make, virtio: Virtio): QemuOption | null {
  const { type, model, index } = element.attributes;
  if (type === "scsi") return make("virtio-scsi-pci", virtio());
  if (type === "virtio-serial") return make("virtio-serial-pci", virtio());
  if (type === "usb") return model === "none" ? null : make(usbOf(model));
  // The first SATA controller is the chipset's own.
  if (type === "sata") return index === "0" || index === undefined ? null : make("ich9-ahci");
  const driver = controllers.get(model ?? "");
  if (type !== "pci" || driver === undefined) return null;
  const target = childAt(element, "target");
  return make(driver, {
    id: `pci.${index ?? 0}`,
    bus_nr: target?.attributes.busNr,
    numa_node: target === undefined ? undefined : childAt(target, "node")?.text.trim(),
  });
}

function usbOf(model: string | undefined): string {
  if (model === "nec-xhci") return "nec-usb-xhci";
  return model === undefined || !/^(ich9|piix3)/.test(model)
    ? "qemu-xhci"
    : `${model.replace(/^(ich9|piix3)-/, "$1-usb-")}`;
}

function videoOf(model: string | undefined, make: Make, virtio: Virtio): QemuOption | null {
  const drivers = new Map([
    ["vga", "VGA"],
    ["qxl", "qxl-vga"],
    ["cirrus", "cirrus-vga"],
    ["bochs", "bochs-display"],
  ]);
  if (model === "virtio") return make("virtio-vga", virtio());
  const driver = drivers.get(model ?? "");
  return driver === undefined ? null : make(driver);
}

function iommuOf(element: XmlElement, make: Make): QemuOption | null {
  const { model } = element.attributes;
  const driver = childAt(element, "driver")?.attributes ?? {};
  if (model === "virtio") return make("virtio-iommu-pci");
  if (model !== "intel" && model !== "amd") return null;
  return make(`${model}-iommu`, {
    intremap: driver.intremap,
    "caching-mode": driver.caching_mode,
    "device-iotlb": driver.iotlb,
    "aw-bits": driver.aw_bits,
  });
}

/** A number as libvirt reads it: decimal, hexadecimal, octal; null when it is none. */
function numberIn(text: string | undefined, most: number): number | null {
  if (text === undefined) return 0;
  const isOctal = /^0[0-7]{1,8}$/.test(text);
  if (!isOctal && !/^(0x[0-9a-f]{1,8}|\d{1,9})$/i.test(text)) return null;
  const value = isOctal ? Number.parseInt(text, 8) : Number(text);
  return value <= most ? value : null;
}

/** Where libvirt put it; on the root bus where it has not yet. */
function addressOf(element: XmlElement, root: string): Record<string, string | undefined> {
  const at = childAt(element, "address")?.attributes;
  if (at === undefined || at.type !== "pci") return { bus: root };
  // What is no number stays as it is written, and is refused as a place.
  const bus = numberIn(at.bus, 255) ?? at.bus;
  const slot = numberIn(at.slot, 31)?.toString(16) ?? at.slot;
  return {
    bus: bus === 0 ? root : `pci.${bus}`,
    addr: `${slot}.${numberIn(at.function, 7) ?? at.function}`,
    multifunction: at.multifunction,
  };
}

/** The host's function that an element names; null when it names none. */
function hostAddress(element: XmlElement): string | null {
  const at = childAt(element, "source", "address")?.attributes;
  if (at === undefined) return null;
  const segment = numberIn(at.domain, 0xffff_ffff);
  const bus = numberIn(at.bus, 255);
  const slot = numberIn(at.slot, 31);
  const which = numberIn(at.function, 7);
  if (segment === null || bus === null || slot === null || which === null) return null;
  return pciName({ segment, bus, devfn: slot * 8 + which });
}

function assigned(
  element: XmlElement,
  text: string,
  make: Make,
  ignored: IgnoredArgument[],
): QemuOption | null {
  const host = hostAddress(element);
  if (host === null) {
    const at = childAt(element, "source", "address")?.attributes;
    const words = Object.entries(at ?? {}).map(([key, value]) => `${key}='${value.slice(0, 20)}'`);
    const why =
      at === undefined
        ? "it has no <source> with the address of a device"
        : `its <source> is no address of a PCI function: ${words.join(" ")}`;
    ignored.push({ argument: text, why, isRefused: true });
    return null;
  }
  const isIommufd = childAt(element, "driver")?.attributes.iommufd === "yes";
  return make("vfio-pci", { host, iommufd: isIommufd ? "iommufd0" : undefined });
}

function mediated(element: XmlElement, make: Make): QemuOption | null {
  const uuid = childAt(element, "source", "address")?.attributes.uuid;
  const isPci = (element.attributes.model ?? "vfio-pci") === "vfio-pci";
  return isPci && uuid !== undefined
    ? make("vfio-pci", { sysfsdev: `/sys/bus/mdev/devices/${uuid}` })
    : null;
}

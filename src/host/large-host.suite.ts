/**
 * A made-up host of any size, for tests and benchmarks: nodes, host bridges with root ports, network
 * functions with virtual functions below each, an IOMMU for each host bridge, a group for each
 * function.
 */
import type { TarMember } from "./tar.ts";

/** Virtual functions of each physical one; with it and its port 64 functions. */
const VFS = 62;
const PORTS_PER_BRIDGE = 16;
const BRIDGES_PER_SEGMENT = 4;
const NODES = 4;
const EMPTY = new Uint8Array(0);

const hex = (value: number, digits: number) => value.toString(16).padStart(digits, "0");

/** Configuration space of 4096 bytes: an Express port or endpoint, with a few capabilities. */
function config(kind: "port" | "endpoint", secondary: number): Uint8Array {
  const bytes = new Uint8Array(4096);
  const view = new DataView(bytes.buffer);
  const isPort = kind === "port";
  view.setUint16(0, 0x8086, true);
  view.setUint16(2, isPort ? 0x2030 : 0x1572, true);
  view.setUint16(6, 0x10, true);
  view.setUint32(8, isPort ? 0x0604_0001 : 0x0200_0001, true);
  view.setUint8(0x0e, isPort ? 1 : 0);
  view.setUint8(0x34, 0x40);
  if (isPort) {
    view.setUint8(0x19, secondary);
    view.setUint8(0x1a, secondary);
  }
  view.setUint16(0x40, 0x5001, true);
  view.setUint16(0x50, 0x0010, true);
  view.setUint16(0x52, isPort ? 0x42 : 0x02, true);
  // Advanced error reporting, then ACS for ports, or ATS and SR-IOV for functions.
  view.setUint32(0x100, 0x1481_0001, true);
  view.setUint32(0x148, isPort ? 0x0001_000d : 0x1501_000f, true);
  view.setUint32(0x14c, isPort ? 0x001d_005f : 0x8000_0020, true);
  if (!isPort) {
    view.setUint32(0x150, 0x0001_0010, true);
    view.setUint16(0x15e, VFS, true);
    view.setUint16(0x160, VFS, true);
    view.setUint16(0x164, 1, true);
    view.setUint16(0x166, 1, true);
    view.setUint16(0x16a, 0x154c, true);
  }
  return bytes;
}

class Builder {
  readonly members: TarMember[] = [];
  readonly unitDevices: string[][] = [];
  group = 0;
  count = 0;

  text(path: string, text: string): void {
    this.bytes(path, Buffer.from(`${text}\n`, "latin1"));
  }

  bytes(path: string, bytes: Uint8Array): void {
    this.members.push({ path, kind: "file", bytes, target: "" });
  }

  link(path: string, target: string): void {
    this.members.push({ path, kind: "link", bytes: EMPTY, target });
  }

  device(parent: string, name: string, node: number, bytes: Uint8Array | null, unit: number) {
    const directory = `${parent}/${name}`;
    this.count += 1;
    this.link(`sys/bus/pci/devices/${name}`, `../../../${directory.slice(4)}`);
    if (bytes === null) {
      // A virtual function: all ones where a device says who it is.
      const own = config("endpoint", 0);
      own.fill(0xff, 0, 4);
      this.bytes(`${directory}/config`, own);
      this.text(`${directory}/vendor`, "0x8086");
      this.text(`${directory}/device`, "0x154c");
    } else this.bytes(`${directory}/config`, bytes);
    this.text(`${directory}/numa_node`, `${node}`);
    const line = "0x00000000fe400000 0x00000000fe403fff 0x0000000000140204";
    const none = "0x0000000000000000 0x0000000000000000 0x0000000000000000";
    this.text(`${directory}/resource`, [line, ...Array(12).fill(none)].join("\n"));
    const driver = name.endsWith("00.0") ? "pcieport" : "vfio-pci";
    this.link(`${directory}/driver`, `../../../bus/pci/drivers/${driver}`);
    const group = `sys/kernel/iommu_groups/${this.group}`;
    this.text(`${group}/type`, "DMA-FQ");
    this.text(`${group}/reserved_regions`, "0x00000000fee00000 0x00000000feefffff msi");
    this.link(`${group}/devices/${name}`, `../../../../${directory.slice(4)}`);
    this.unitDevices[unit] ??= [];
    this.unitDevices[unit]!.push(name);
    this.group += 1;
    return directory;
  }
}

/** The files of a host with about this many functions: whole ports of 64. */
export function largeHost(functions: number): TarMember[] {
  const builder = new Builder();
  const ports = Math.ceil(functions / (VFS + 2));
  for (let node = 0; node < NODES; node += 1) {
    const row = Array.from({ length: NODES }, (_, to) => (to === node ? 10 : 21));
    const path = `sys/devices/system/node/node${node}`;
    builder.text(`${path}/distance`, row.join(" "));
    builder.text(`${path}/cpulist`, `${node * 32}-${node * 32 + 31}`);
    builder.text(`${path}/meminfo`, `Node ${node} MemTotal:  268435456 kB`);
  }
  builder.text("proc/version", "Linux version 7.2.12 (x86_64)");
  builder.text("proc/cmdline", "intel_iommu=on");
  for (let port = 0; port < ports; port += 1) {
    const bridge = Math.floor(port / PORTS_PER_BRIDGE);
    const segment = Math.floor(bridge / BRIDGES_PER_SEGMENT);
    const first = (bridge % BRIDGES_PER_SEGMENT) * 64;
    const slot = port % PORTS_PER_BRIDGE;
    const secondary = first + 1 + slot;
    const at = (bus: number, devfn: number) =>
      `${hex(segment, 4)}:${hex(bus, 2)}:${hex(devfn >> 3, 2)}.${devfn & 7}`;
    const root = `sys/devices/pci${hex(segment, 4)}:${hex(first, 2)}`;
    const node = bridge % NODES;
    const portPath = builder.device(
      root,
      at(first, slot * 8),
      node,
      config("port", secondary),
      bridge,
    );
    const own = builder.device(portPath, at(secondary, 0), node, config("endpoint", 0), bridge);
    for (let vf = 1; vf <= VFS; vf += 1) {
      const path = builder.device(portPath, at(secondary, vf), node, null, bridge);
      builder.link(`${path}/physfn`, `../${own.slice(own.lastIndexOf("/") + 1)}`);
    }
  }
  for (const [unit, devices] of builder.unitDevices.entries()) {
    const path = `sys/devices/virtual/iommu/dmar${unit}`;
    builder.link(`sys/class/iommu/dmar${unit}`, `../../devices/virtual/iommu/dmar${unit}`);
    builder.text(`${path}/intel-iommu/address`, hex(0xfed9_0000 + unit * 0x1000, 8));
    for (const device of devices)
      builder.link(`${path}/devices/${device}`, `../../../../${device}`);
  }
  return builder.members;
}

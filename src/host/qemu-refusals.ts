/**
 * What QEMU refuses at its start for reasons that do not lie with a device's place: sizes, ids,
 * counts, and what a device refers to.
 *
 * Source: QEMU hw/core/machine.c and machine-smp.c, hw/core/numa.c, hw/vfio/pci.c:
 * vfio_pci_realize, system/qdev-monitor.c, qom/object_interfaces.c, hw/pci-bridge/
 * pci_expander_bridge.c:pxb_register_bus.
 */
import { pciName } from "../iommu/pci-function.ts";
import { parseBdf } from "../topology/pci-address.ts";
import type { Board } from "./qemu-board.ts";
import type { IgnoredArgument } from "./qemu-command.ts";
import { type QemuOption, sizeOf, wholeNumber } from "./qemu-options.ts";

type Options = readonly QemuOption[];
type Refuse = (option: QemuOption, why: string) => void;

/** CPUs that the newest version of a machine type takes; older ones take fewer. */
const cpusMax = new Map([
  ["q35", 4096],
  ["pc", 255],
  ["virt", 512],
  ["microvm", 288],
]);
const MEMORY_DEFAULT = 128n << 20n;

/** All of it. */
export function refusals(options: Options, board: Board): IgnoredArgument[] {
  const found: IgnoredArgument[] = [];
  const refuse: Refuse = ({ text }, why) => found.push({ argument: text, why, isRefused: true });
  sameIds(options, refuse);
  memory(options, refuse);
  cpus(options, board.type, refuse);
  const objects = namesOf(options, "iommufd");
  const hosts = new Set<string>();
  const busNumbers = new Set<number>();
  for (const option of options) {
    if (option.name !== "device") continue;
    const { values } = option;
    const driver = values.get("driver") ?? "";
    if (/^vfio-pci(-nohotplug)?$/.test(driver)) assigned(option, objects, hosts, refuse);
    if (!/^pxb/.test(driver)) continue;
    const number = wholeNumber(values.get("bus_nr") ?? "0");
    if (number === null || number > 255) refuse(option, "bus_nr= is 0 to 255");
    else if (busNumbers.has(number)) refuse(option, `bus ${number} is already in use`);
    else busNumbers.add(number);
  }
  return found;
}

function sameIds(options: Options, refuse: Refuse): void {
  const seen = new Set<string>();
  for (const option of options) {
    const id = option.values.get("id");
    if (id === undefined || !/^(device|object|netdev)$/.test(option.name)) continue;
    const key = `${option.name} ${id}`;
    if (seen.has(key)) refuse(option, `duplicate id "${id}"`);
    seen.add(key);
  }
}

function namesOf(options: Options, type: string): ReadonlySet<string> {
  return new Set(
    options
      .filter(({ name, values }) => name === "object" && values.get("qom-type")?.startsWith(type))
      .map(({ values }) => values.get("id") ?? ""),
  );
}

function memory(options: Options, refuse: Refuse): void {
  const sized = options.findLast(({ name, values }) => name === "m" && values.has("size"));
  const bytes = sized === undefined ? MEMORY_DEFAULT : sizeOf(sized.values.get("size"), "m");
  if (sized !== undefined && bytes === null) refuse(sized, "this is no size");
  const backends = new Map(
    options
      .filter(({ values }) => values.get("qom-type")?.startsWith("memory-backend-"))
      .map(({ values }) => [values.get("id") ?? "", sizeOf(values.get("size"), "b")]),
  );
  let sum: bigint | null = 0n;
  let last: QemuOption | null = null;
  for (const option of options) {
    const { name, values } = option;
    const backend = name === "machine" ? values.get("memory-backend") : values.get("memdev");
    if (name !== "machine" && (name !== "numa" || values.get("type") !== "node")) continue;
    if (backend !== undefined && !backends.has(backend)) {
      refuse(option, `there is no memory backend "${backend}"`);
    }
    if (name === "machine") continue;
    // A node may be of CPUs alone, next to others with memory.
    const size = backend === undefined ? null : (backends.get(backend) ?? null);
    if (backend !== undefined) last = option;
    if (values.has("mem") || (backend !== undefined && size === null)) sum = null;
    if (sum !== null) sum += size ?? 0n;
  }
  if (last === null || sum === null || bytes === null || sum === bytes) return;
  refuse(last, `memory of the nodes is ${sum} bytes, and -m says ${bytes}`);
}

function cpus(options: Options, board: string, refuse: Refuse): void {
  const option = options.findLast(({ name }) => name === "smp");
  if (option === undefined) return;
  const { values } = option;
  const given = (key: string) => wholeNumber(values.get(key));
  const inner = ["drawers", "books", "dies", "clusters", "modules", "cores", "threads"];
  const product = inner.reduce((all, key) => all * (given(key) ?? 1), given("sockets") ?? 1);
  const most = given("maxcpus") ?? given("cpus") ?? product;
  const limit = cpusMax.get(board);
  const isWhole = ["sockets", "cores", "threads"].every((key) => values.has(key));
  const online = given("cpus");
  if (online === 0) refuse(option, "the number of CPUs is more than zero");
  else if (online !== null && online > most) refuse(option, `${online} CPUs of at most ${most}`);
  else if (isWhole && product !== most) {
    refuse(option, `sockets, cores and threads make ${product} CPUs, not ${most}`);
  } else if (limit !== undefined && most > limit) {
    refuse(option, `${most} CPUs, and this machine takes ${limit}`);
  }
}

function assigned(
  option: QemuOption,
  iommufds: ReadonlySet<string>,
  hosts: Set<string>,
  refuse: Refuse,
): void {
  const { values } = option;
  const host = values.get("host");
  const address = host === undefined ? null : parseBdf(host);
  const isNamed = ["host", "sysfsdev", "fd"].some((key) => values.has(key));
  if (!isNamed) refuse(option, "no host device: it takes host=, sysfsdev= or fd=");
  if (host !== undefined && address === null) {
    refuse(option, `host=${host} is no PCI function; it is written 0000:03:00.0`);
  }
  const iommufd = values.get("iommufd");
  if (iommufd !== undefined && !iommufds.has(iommufd)) {
    refuse(option, `there is no -object iommufd,id=${iommufd}`);
  }
  if (values.has("fd") && iommufd === undefined) refuse(option, "fd= goes with iommufd= only");
  const key = address === null ? values.get("sysfsdev")?.replace(/^.*\//, "") : pciName(address);
  if (key === undefined) return;
  if (hosts.has(key)) refuse(option, "this device of the host is already attached");
  hosts.add(key);
}
